# SPDX-License-Identifier: Apache-2.0
"""What the edge broker is to hold for the workers: published until the broker has it, and again when it has lost it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

from nereid_shared.errors import LinkDown, NereidError
from nereid_shared.link import Link

logger = logging.getLogger(__name__)

RETRY_S: Final = 1.0


class Retained:
    """The retained topics of one broker. Empty bodies clear theirs, once."""

    def __init__(self) -> None:
        self._wanted: dict[str, bytes] = {}
        self._published: dict[str, bytes] = {}
        self._wake = asyncio.Event()
        self._edge: Link | None = None

    def attach(self, edge: Link) -> None:
        """Set the link to the broker."""
        self._edge = edge

    def hold(self, wanted: Mapping[str, bytes], *, cleared: Iterable[str] = ()) -> None:
        """Let the broker hold these and no others that it held for us.

        Args:
            wanted: bodies by topic.
            cleared: topics of others that are to be cleared besides.
        """
        gone = {topic: b"" for topic in (*self._wanted, *cleared) if topic not in wanted}
        self._wanted = {**gone, **wanted}
        self._wake.set()

    def put(self, topic: str, body: bytes) -> None:
        """Let the broker hold a body, or with b"" none, on one topic; said again, it is published again."""
        self._published.pop(topic, None)
        self._wanted[topic] = body
        self._wake.set()

    def seen(self, topic: str, body: bytes, *, is_ours: bool) -> None:
        """Take in what the broker holds: what is not ours is replaced, and cleared only where it is ours to clear."""
        wanted = self._wanted.get(topic, b"")
        if body == wanted or (not wanted and not is_ours):
            return
        self.put(topic, wanted)

    def publish_again(self) -> None:
        """Publish everything again: a broker may have lost it, or hold what is no longer desired."""
        self._published.clear()
        self._wake.set()

    async def run(self, before: Callable[[], Awaitable[None]]) -> None:
        """Publish what is wanted of the broker, again until it has it; `before` is awaited each time."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await before()
            try:
                await self._publish_wanted()
            except LinkDown:
                # `publish_again` follows, at the next connection.
                continue
            except NereidError as error:
                logger.warning("task not published", extra={"problem": str(error)})
                await asyncio.sleep(RETRY_S)
                self._wake.set()

    async def _publish_wanted(self) -> None:
        edge = self._edge
        while edge is not None:
            topic = next((t for t, body in self._wanted.items() if self._published.get(t) != body), None)
            if topic is None:
                return
            body = self._wanted[topic]
            # Noted before it is sent: what somebody else publishes meanwhile takes the note back, and it is sent again.
            self._published[topic] = body
            try:
                await edge.publish(topic, body, retain=True)
            except BaseException:
                self._published.pop(topic, None)
                raise
            if not body and self._wanted.get(topic) == b"" and self._published.pop(topic, None) is not None:
                del self._wanted[topic]
