# SPDX-License-Identifier: Apache-2.0
"""The Pods bound to this node, listed and watched in a thread, handed to the event loop."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass

from nereid_cloud.cluster.kinds import POD
from nereid_cloud.cluster.port import Cluster, Object
from nereid_shared.errors import Gone, NereidError, TemporaryError

_RETRY_S, _RETRY_CEILING_S = 0.5, 10.0
_JOIN_S = 5.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Listed:
    """All Pods of the node; those that are not among them are gone."""

    pods: list[Object]


@dataclass(frozen=True, slots=True)
class Changed:
    """A Pod as it is now."""

    pod: Object


@dataclass(frozen=True, slots=True)
class Deleted:
    """A Pod that the API has no more."""

    pod: Object


News = Listed | Changed | Deleted


class PodFeed:
    """An async context manager; iterate over `news` inside."""

    def __init__(self, cluster: Cluster, *, node: str) -> None:
        self._cluster, self._fields = cluster, f"spec.nodeName={node}"
        self._queue: asyncio.Queue[News] = asyncio.Queue()
        self._stop = threading.Event()

    async def __aenter__(self) -> "PodFeed":
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="pod feed", daemon=True)
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await asyncio.to_thread(self._thread.join, _JOIN_S)

    async def news(self) -> AsyncIterator[News]:
        """Yield what the API says, for ever."""
        while True:
            yield await self._queue.get()

    def _run(self) -> None:
        delay_s = _RETRY_S
        while not self._stop.is_set():
            try:
                listing = self._cluster.list(POD, fields=self._fields)
                self._emit(Listed(listing.items))
                delay_s = _RETRY_S
                self._watch(listing.resource_version)
            except Gone:
                continue
            except NereidError as error:
                logger.warning("pods not watched", extra={"error": str(error), "delay_s": delay_s})
                asked_s = error.delay_s if isinstance(error, TemporaryError) else None
                self._stop.wait(asked_s or delay_s)
                delay_s = min(2 * delay_s, _RETRY_CEILING_S)

    def _watch(self, version: str) -> None:
        while not self._stop.is_set():
            for event in self._cluster.watch(POD, resource_version=version, stop=self._stop, fields=self._fields):
                version = event.object["metadata"]["resourceVersion"]
                if event.type == "DELETED":
                    self._emit(Deleted(event.object))
                elif event.type != "BOOKMARK":
                    self._emit(Changed(event.object))

    def _emit(self, news: News) -> None:
        if not self._stop.is_set():
            self._loop.call_soon_threadsafe(self._queue.put_nowait, news)
