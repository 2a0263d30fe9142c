# SPDX-License-Identifier: Apache-2.0
"""A node's link to the cloud: what is cut carries nothing, what is healed carries everything that was sent."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from tests.mosquitto import free_port

from nereid_cloud.laptop import links
from nereid_cloud.laptop.links import CHUNK_BYTES, CHUNKS_ON_THE_WAY
from nereid_shared.errors import UserError

TIMEOUT_S = 30.0


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    await closed(writer)


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


@asynccontextmanager
async def linked(tmp_path: Path) -> AsyncIterator[tuple[links.CuttableLink, Path]]:
    """An echo server behind the link of a node."""
    far = await asyncio.start_server(_echo, "127.0.0.1", 0)
    port = far.sockets[0].getsockname()[1]
    link = links.CuttableLink(node="edge-0", port=free_port(), target=("127.0.0.1", port))
    control = tmp_path / "links.sock"
    serving = asyncio.create_task(links.run({"edge-0": link}, control))
    while not control.exists():
        await asyncio.sleep(0.005)
    try:
        yield link, control
    finally:
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving
        far.close()


async def test_a_cut_link_carries_nothing_and_a_healed_one_what_was_sent_meanwhile(tmp_path: Path) -> None:
    async with linked(tmp_path) as (link, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        writer.write(b"one")
        assert await reader.readexactly(3) == b"one"
        link.set("cut")
        writer.write(b"two")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await reader.read(1)
        link.set("up")
        async with asyncio.timeout(TIMEOUT_S):
            assert await reader.readexactly(3) == b"two"
        assert (link.traffic.up, link.traffic.down) == (6, 6)
        await closed(writer)


async def test_a_connection_made_during_a_cut_waits_for_the_healing(tmp_path: Path) -> None:
    async with linked(tmp_path) as (link, _):
        link.set("cut")
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        writer.write(b"early")
        link.set("up")
        async with asyncio.timeout(TIMEOUT_S):
            assert await reader.readexactly(5) == b"early"
        await closed(writer)


async def test_a_slow_link_adds_its_delay_each_way(tmp_path: Path) -> None:
    async with linked(tmp_path) as (link, _):
        link.set("slow", delay_s=0.1, bytes_per_s=1e9)
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        began = time.monotonic()
        writer.write(b"x")
        await reader.readexactly(1)
        assert time.monotonic() - began >= 0.2
        await closed(writer)


async def test_a_slow_link_is_no_faster_than_its_rate(tmp_path: Path) -> None:
    async with linked(tmp_path) as (link, _):
        link.set("slow", delay_s=0.0, bytes_per_s=400_000)
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        began = time.monotonic()
        writer.write(bytes(200_000))
        await reader.readexactly(200_000)
        assert time.monotonic() - began >= 0.5
        await closed(writer)


async def test_a_long_delay_does_not_limit_the_rate(tmp_path: Path) -> None:
    async with linked(tmp_path) as (link, _):
        link.set("slow", delay_s=3600, bytes_per_s=1e9)
        _, writer = await asyncio.open_connection("127.0.0.1", link.port)
        # More than the system buffers: when it has left its sender, the link has most of it on the way.
        writer.write(bytes(CHUNKS_ON_THE_WAY // 2 * CHUNK_BYTES))
        async with asyncio.timeout(TIMEOUT_S):
            while writer.transport.get_write_buffer_size():
                await asyncio.sleep(0.005)
        assert link.traffic.up == 0
        writer.transport.abort()


async def test_healing_wakes_what_a_slow_link_holds(tmp_path: Path) -> None:
    async with linked(tmp_path) as (link, _):
        link.set("slow", delay_s=3600, bytes_per_s=1000)
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        writer.write(bytes(100_000))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await reader.read(1)
        link.set("up")
        async with asyncio.timeout(TIMEOUT_S):
            assert await reader.readexactly(100_000) == bytes(100_000)
        await closed(writer)


async def test_what_a_slow_link_holds_goes_before_what_follows_the_healing(tmp_path: Path) -> None:
    async with linked(tmp_path) as (link, _):
        sent = bytes(range(256)) * 200
        link.set("slow", delay_s=0.2, bytes_per_s=200_000)
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        writer.write(sent[:40_000])
        first = await reader.readexactly(10_000)
        link.set("up")
        writer.write(sent[40_000:])
        async with asyncio.timeout(TIMEOUT_S):
            assert first + await reader.readexactly(len(sent) - len(first)) == sent
        await closed(writer)


async def test_the_control_socket_sets_and_lists(tmp_path: Path) -> None:
    async with linked(tmp_path) as (link, control):
        command = {"do": "set", "node": "edge-0", "quality": {"mode": "cut"}}
        (found,) = await asyncio.to_thread(links.ask, control, command)
        assert (found["mode"], link.quality.mode) == ("cut", "cut")
        (found,) = await asyncio.to_thread(links.ask, control, {"do": "list"})
        assert found["node"] == "edge-0"


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ({"do": "set", "node": "edge-7", "quality": {"mode": "cut"}}, "no node 'edge-7'.*edge-0"),
        ({"node": "edge-0"}, "not a command"),
        ({"do": "set", "node": "edge-0", "quality": {"speed": 1}}, "not a command"),
    ],
)
async def test_a_wrong_command_is_refused_with_a_word(tmp_path: Path, command: dict[str, object], problem: str) -> None:
    async with linked(tmp_path) as (_, control):
        with pytest.raises(UserError, match=problem):
            await asyncio.to_thread(links.ask, control, command)


def test_without_a_system_the_mend_is_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nereid up"):
        links.ask(tmp_path / "links.sock", {"do": "list"})
