# SPDX-License-Identifier: Apache-2.0
"""What the edge broker holds, also where a wish comes while the one before is on its way."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.mosquitto import Mosquitto

from nereid_edge.retained import Retained
from nereid_shared.link import Link, Message
from nereid_shared.link_settings import LinkSettings

TOPIC = "neptune/workers/w/info"
PROBE = "neptune/probe"
TIMEOUT_S = 30


class HeldLink(Link):
    """A link whose acknowledgements wait for a gate."""

    gate: asyncio.Event
    begun: asyncio.Event

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        code = await super().publish(topic, payload, retain=retain)
        self.begun.set()
        await self.gate.wait()
        return code


@pytest.fixture
async def link(broker: Mosquitto) -> AsyncIterator[HeldLink]:
    made = HeldLink(LinkSettings.from_url(broker.url, client_id="lc"), subscriptions={})
    made.gate, made.begun = asyncio.Event(), asyncio.Event()
    async with made:
        await made.wait_connected()
        yield made


async def nothing() -> None:
    """There is nothing to do before."""


async def test_a_word_that_comes_while_its_topic_is_cleared_is_cleared_too(link: HeldLink, broker: Mosquitto) -> None:
    retained = Retained()
    retained.attach(link)
    running = asyncio.create_task(retained.run(nothing))
    retained.put(TOPIC, b"")
    async with asyncio.timeout(TIMEOUT_S):
        await link.begun.wait()
        # The worker's goodbye, after our clearing and before its acknowledgement.
        async with Link(LinkSettings.from_url(broker.url, client_id="w"), subscriptions={}) as worker:
            await worker.wait_connected()
            await worker.publish(TOPIC, b"offline", retain=True)
        retained.put(TOPIC, b"")
        link.gate.set()
        while await held(broker):
            pass
    running.cancel()


async def held(broker: Mosquitto) -> bytes:
    """Return what the broker holds on the topic, b"" for nothing."""
    found: list[bytes] = []
    probed = asyncio.Event()

    def probe(_: Message) -> None:
        probed.set()

    subscriptions = {TOPIC: lambda message: found.append(message.payload), PROBE: probe}
    async with Link(LinkSettings.from_url(broker.url, client_id="eye"), subscriptions=subscriptions) as eye:
        await eye.wait_connected()
        # What is held comes before what is published later.
        await eye.publish(PROBE, b"x")
        await probed.wait()
    return found[0] if found else b""
