# SPDX-License-Identifier: Apache-2.0
"""The loop of the laptop's controllers: look at everything whenever something has changed.

A laptop's cluster has some tens of objects: reading them all costs a millisecond, and leaves no cache to go wrong.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final

from nereid_cloud.cluster.port import Cluster, Kind
from nereid_shared.errors import Gone, NereidError, TemporaryError

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
    """
    changed = threading.Event()
    changed.set()
    threads = [
        threading.Thread(target=_watch, args=(cluster, kind, changed, stop), name=f"watch-{kind.plural}")
        for kind in watched
    ]
    for thread in threads:
        thread.start()
    while not stop.is_set():
        changed.wait(every_s)
        changed.clear()
        if stop.is_set():
            break
        try:
            reconcile()
        except TemporaryError as error:
            # Somebody wrote in between, or the cluster is busy: look again.
            logger.debug("reconciled in part", extra={"error": str(error)})
            changed.set()
            stop.wait(0.01)
        except NereidError:
            logger.exception("not reconciled")
            stop.wait(_RETRY_S)
    for thread in threads:
        thread.join()


def _watch(cluster: Cluster, kind: Kind, changed: threading.Event, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            version = cluster.list(kind).resource_version
            changed.set()
            for event in cluster.watch(kind, resource_version=version, stop=stop):
                if event.type != "BOOKMARK":
                    changed.set()
        except Gone:
            continue
        except NereidError as error:
            logger.warning("watch broken", extra={"kind": kind.kind, "error": str(error)})
            stop.wait(_RETRY_S)
    # Whoever waits for a change learns of the stop at once.
    changed.set()
