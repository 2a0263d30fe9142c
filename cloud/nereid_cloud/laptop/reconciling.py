# SPDX-License-Identifier: Apache-2.0
"""The loop of the laptop's controllers: look at everything whenever something has changed.

A laptop's cluster has some tens of objects: reading them all costs a millisecond, and leaves no cache to go wrong.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final

from nereid_cloud.cluster.listwatch import ListWatch
from nereid_cloud.cluster.port import Cluster, Kind
from nereid_shared.errors import NereidError, TemporaryError

_RETRY_S: Final = 1.0

logger = logging.getLogger(__name__)


def reconcile_on_changes(
    cluster: Cluster,
    watched: Sequence[Kind],
    reconcile: Callable[[], None],
    *,
    stop: threading.Event,
    every_s: float,
) -> None:
    """Call `reconcile` at once, at every change of a watched kind, and every `every_s`, until `stop` is set.

    Changes that come meanwhile make one more call. An error of the cluster is logged and tried again at the next.

    Raises:
        Exception: any other error, of the work or of a watch; `stop` is set then.
    """
    changed = threading.Event()
    changed.set()
    failures: list[Exception] = []
    threads = [
        threading.Thread(target=_watch, args=(cluster, kind, changed, stop, failures), name=f"watch-{kind.plural}")
        for kind in watched
    ]
    for thread in threads:
        thread.start()
    try:
        while not stop.is_set():
            changed.wait(every_s)
            changed.clear()
            if failures:
                raise failures[0]
            if not stop.is_set():
                _look(reconcile, changed, stop)
    finally:
        # Also where something unforeseen ends the loop: a watch that went on would keep the process alive.
        stop.set()
        for thread in threads:
            thread.join()


def _look(reconcile: Callable[[], None], changed: threading.Event, stop: threading.Event) -> None:
    try:
        reconcile()
    except TemporaryError as error:
        # Somebody wrote in between, or the cluster is busy: look again.
        logger.debug("reconciled in part", extra={"problem": str(error)})
        changed.set()
        stop.wait(0.01)
    except NereidError:
        logger.exception("not reconciled")
        stop.wait(_RETRY_S)


def _watch(
    cluster: Cluster, kind: Kind, changed: threading.Event, stop: threading.Event, failures: list[Exception]
) -> None:
    follow = ListWatch(
        cluster,
        kind,
        on_list=lambda _: changed.set(),
        on_event=lambda _: changed.set(),
        stop=stop,
        last_retry_s=_RETRY_S,
    )
    try:
        follow.run()
    except Exception as error:
        logger.exception("watch ended", extra={"kind": kind.kind})
        failures.append(error)
    finally:
        # Whoever waits for a change learns of the end at once.
        changed.set()
