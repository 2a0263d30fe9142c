# SPDX-License-Identifier: Apache-2.0
"""Waits until the broker has sent all that it remembers: our own message, sent after subscribing, comes back last.

A broker queues the retained messages of a subscription before it takes the next packet of the same connection.
"""

import asyncio
import logging
import secrets
from typing import Final

from nereid_shared import topics
from nereid_shared.errors import LinkDown
from nereid_shared.link import Link, Message

logger = logging.getLogger(__name__)

TOPIC: Final = topics.GM_FENCE.of()
TIMEOUT_S: Final = 10.0


class Fence:
    """The nonces on their way; `on_message` is to be subscribed to `TOPIC`."""

    def __init__(self) -> None:
        self._nonce = b""
        self._came = asyncio.Event()

    def on_message(self, message: Message) -> None:
        """Take what comes on the topic; other leaders' nonces are not ours."""
        if message.payload == self._nonce:
            self._came.set()

    async def passed(self, link: Link, *, timeout_s: float = TIMEOUT_S) -> bool:
        """Wait until all that was retained has come; False where the time ran out.

        Raises:
            LinkDown: the link was left.
        """
        while True:
            connection = await link.wait_connected()
            self._nonce = secrets.token_bytes(16)
            self._came.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await link.publish(TOPIC, self._nonce)
                    await self._came.wait()
            except TimeoutError:
                if not link.connected or link.connections != connection:
                    continue  # it went with its connection
                logger.warning("retained messages may still come", extra={"waited_s": timeout_s})
                return False
            except LinkDown as error:
                logger.info("fence lost", extra={"connection": connection, "problem": str(error)})
                await link.wait_connected(after=connection)
            else:
                return True
