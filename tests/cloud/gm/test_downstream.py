# SPDX-License-Identifier: Apache-2.0
import asyncio
import signal
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest
from tests.mosquitto import Mosquitto

from nereid_cloud.gm.downstream import KICKED_AT_ONCE, MAX_PUBLISHING, RAISE_PAUSE_S, Callbacks, Downstream
from nereid_shared import topics
from nereid_shared.digests import task_hash
from nereid_shared.errors import Unavailable
from nereid_shared.link import Link, LinkSettings, Message
from nereid_shared.messages import Desired, GmAlive, TaskRow

SPEC = {"a": 1}
ROW = TaskRow(kind="Dataset", namespace="n", name="d", generation=1, hash=task_hash(SPEC, {}), spec=SPEC)


async def raise_epoch(above: int) -> int:
    return above + 1


def downstream(
    epoch: int = 1, *, raising: Callable[[int], Awaitable[int]] = raise_epoch, pause_s: float = RAISE_PAUSE_S
) -> Downstream:
    callbacks = Callbacks(node_exists=lambda _: True, raise_epoch=raising, on_report=lambda _node, _report: None)
    return Downstream(cluster="c", identity="gm", epoch=epoch, callbacks=callbacks, raise_pause_s=pause_s)


def link_of(broker: Mosquitto, down: Downstream) -> Link:
    return Link(
        LinkSettings.from_url(broker.url, client_id="gm"),
        subscriptions={topics.DESIRED.filter(): lambda message: down.on_document(message.topic.split("/")[2], message)},
        on_connect=down.connected,
    )


async def first_document(broker: Mosquitto) -> Desired:
    came: asyncio.Future[Desired] = asyncio.get_running_loop().create_future()

    def take(message: Message) -> None:
        if not came.done():
            came.set_result(Desired.decode(message.payload, max_bytes=topics.DESIRED.max_bytes))

    settings = LinkSettings.from_url(broker.url, client_id="reader")
    async with Link(settings, subscriptions={topics.DESIRED.of(node="edge-0"): take}):
        return await asyncio.wait_for(came, 20)


async def test_a_fleets_documents_are_made_some_at_a_time(broker: Mosquitto) -> None:
    def begun() -> int:
        return sum("downstream publish" in task.get_name() for task in asyncio.all_tasks())

    down = downstream()
    async with down, link_of(broker, down) as link:
        await link.wait_connected()
        down.assign("u", {f"edge-{number}": ROW for number in range(3 * KICKED_AT_ONCE)})
        down.release()
        counts = [begun()]
        while counts[-1] < 3 * KICKED_AT_ONCE - MAX_PUBLISHING and len(counts) < 20:
            await asyncio.sleep(0)
            counts.append(begun())
        assert counts[0] == 0
        assert KICKED_AT_ONCE <= max(later - former for former, later in pairwise(counts)) <= 2 * KICKED_AT_ONCE


async def test_nothing_is_published_before_the_release(broker: Mosquitto) -> None:
    down = downstream()
    async with down, link_of(broker, down) as link:
        await link.wait_connected()
        down.assign("u", {"edge-0": ROW})
        await link.publish("a/round/trip", b"")
        assert topics.DESIRED.of(node="edge-0") not in broker.log()
        down.release()
        assert set((await first_document(broker)).tasks) == {"u"}


async def test_a_document_that_was_on_its_way_when_the_broker_died_comes_again(broker: Mosquitto) -> None:
    down = downstream()
    async with down, link_of(broker, down) as link:
        await link.wait_connected()
        broker.send(signal.SIGSTOP)
        down.assign("u", {"edge-0": ROW})
        down.release()
        async with asyncio.timeout(10):
            assert link._session is not None
            while len(link._session._inflight) < 2:  # the sentinel and the document; nothing else tells of it
                await asyncio.sleep(0.01)
        broker.send(signal.SIGKILL)  # `kill` alone would let it go on first
        broker.kill()
        await link.wait_disconnected()
        broker.start()
        document = await first_document(broker)
        assert document.rev > 1
        assert set(document.tasks) == {"u"}


async def test_a_node_that_was_deleted_and_came_back_at_once_has_its_tasks_again(broker: Mosquitto) -> None:
    down = downstream()
    came: asyncio.Queue[bytes] = asyncio.Queue()
    reader = Link(
        LinkSettings.from_url(broker.url, client_id="reader"),
        subscriptions={topics.DESIRED.of(node="edge-0"): lambda message: came.put_nowait(message.payload)},
    )
    async with asyncio.timeout(20), down, link_of(broker, down) as link, reader:
        await link.wait_connected()
        await reader.wait_connected()
        down.assign("u", {"edge-0": ROW})
        down.release()
        assert await came.get()
        down.node_gone("edge-0")
        assert not await came.get()
        down.node_appeared("edge-0")
        document = Desired.decode(await came.get(), max_bytes=topics.DESIRED.max_bytes)
        assert set(document.tasks) == {"u"}


class Lease:
    """Where epochs are raised; `refusals` are to come first.

    Attributes:
        asked: the epochs to lead above, and when that was asked.
    """

    def __init__(self, refusals: int = 0) -> None:
        self.asked: asyncio.Queue[tuple[int, float]] = asyncio.Queue()
        self._refusals = refusals

    async def raised(self, above: int) -> int:
        self.asked.put_nowait((above, asyncio.get_running_loop().time()))
        self._refusals -= 1
        if self._refusals >= 0:
            raise Unavailable("the cluster does not answer")
        return above + 1


def claim(down: Downstream, epoch: int) -> None:
    """Let another say on the leader's topic that it leads."""
    said = GmAlive(status="online", cluster="c", leader="other", epoch=epoch).encode()
    down.on_gm_alive(Message(topics.GM_ALIVE.of(), said, retain=False))


async def test_claims_of_ever_higher_epochs_are_followed_once_in_a_while_and_then_all_at_once() -> None:
    lease, pause_s = Lease(), 0.5
    down = downstream(raising=lease.raised, pause_s=pause_s)
    async with asyncio.timeout(20), down:
        down.release()
        claim(down, 5)
        above, first_at = await lease.asked.get()
        assert above == 5
        for epoch in (9, 30, 7):
            claim(down, epoch)
        above, second_at = await lease.asked.get()
        assert above == 30
        assert second_at - first_at >= pause_s
        assert down.epoch == 31


async def test_a_forger_has_to_wait_for_a_minute() -> None:
    lease = Lease()
    async with downstream(raising=lease.raised) as down:
        down.release()
        claim(down, 5)
        await asyncio.wait_for(lease.asked.get(), 20)
        claim(down, 9)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(lease.asked.get(), 1.5)


async def test_an_epoch_that_could_not_be_raised_is_asked_for_again() -> None:
    lease = Lease(refusals=1)
    async with asyncio.timeout(20), downstream(raising=lease.raised) as down:
        down.release()
        claim(down, 5)
        assert [(await lease.asked.get())[0] for _ in range(2)] == [5, 5]
