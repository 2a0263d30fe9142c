# SPDX-License-Identifier: Apache-2.0
"""What the leader says of itself on the cloud broker: who leads, and a mark by which a lost store is known.

Others write on the same topics: an old leader that woke up, its late will, a broker that restored older data.
"""

import logging
from typing import Literal

from nereid_shared import topics
from nereid_shared.errors import MessageInvalid, MessageTooLarge, NereidError
from nereid_shared.link import Link, Message, Will
from nereid_shared.messages import GmAlive, GmSentinel

logger = logging.getLogger(__name__)


class Voice:
    """The leader's own topics.

    Args:
        cluster: the cluster's own id.
        identity: the leader's name.
    """

    def __init__(self, *, cluster: str, identity: str) -> None:
        self._cluster, self._identity = cluster, identity
        self._counter = 0
        self._sentinels: list[bytes] = []
        self._alive = b""

    def will(self, epoch: int) -> Will:
        """Return the leader's will."""
        return Will(topic=topics.GM_ALIVE.of(), payload=self._gm_alive("offline", epoch), retain=True)

    async def speak(self, link: Link, epoch: int) -> None:
        """Say who leads, and leave a new mark."""
        self._counter += 1
        sentinel = GmSentinel(epoch=epoch, counter=self._counter).encode()
        # The echo of the mark before may still be on its way.
        self._sentinels = [*self._sentinels[-1:], sentinel]
        self._alive = self._gm_alive("online", epoch)
        try:
            await link.publish(topics.GM_SENTINEL.of(), sentinel, retain=True)
            await link.publish(topics.GM_ALIVE.of(), self._alive, retain=True)
        except NereidError as error:
            logger.warning("birth not published", extra={"problem": str(error)})

    async def say_goodbye(self, link: Link, epoch: int) -> None:
        """Say that this leader is gone; the will would say so only at a broken connection."""
        try:
            await link.publish(topics.GM_ALIVE.of(), self._gm_alive("offline", epoch), retain=True)
        except NereidError as error:
            logger.info("no goodbye", extra={"problem": str(error)})

    def is_own(self, message: Message) -> bool:
        """Whether what stands on the leader's topic is what this one said last."""
        return message.payload == self._alive

    def rival_epoch(self, message: Message) -> int:
        """Return the epoch in which another leads our cluster by its own word; 0 where it is no such word."""
        try:
            said = GmAlive.decode(message.payload, max_bytes=topics.GM_ALIVE.max_bytes) if message.payload else None
        except (MessageInvalid, MessageTooLarge):
            return 0
        return said.epoch if said is not None and said.cluster == self._cluster else 0

    def shows_loss(self, message: Message) -> bool:
        """Whether a mark on the broker is none of ours: it lost or restored its data."""
        return bool(self._sentinels) and message.payload not in self._sentinels

    def _gm_alive(self, status: Literal["online", "offline"], epoch: int) -> bytes:
        return GmAlive(status=status, cluster=self._cluster, leader=self._identity, epoch=epoch).encode()
