# SPDX-License-Identifier: Apache-2.0
import asyncio

from tests.mosquitto import Mosquitto

from nereid_cloud.gm.fence import TOPIC, Fence
from nereid_shared.link import Link, LinkSettings, Message

MANY = 400


async def test_all_that_the_broker_remembers_comes_before_the_fence(broker: Mosquitto) -> None:
    async with Link(LinkSettings.from_url(broker.url, client_id="writer")) as writer:
        await writer.wait_connected()
        for number in range(MANY):
            await writer.publish(f"kept/{number}", b"x" * 2000, retain=True)
    fence, came = Fence(), list[Message]()
    subscriptions = {"kept/#": came.append, TOPIC: fence.on_message}
    async with Link(LinkSettings.from_url(broker.url, client_id="reader"), subscriptions=subscriptions) as link:
        assert await fence.passed(link)
        assert len(came) == MANY


async def test_a_fence_that_does_not_come_back_is_not_waited_for_for_ever(broker: Mosquitto) -> None:
    async with asyncio.timeout(10), Link(LinkSettings.from_url(broker.url, client_id="deaf")) as link:
        assert not await Fence().passed(link, timeout_s=0.2)


async def test_a_fence_outlives_the_brokers_restart(broker: Mosquitto) -> None:
    fence = Fence()
    subscriptions = {TOPIC: fence.on_message}
    async with (
        asyncio.timeout(20),
        Link(LinkSettings.from_url(broker.url, client_id="gm"), subscriptions=subscriptions) as link,
    ):
        await link.wait_connected()
        broker.kill()
        passing = asyncio.create_task(fence.passed(link))
        await link.wait_disconnected()
        broker.start()
        assert await passing
