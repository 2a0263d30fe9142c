# SPDX-License-Identifier: Apache-2.0
"""A kind's objects as they change: list, watch, and list again when the watch is lost.

Blocks; its callers run it in a thread of their own, and answer for what it raises: a thread that ends unseen leaves a
cache that never changes again.
"""

import logging
import random
import threading
from collections.abc import Callable
from typing import Final

from nereid_cloud.cluster.port import Cluster, Kind, Object, WatchEvent
from nereid_shared.errors import Gone, NereidError, TemporaryError

logger = logging.getLogger(__name__)

WATCH_S: Final = 300.0
FIRST_RETRY_S: Final = 0.2
LAST_RETRY_S: Final = 30.0


class ListWatch:
    """One kind's list and watch.

    Args:
        cluster: where the objects are.
        kind: which objects.
        on_list: all objects; those that are not among them are gone.
        on_event: one change; never a bookmark.
        stop: ends it.
        labels: label selector of the objects.
        fields: field selector of the objects.
        last_retry_s: the longest pause after failures.
    """

    def __init__(
        self,
        cluster: Cluster,
        kind: Kind,
        *,
        on_list: Callable[[list[Object]], None],
        on_event: Callable[[WatchEvent], None],
        stop: threading.Event,
        labels: str = "",
        fields: str = "",
        last_retry_s: float = LAST_RETRY_S,
    ) -> None:
        self._cluster, self._kind, self._on_list, self._on_event = cluster, kind, on_list, on_event
        self._stop, self._labels, self._fields, self._last_retry_s = stop, labels, fields, last_retry_s
        self._failures = 0

    def run(self) -> None:
        """Follow the cluster until `stop` is set; the cluster's own errors are logged and tried again.

        Raises:
            Exception: any other error; nothing is followed any more.
        """
        while not self._stop.is_set():
            try:
                self._follow()
            except Gone:
                logger.info("watch too old, listing again", extra={"kind": self._kind.kind})
            except NereidError as error:
                self._failures += 1
                asked_s = error.delay_s if isinstance(error, TemporaryError) else None
                delay_s = asked_s or self._back_off_s()
                extra = {"kind": self._kind.kind, "error": str(error), "delay_s": delay_s}
                logger.warning("watch failed", extra=extra)
                self._stop.wait(delay_s)

    def _back_off_s(self) -> float:
        delay_s = min(FIRST_RETRY_S * 2.0 ** min(self._failures, 16), self._last_retry_s)
        return delay_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter

    def _follow(self) -> None:
        """List once, then watch until the watch fails."""
        listed = self._cluster.list(self._kind, labels=self._labels, fields=self._fields)
        self._on_list(listed.items)
        self._failures, version = 0, listed.resource_version
        while not self._stop.is_set():
            events = self._cluster.watch(
                self._kind,
                resource_version=version,
                stop=self._stop,
                labels=self._labels,
                fields=self._fields,
                timeout_s=WATCH_S,
            )
            for event in events:
                version = event.object["metadata"]["resourceVersion"]
                if event.type != "BOOKMARK":
                    self._on_event(event)
