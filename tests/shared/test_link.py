# SPDX-License-Identifier: Apache-2.0
"""The link against a real broker: what it promises of publishes, subscriptions, wills and reconnects."""

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import MosquittoFactory
from tests.mosquitto import Mosquitto, free_port
from tests.proxy import Proxy

from nereid_shared.errors import (
    LinkBusy,
    LinkDown,
    MessageInvalid,
    MessageTooLarge,
    PublishRefused,
    SubscribeRefused,
    UserError,
)
from nereid_shared.link import Link, LinkSettings, Message, TlsFiles, Will

TIMEOUT_S = 30.0


def settings(broker: Mosquitto, client_id: str, **more: Any) -> LinkSettings:
    return LinkSettings.from_url(broker.url, client_id=client_id, **more)


def local(port: int, **more: Any) -> LinkSettings:
    return LinkSettings(host="127.0.0.1", port=port, client_id="c", **more)


class Inbox:
    """A handler that keeps what came."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Message] = asyncio.Queue()

    def __call__(self, message: Message) -> None:
        self.queue.put_nowait(message)

    async def next(self) -> Message:
        async with asyncio.timeout(TIMEOUT_S):
            return await self.queue.get()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():
            await asyncio.sleep(0.002)


async def test_a_message_arrives_and_its_publisher_knows(broker: Mosquitto) -> None:
    inbox = Inbox()
    async with (
        Link(settings(broker, "rx"), subscriptions={"a/+": inbox}) as rx,
        Link(settings(broker, "tx")) as tx,
    ):
        await rx.wait_connected()
        await tx.wait_connected()
        assert await tx.publish("a/b", b"hello") == 0
        assert await inbox.next() == Message("a/b", b"hello", False)


async def test_a_publish_that_nobody_subscribes_to_says_so(broker: Mosquitto) -> None:
    async with Link(settings(broker, "tx")) as tx:
        await tx.wait_connected()
        assert await tx.publish("nobody/here", b"") == 0x10


async def test_entering_needs_no_broker_and_publishing_says_down(tmp_path: Path, mosquitto: MosquittoFactory) -> None:
    port = free_port()
    async with Link(local(port)) as link:
        assert not link.connected
        with pytest.raises(LinkDown):
            await link.publish("a", b"")
        with pytest.raises(LinkDown):
            link.publish_nowait("a", b"")
        await until(lambda: "refused" in link.last_error)
        assert link.connections == 0
        mosquitto(port=port)
        async with asyncio.timeout(TIMEOUT_S):
            assert await link.wait_connected() == 1
        assert link.last_error == ""


async def test_a_retained_message_is_flagged_as_memory(broker: Mosquitto) -> None:
    inbox = Inbox()
    async with Link(settings(broker, "tx")) as tx:
        await tx.wait_connected()
        await tx.publish("a", b"1", retain=True)
        async with Link(settings(broker, "rx"), subscriptions={"a": inbox}):
            assert (await inbox.next()).retain
            await tx.publish("a", b"2", retain=True)
            assert not (await inbox.next()).retain


async def test_the_puback_waits_until_the_handler_is_done(broker: Mosquitto) -> None:
    """With a receive maximum of 1 the broker holds the second message until the first is acknowledged."""
    started: asyncio.Queue[bytes] = asyncio.Queue()
    may_end = asyncio.Event()

    async def slow(message: Message) -> None:
        started.put_nowait(message.payload)
        await may_end.wait()

    async with (
        Link(settings(broker, "rx", receive_max=1), subscriptions={"a": slow}) as rx,
        Link(settings(broker, "tx")) as tx,
    ):
        await rx.wait_connected()
        await tx.wait_connected()
        await tx.publish("a", b"1")
        await tx.publish("a", b"2")
        async with asyncio.timeout(TIMEOUT_S):
            assert await started.get() == b"1"
        await tx.publish("b", b"a round trip through the broker")
        assert "Received PUBACK from rx" not in broker.log()
        assert broker.log().count("Sending PUBLISH to rx") == 1
        may_end.set()
        async with asyncio.timeout(TIMEOUT_S):
            assert await started.get() == b"2"
        assert "Received PUBACK from rx" in broker.log()


async def test_a_handler_that_returns_futures_sees_the_next_message_at_once(broker: Mosquitto) -> None:
    futures: list[asyncio.Future[None]] = []

    def batching(_: Message) -> Awaitable[None]:
        futures.append(asyncio.get_running_loop().create_future())
        return futures[-1]

    async with (
        Link(settings(broker, "rx"), subscriptions={"a": batching}) as rx,
        Link(settings(broker, "tx")) as tx,
    ):
        await rx.wait_connected()
        await tx.wait_connected()
        for _ in range(3):
            await tx.publish("a", b"")
        await until(lambda: len(futures) == 3)
        futures[2].set_result(None)
        futures[1].cancel()
        assert broker.log().count("Received PUBACK from rx") == 0
        futures[0].set_result(None)
        await until(lambda: broker.log().count("Received PUBACK from rx") == 3)


async def test_a_coroutine_handler_runs_one_message_at_a_time_in_order(broker: Mosquitto) -> None:
    events: list[str] = []

    async def handler(message: Message) -> None:
        events.append(f"begin {message.payload.decode()}")
        await asyncio.sleep(0)
        events.append(f"end {message.payload.decode()}")

    async with (
        Link(settings(broker, "rx"), subscriptions={"a": handler}) as rx,
        Link(settings(broker, "tx")) as tx,
    ):
        await rx.wait_connected()
        await tx.wait_connected()
        await asyncio.gather(*(tx.publish("a", str(n).encode()) for n in range(5)))
        await until(lambda: len(events) == 10)
    assert events == [f"{what} {n}" for n in range(5) for what in ("begin", "end")]


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_bad_message_is_counted_acknowledged_and_followed_by_the_next(
    broker: Mosquitto, caplog: pytest.LogCaptureFixture, is_async: bool
) -> None:
    inbox = Inbox()
    errors: dict[bytes, Exception] = {
        b"invalid": MessageInvalid("not JSON"),
        b"large": MessageTooLarge("a", size_bytes=2, limit_bytes=1),
        b"bug": ZeroDivisionError(),
    }

    def handler(message: Message) -> None:
        if message.payload in errors:
            raise errors[message.payload]
        inbox(message)

    async def async_handler(message: Message) -> None:
        handler(message)

    async with (
        Link(settings(broker, "rx"), subscriptions={"a": async_handler if is_async else handler}) as rx,
        Link(settings(broker, "tx")) as tx,
    ):
        await rx.wait_connected()
        await tx.wait_connected()
        for payload in (*errors, b"good"):
            await tx.publish("a", payload)
        assert (await inbox.next()).payload == b"good"
        assert (rx.dead_letters, rx.failures) == (2, 1)
        await until(lambda: broker.log().count("Received PUBACK from rx") == 4)
    assert [r.message for r in caplog.records if r.levelno >= logging.WARNING] == [
        "dead letter", "dead letter", "handler raised",
    ]  # fmt: skip
    assert caplog.records[-1].exc_info is not None or "ZeroDivisionError" in caplog.text


async def test_a_refused_publish_names_the_reason(mosquitto: MosquittoFactory, tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic write allowed\n")
    broker = mosquitto(config=[f"acl_file {acl}"])
    async with Link(settings(broker, "tx")) as tx:
        await tx.wait_connected()
        assert await tx.publish("allowed", b"") == 0x10
        with pytest.raises(PublishRefused, match=r"forbidden: .*[Nn]ot authorized \(0x87\)") as refused:
            await tx.publish("forbidden", b"")
        assert refused.value.reason_code == 0x87
        codes: asyncio.Queue[int | None] = asyncio.Queue()
        tx.publish_nowait("forbidden", b"", on_ack=codes.put_nowait)
        async with asyncio.timeout(TIMEOUT_S):
            assert await codes.get() == 0x87


async def test_an_oversize_publish_is_refused_before_it_is_sent(mosquitto: MosquittoFactory) -> None:
    """An oversize packet would make the broker drop the connection."""
    broker = mosquitto(max_packet_size=2000)
    async with Link(settings(broker, "tx")) as tx:
        await tx.wait_connected()
        largest = 2000 - 10 - len("a/b")
        with pytest.raises(MessageTooLarge) as error:
            await tx.publish("a/b", b"x" * (largest + 1))
        assert error.value.limit_bytes == largest
        assert error.value.size_bytes == largest + 1
        # The bound is exact at four bytes' worth of the packet's own length.
        assert await tx.publish("a/b", b"x" * largest) == 0x10
        assert tx.connections == 1


async def test_our_own_bound_holds_both_ways(broker: Mosquitto) -> None:
    inbox = Inbox()
    async with (
        Link(settings(broker, "rx", max_packet_bytes=1000), subscriptions={"a": inbox}) as rx,
        Link(settings(broker, "tx")) as tx,
    ):
        await rx.wait_connected()
        await tx.wait_connected()
        with pytest.raises(MessageTooLarge):
            await rx.publish("a", b"x" * 1000)
        await tx.publish("a", b"x" * 1000)
        await tx.publish("a", b"small")
        assert (await inbox.next()).payload == b"small"
        assert rx.connections == 1


async def test_the_link_comes_back_with_its_subscriptions_and_says_hello_again(broker: Mosquitto) -> None:
    inbox = Inbox()
    greetings: list[int] = []

    async def greet(link: Link) -> None:
        greetings.append(link.connections)
        assert not link.connected
        await link.publish("hello", b"")

    async with (
        Link(settings(broker, "rx"), subscriptions={"a": inbox}, on_connect=greet) as rx,
        Link(settings(broker, "tx")) as tx,
    ):
        await rx.wait_connected()
        await rx.subscribe("b", inbox)
        first = await tx.wait_connected()
        broker.kill()
        async with asyncio.timeout(TIMEOUT_S):
            await rx.wait_disconnected()
            await tx.wait_disconnected()
        broker.start()
        async with asyncio.timeout(TIMEOUT_S):
            await rx.wait_connected(after=1)
            await tx.wait_connected(after=first)
        assert greetings == [1, 2]
        await tx.publish("a", b"1")
        await tx.publish("b", b"2")
        assert [(await inbox.next()).topic, (await inbox.next()).topic] == ["a", "b"]


async def test_a_broker_that_says_goodbye_is_reconnected_to(broker: Mosquitto) -> None:
    async with Link(settings(broker, "c")) as link:
        await link.wait_connected()
        broker.stop()
        async with asyncio.timeout(TIMEOUT_S):
            await link.wait_disconnected()
        assert not link.connected
        broker.start()
        async with asyncio.timeout(TIMEOUT_S):
            assert await link.wait_connected(after=1) == 2


async def test_on_connect_that_raises_gives_the_connection_up_and_it_is_tried_again(
    broker: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail_once(link: Link) -> None:
        if link.connections == 1:
            raise ZeroDivisionError

    async with Link(settings(broker, "c"), on_connect=fail_once) as link:
        async with asyncio.timeout(TIMEOUT_S):
            assert await link.wait_connected() == 2
    assert "ZeroDivisionError" in caplog.text


async def test_the_will_speaks_when_the_connection_is_cut_and_only_then(broker: Mosquitto) -> None:
    inbox = Inbox()
    async with Link(settings(broker, "watch"), subscriptions={"will": inbox}) as watch:
        await watch.wait_connected()
        async with Proxy(broker.port) as proxy:
            cut = local(proxy.port)
            async with Link(cut, will=lambda n: Will(topic="will", payload=str(n).encode(), retain=False)) as link:
                await link.wait_connected()
                proxy.cut()
                assert (await inbox.next()).payload == b"1"
                async with asyncio.timeout(TIMEOUT_S):
                    await link.wait_connected(after=1)
                link.abort()
                assert (await inbox.next()).payload == b"2"
                async with asyncio.timeout(TIMEOUT_S):
                    await link.wait_connected(after=2)
            # Left in order: the broker has closed by now, so a will would stand before this message.
            assert "Received DISCONNECT from c" in broker.log()
            await watch.publish("will", b"none")
            assert (await inbox.next()).payload == b"none"


async def test_leaving_with_traffic_under_way_fires_no_will(broker: Mosquitto) -> None:
    inbox, busy = Inbox(), Inbox()
    async with Link(settings(broker, "watch"), subscriptions={"will": inbox}) as watch:
        await watch.wait_connected()
        leaver = Link(
            settings(broker, "c"),
            subscriptions={"busy": busy},
            will=Will(topic="will", payload=b"fired", retain=False),
        )
        async with leaver:
            await leaver.wait_connected()
            for _ in range(300):
                watch.publish_nowait("busy", b"x" * 20_000)
            await busy.next()
        await watch.publish("will", b"none")
        assert (await inbox.next()).payload == b"none"


async def test_leaving_waits_until_the_broker_has_taken_the_goodbye(broker: Mosquitto) -> None:
    async with AsyncExitStack() as stack:
        link = await stack.enter_async_context(Link(settings(broker, "c")))
        await link.wait_connected()
        broker.send(signal.SIGSTOP)
        leaving = asyncio.create_task(stack.aclose())
        done, _ = await asyncio.wait({leaving}, timeout=0.1)
        assert not done
        broker.send(signal.SIGCONT)
        async with asyncio.timeout(TIMEOUT_S):
            await leaving


async def test_publishes_under_way_fail_when_the_connection_is_cut(broker: Mosquitto) -> None:
    async with Proxy(broker.port) as proxy:
        narrow = local(proxy.port, max_inflight=2)
        async with Link(narrow) as link:
            await link.wait_connected()
            proxy.silence()
            publishes = [asyncio.create_task(link.publish("a", b"")) for _ in range(5)]
            codes: list[int | None] = []
            link.publish_nowait("a", b"", on_ack=codes.append)
            await asyncio.sleep(0)  # all five are sent or queued
            proxy.cut()
            async with asyncio.timeout(TIMEOUT_S):
                results = await asyncio.gather(*publishes, return_exceptions=True)
            assert [type(result) for result in results] == [LinkDown] * 5
            assert codes == [None]


async def test_a_half_open_connection_is_noticed_and_replaced(broker: Mosquitto) -> None:
    async with Proxy(broker.port) as proxy:
        half_open = local(proxy.port, keepalive_s=1, connect_timeout_s=1)
        async with Link(half_open) as link:
            await link.wait_connected()
            proxy.silence()
            publish = asyncio.create_task(link.publish("a", b""))
            async with asyncio.timeout(15):  # the keepalive that it has by default would take longer
                await link.wait_disconnected()
            with pytest.raises(LinkDown):
                await publish
            await until(lambda: "did not answer CONNECT" in link.last_error)
            proxy.resume()
            async with asyncio.timeout(TIMEOUT_S):
                await link.wait_connected(after=1)


async def test_the_queue_behind_the_window_is_bounded(broker: Mosquitto) -> None:
    async with Proxy(broker.port) as proxy:
        narrow = local(proxy.port, max_inflight=2, max_queued=3)
        async with Link(narrow) as link:
            await link.wait_connected()
            proxy.silence()
            acks: list[int | None] = []
            for _ in range(5):
                link.publish_nowait("a", b"", on_ack=acks.append)
            with pytest.raises(LinkBusy):
                link.publish_nowait("a", b"", on_ack=acks.append)
            patient = asyncio.create_task(link.publish("a", b"patient"))
            await asyncio.sleep(0)
            assert not patient.done()
            proxy.resume()
            async with asyncio.timeout(TIMEOUT_S):
                assert await patient == 0x10
            assert acks == [0x10] * 5


async def test_the_queue_behind_the_window_is_bounded_in_bytes(broker: Mosquitto) -> None:
    async with Proxy(broker.port) as proxy:
        narrow = local(proxy.port, max_inflight=1, max_queued_bytes=1000)
        async with Link(narrow) as link:
            await link.wait_connected()
            proxy.silence()
            link.publish_nowait("a", b"x" * 600)
            link.publish_nowait("a", b"x" * 600)
            link.publish_nowait("a", b"x" * 600)
            with pytest.raises(LinkBusy):
                link.publish_nowait("a", b"")


async def test_the_window_is_at_most_what_the_broker_allows() -> None:
    packets = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal packets
        await reader.read(1000)
        writer.write(b"\x20\x06\x00\x00\x03\x21\x00\x03")  # CONNACK with a receive maximum of 3
        while header := await reader.read(2):
            await reader.readexactly(header[1])
            packets += 1
            if packets >= 3:
                writer.write(b"\x40\x02\x00" + bytes([packets - 2]))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, Link(local(server.sockets[0].getsockname()[1], max_inflight=50)) as link:
        await link.wait_connected()
        acks: list[int | None] = []
        for _ in range(10):
            link.publish_nowait("a", b"", on_ack=acks.append)
            assert link._session is not None
            assert len(link._session._inflight) <= 3
        await until(lambda: packets == 10)
        await until(lambda: acks == [0] * 8)


async def test_shared_subscriptions_split_the_messages(broker: Mosquitto) -> None:
    one, two = Inbox(), Inbox()
    async with (
        Link(settings(broker, "one"), subscriptions={"$share/g/a/+": one}) as first,
        Link(settings(broker, "two"), subscriptions={"$share/g/a/+": two}) as second,
        Link(settings(broker, "tx")) as tx,
    ):
        for link in (first, second, tx):
            await link.wait_connected()
        for n in range(10):
            await tx.publish(f"a/{n}", b"")
        await until(lambda: one.queue.qsize() + two.queue.qsize() == 10)
        assert one.queue.qsize() == two.queue.qsize() == 5


async def test_subscriptions_come_and_go_while_connected(broker: Mosquitto) -> None:
    early, late = Inbox(), Inbox()
    async with Link(settings(broker, "c"), subscriptions={"early": early}) as link:
        await link.wait_connected()
        assert await link.publish("late", b"") == 0x10
        await link.subscribe("late", late)
        assert await link.publish("late", b"1") == 0
        assert (await late.next()).payload == b"1"
        await link.unsubscribe("late")
        assert await link.publish("late", b"2") == 0x10
        await link.publish("early", b"3")
        assert (await early.next()).payload == b"3"
        await link.subscribe("early", late)
        await link.publish("early", b"4")
        assert (await late.next()).payload == b"4"
        assert early.queue.empty()


async def test_a_subscription_made_while_down_is_made_at_the_next_connection(broker: Mosquitto) -> None:
    inbox = Inbox()
    broker.kill()
    async with Link(settings(broker, "c")) as link:
        await link.subscribe("a", inbox)
        broker.start()
        async with asyncio.timeout(TIMEOUT_S):
            await link.wait_connected()
        await link.publish("a", b"1")
        assert (await inbox.next()).payload == b"1"


async def test_a_refused_subscription_is_an_error_and_not_kept(broker: Mosquitto) -> None:
    async with Link(settings(broker, "c")) as link:
        await link.wait_connected()
        with pytest.raises(SubscribeRefused):
            await link.subscribe("$share/g+/a", Inbox())
        assert link.connected
        link.abort()
        async with asyncio.timeout(TIMEOUT_S):
            await link.wait_connected(after=1)


async def test_leaving_ends_waiting_publishes_and_handlers(broker: Mosquitto) -> None:
    running, stopped = asyncio.Event(), asyncio.Event()

    async def for_ever(_: Message) -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with Proxy(broker.port) as proxy:
        async with Link(local(proxy.port), subscriptions={"a": for_ever}) as link:
            await link.wait_connected()
            await link.publish("a", b"1")
            await link.publish("a", b"2")
            async with asyncio.timeout(TIMEOUT_S):
                await running.wait()
            proxy.silence()
            publish = asyncio.create_task(link.publish("b", b""))
            waiter = asyncio.create_task(link.wait_connected(after=99))
            await asyncio.sleep(0)  # it is sent
        with pytest.raises(LinkDown):
            await publish
        with pytest.raises(LinkDown):
            await waiter
        assert stopped.is_set()


async def test_a_handler_that_hangs_over_many_connections_holds_bounded_memory(broker: Mosquitto) -> None:
    seen = 0

    def hang(_: Message) -> Awaitable[None]:
        nonlocal seen
        seen += 1
        return asyncio.Event().wait()  # type: ignore[return-value] # any awaitable will do

    async with Link(settings(broker, "c", receive_max=1), subscriptions={"a": hang}) as link:
        await link.wait_connected()
        await link.publish("a", b"kept", retain=True)
        for connection in range(1, 6):
            await until(lambda: seen == connection)  # noqa: B023 - awaited within the iteration
            link.abort()
            async with asyncio.timeout(TIMEOUT_S):
                await link.wait_connected(after=connection)
        await until(lambda: link.overflowed == 4)


async def test_leaving_while_connecting_is_quick(broker: Mosquitto) -> None:
    async with Proxy(broker.port) as proxy:
        proxy.silence()
        async with asyncio.timeout(TIMEOUT_S):
            async with Link(local(proxy.port, connect_timeout_s=3600.0)):
                await until(lambda: proxy.accepted == 1)


async def test_a_broker_that_is_slow_in_tls_gets_more_time_at_each_try() -> None:
    lasted: list[float] = []
    third = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun = asyncio.get_running_loop().time()
        while await reader.read(4096):
            pass
        lasted.append(asyncio.get_running_loop().time() - begun)
        writer.close()
        if len(lasted) == 3:
            third.set()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        url = f"mqtts://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with asyncio.timeout(TIMEOUT_S), Link(LinkSettings.from_url(url, client_id="c", connect_timeout_s=0.1)):
            await third.wait()
    assert lasted[2] >= 0.19  # 0.2 but for the time that the connection takes


async def test_a_peer_that_hangs_in_tls_blocks_nobody(broker: Mosquitto) -> None:
    others = set(threading.enumerate())  # tests before this one may have left a connecting thread to its time-out
    async with Proxy(broker.port) as proxy:
        proxy.silence()
        url = f"mqtts://127.0.0.1:{proxy.port}"
        async with asyncio.timeout(TIMEOUT_S), Link(LinkSettings.from_url(url, client_id="c", connect_timeout_s=3600)):
            await until(lambda: proxy.accepted == 1)
        await until(lambda: "link-connect" not in {one.name for one in set(threading.enumerate()) - others})


async def test_a_message_goes_to_the_first_filter_that_matches(broker: Mosquitto) -> None:
    narrow, wide = Inbox(), Inbox()
    async with Link(settings(broker, "c"), subscriptions={"a/b": narrow, "a/#": wide}) as link:
        await link.wait_connected()
        await link.publish("a/b", b"1")
        await link.publish("a/c", b"2")
        assert (await narrow.next()).payload == b"1"
        assert (await wide.next()).payload == b"2"
        assert wide.queue.empty()


async def test_a_large_message_arrives_whole(broker: Mosquitto) -> None:
    inbox = Inbox()
    payload = bytes(range(256)) * 40_000
    async with Link(settings(broker, "c"), subscriptions={"a": inbox}) as link:
        await link.wait_connected()
        await link.publish("a", payload)
        assert (await inbox.next()).payload == payload


CONNACK = b"\x20\x03\x00\x00\x00"


@asynccontextmanager
async def peer(*answers: bytes) -> AsyncIterator[int]:
    """A peer that writes one answer for each chunk that it reads; gives its port."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        for answer in answers:
            await reader.read(1000)
            writer.write(answer)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()


async def test_garbage_from_a_peer_ends_the_connection_and_nothing_else() -> None:
    garbage = b"\x32\x04\xff\xff\x00\x00"  # a PUBLISH whose topic is longer than its packet
    async with peer(CONNACK + garbage) as port, Link(local(port)) as link:
        await until(lambda: link.connections == 2)


async def test_a_topic_that_is_not_text_is_a_dead_letter() -> None:
    async with peer(CONNACK + b"\x32\x06\x00\x01\xff\x00\x01\x00") as port, Link(local(port)) as link:
        await until(lambda: link.dead_letters == 1)
        assert link.connections == 1


async def test_a_refused_connection_is_tried_again_and_says_why() -> None:
    async with peer(b"\x20\x03\x00\x87\x00") as port, Link(local(port)) as link:
        await until(lambda: link.connections == 2)
        assert "Not authorized" in link.last_error
        assert not link.connected


async def test_a_suback_with_a_failure_is_no_connection() -> None:
    async with peer(CONNACK, b"\x90\x04\x00\x01\x00\x87") as port:
        inbox = Inbox()
        async with Link(local(port), subscriptions={"a": inbox}) as link:
            await until(lambda: link.connections == 2)
            assert "a" in link.last_error
            assert "Not authorized" in link.last_error


def test_settings_come_from_a_url() -> None:
    plain = LinkSettings.from_url("mqtt://broker", client_id="c", keepalive_s=5)
    assert (plain.host, plain.port, plain.tls, plain.keepalive_s) == ("broker", 1883, None, 5)
    secure = LinkSettings.from_url("mqtts://ann:p%40ss@[::1]:99", client_id="c")
    assert (secure.host, secure.port, secure.username, secure.password) == ("::1", 99, "ann", "p@ss")
    assert secure.tls == TlsFiles()
    assert "p@ss" not in repr(secure)


@pytest.mark.parametrize(
    "url", ["broker:1883", "http://broker", "mqtt://", "mqtt://broker:99999", "mqtt://broker/path", ""]
)
def test_a_bad_url_is_the_users_to_mend(url: str) -> None:
    with pytest.raises(UserError, match=r"mqtt://|65535"):
        LinkSettings.from_url(url, client_id="c")


def test_tls_files_need_a_tls_url() -> None:
    with pytest.raises(UserError, match="mqtts"):
        LinkSettings.from_url("mqtt://broker", client_id="c", tls=TlsFiles())
