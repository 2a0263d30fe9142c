# SPDX-License-Identifier: Apache-2.0
"""The Pods bound to this node, listed and watched in a thread, handed to the event loop."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass

from nereid_cloud.cluster.kinds import POD
from nereid_cloud.cluster.listwatch import ListWatch
from nereid_cloud.cluster.port import Cluster, Object

_RETRY_CEILING_S = 10.0
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
        self._queue: asyncio.Queue[News | Exception] = asyncio.Queue()
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
        """Yield what the API says, for ever; raises what keeps it from going on."""
        while True:
            news = await self._queue.get()
            if isinstance(news, Exception):
                raise news
            yield news

    def _run(self) -> None:
        follow = ListWatch(
            self._cluster,
            POD,
            on_list=lambda pods: self._emit(Listed(pods)),
            on_event=lambda event: self._emit((Deleted if event.type == "DELETED" else Changed)(event.object)),
            stop=self._stop,
            fields=self._fields,
            last_retry_s=_RETRY_CEILING_S,
        )
        try:
            follow.run()
        except Exception as error:
            logger.exception("pods not watched any more")
            self._emit(error)

    def _emit(self, news: News | Exception) -> None:
        if not self._stop.is_set():
            self._loop.call_soon_threadsafe(self._queue.put_nowait, news)
