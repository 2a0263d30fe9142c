# SPDX-License-Identifier: Apache-2.0
import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.mosquitto import Mosquitto

from nereid_cloud.gm.voice import Voice
from nereid_shared import topics
from nereid_shared.link import Link, LinkSettings, Message
from nereid_shared.messages import GmAlive, GmSentinel

ALIVE, SENTINEL = topics.GM_ALIVE.of(), topics.GM_SENTINEL.of()


class Heard:
    """A link that hears its own topics, as the leader's does."""

    def __init__(self, broker: Mosquitto) -> None:
        self.messages: asyncio.Queue[Message] = asyncio.Queue()
        settings = LinkSettings.from_url(broker.url, client_id="gm")
        self.link = Link(settings, subscriptions=dict.fromkeys((ALIVE, SENTINEL), self.messages.put_nowait))

    async def next(self, topic: str) -> Message:
        """Return the next message on a topic."""
        async with asyncio.timeout(30):
            while (message := await self.messages.get()).topic != topic:
                pass
            return message


@pytest.fixture
async def heard(broker: Mosquitto) -> AsyncIterator[Heard]:
    made = Heard(broker)
    async with made.link:
        await made.link.wait_connected()
        yield made


def voice(identity: str = "gm", cluster: str = "c") -> Voice:
    return Voice(cluster=cluster, identity=identity)


def alive(message: Message) -> GmAlive:
    return GmAlive.decode(message.payload, max_bytes=4096)


async def test_only_what_this_leader_said_last_is_its_own(heard: Heard) -> None:
    ours, other = voice(), voice("other")
    await ours.speak(heard.link, 3)
    first = await heard.next(ALIVE)
    assert ours.is_own(first)
    assert (alive(first).status, alive(first).leader, alive(first).epoch) == ("online", "gm", 3)
    await other.speak(heard.link, 3)
    assert not ours.is_own(await heard.next(ALIVE))
    await ours.speak(heard.link, 4)
    assert ours.is_own(await heard.next(ALIVE))
    assert not ours.is_own(first)


async def test_goodbye_and_will_say_that_the_leader_is_gone(heard: Heard) -> None:
    ours = voice()
    await ours.speak(heard.link, 3)
    await heard.next(ALIVE)
    await ours.say_goodbye(heard.link, 3)
    goodbye = await heard.next(ALIVE)
    assert (alive(goodbye).status, alive(goodbye).epoch) == ("offline", 3)
    will = ours.will(3)
    assert (will.topic, will.payload, will.retain) == (ALIVE, goodbye.payload, True)


@pytest.mark.parametrize(
    ("payload", "epoch"),
    [
        (GmAlive(status="online", cluster="c", leader="other", epoch=9).encode(), 9),
        (GmAlive(status="online", cluster="elsewhere", leader="other", epoch=9).encode(), 0),
        (b"", 0),
        (b"\xff", 0),
        (b'"' + b"x" * topics.GM_ALIVE.max_bytes + b'"', 0),
    ],
)
def test_a_rival_counts_by_its_word_on_our_cluster(payload: bytes, epoch: int) -> None:
    assert voice().rival_epoch(Message(ALIVE, payload, True)) == epoch


async def test_a_mark_that_is_not_ours_shows_that_the_broker_lost_data(heard: Heard) -> None:
    ours = voice()
    marks = []
    assert not ours.shows_loss(Message(SENTINEL, b"anything", True))  # nothing was left there yet
    for _ in range(3):
        await ours.speak(heard.link, 3)
        marks.append(await heard.next(SENTINEL))
    assert [ours.shows_loss(mark) for mark in marks] == [True, False, False]  # the echo before may still be on its way
    assert len({mark.payload for mark in marks}) == 3
    assert ours.shows_loss(Message(SENTINEL, b"", True))
    assert ours.shows_loss(Message(SENTINEL, GmSentinel(epoch=2, counter=3).encode(), True))
