# SPDX-License-Identifier: Apache-2.0
"""A kind's objects as they change: list, watch, and list again where a watch cannot go on.

A watch that broke is continued once from where it was. If that fails too, the server was away: it may have come back
with an older store, whose later changes a watch from a version of its future would not show. Hence a new list.

Blocks; its callers run it in a thread of their own, and answer for what it raises: a thread that ends unseen leaves a
cache that never changes again.
"""

import logging
import math
import random
import threading
import time
from collections.abc import Callable
from typing import Final

from nereid_cloud.cluster.port import Cluster, Kind, Object, WatchEvent
from nereid_shared.backoff import doubled
from nereid_shared.errors import Gone, NereidError, TemporaryError, Unavailable

logger = logging.getLogger(__name__)

# Between one and two of them, so that a server's watches do not end together.
WATCH_S: Final = 240.0
# A watch that ends sooner, and with nothing, was not served.
SHORT_S: Final = 1.0
# A watch that lasted longer was served well: its end is the first failure, not one more.
STEADY_S: Final = 10.0
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
        namespace: where the objects are; None for all namespaces.
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
        namespace: str | None = None,
        labels: str = "",
        fields: str = "",
        last_retry_s: float = LAST_RETRY_S,
    ) -> None:
        self._cluster, self._kind, self._on_list, self._on_event = cluster, kind, on_list, on_event
        self._stop, self._last_retry_s = stop, last_retry_s
        self._namespace, self._labels, self._fields = namespace, labels, fields
        self._failures, self._version, self._began = 0, "", math.inf

    def run(self) -> None:
        """Follow the cluster until `stop` is set; the cluster's own errors are logged and tried again.

        Raises:
            Exception: any other error; nothing is followed any more.
        """
        while not self._stop.is_set():
            try:
                if not self._version:
                    self._list()
                self._watch()
            except Gone:
                logger.info("watch too old, listing again", extra={"kind": self._kind.kind})
                self._version = ""
                self._failures += 1
                if self._failures > 1:
                    self._stop.wait(self._back_off_s())
            except NereidError as error:
                self._stop.wait(self._failed(error))

    def _failed(self, error: NereidError) -> float:
        """Note a failure; return how long to wait."""
        self._failures = 1 if time.monotonic() - self._began > STEADY_S else self._failures + 1
        self._began = math.inf
        asked_s = error.delay_s if isinstance(error, TemporaryError) else None
        if self._failures > 1 and asked_s is None:
            self._version = ""
        delay_s = asked_s * random.uniform(1.0, 1.25) if asked_s else self._back_off_s()  # noqa: S311 - jitter
        extra = {"kind": self._kind.kind, "problem": str(error), "delay_s": round(delay_s, 3)}
        logger.warning("watch failed", extra=extra)
        return delay_s

    def _back_off_s(self) -> float:
        delay_s = doubled(FIRST_RETRY_S, self._failures, longest_s=self._last_retry_s)
        return delay_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter

    def _list(self) -> None:
        listed = self._cluster.list(self._kind, namespace=self._namespace, labels=self._labels, fields=self._fields)
        self._on_list(listed.items)
        self._version = listed.resource_version

    def _watch(self) -> None:
        """Watch until the server or its time ends it."""
        self._began, seen = time.monotonic(), False
        for event in self._cluster.watch(
            self._kind,
            resource_version=self._version,
            stop=self._stop,
            namespace=self._namespace,
            labels=self._labels,
            fields=self._fields,
            timeout_s=WATCH_S * random.uniform(1.0, 2.0),  # noqa: S311 - jitter
        ):
            self._version, self._failures, seen = event.object["metadata"]["resourceVersion"], 0, True
            if event.type != "BOOKMARK":
                self._on_event(event)
        if not seen and not self._stop.is_set() and time.monotonic() - self._began < SHORT_S:
            raise Unavailable("the watch ended at once, with nothing")
        self._failures = 0
