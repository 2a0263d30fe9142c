# SPDX-License-Identifier: Apache-2.0
"""The cloud links of simulated nodes: one loopback TCP proxy per node that can be cut, slowed and healed.

A laptop never shows otherwise what an edge is. A cut link does what a pulled cable does: nothing comes through and
nobody is told; connections that outlive the cut go on. Control is a Unix socket in the state folder, one JSON object
a line.
"""

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from nereid_shared.errors import UserError

logger = logging.getLogger(__name__)

CHUNK_BYTES: Final = 64 * 1024
MIN_CHUNK_BYTES: Final = 512
PACE_S: Final = 0.05
"""A slow link takes no more than this much of its time at once, so that small messages need not wait for large ones."""

CHUNKS_ON_THE_WAY: Final = 1024
"""Beyond this the sender has to wait: at most 64 MiB each way, or about 50 s of a link that is busy all the time."""

MAX_COMMAND_BYTES: Final = 4096
CONTROL_TIMEOUT_S: Final = 5.0
SLOW_DELAY_S: Final = 0.2
SLOW_BYTES_PER_S: Final = 32_000.0

Mode = Literal["up", "cut", "slow"]


@dataclass(slots=True, kw_only=True)
class Quality:
    """How a link is at the moment.

    Attributes:
        delay_s: how long each byte is on its way, each way, in mode ``slow``; many are on their way at once.
        bytes_per_s: how fast bytes are taken in, each way and connection, in mode ``slow``.
    """

    mode: Mode = "up"
    delay_s: float = SLOW_DELAY_S
    bytes_per_s: float = SLOW_BYTES_PER_S


@dataclass(slots=True, kw_only=True)
class Traffic:
    """Bytes that came through, seen from the node."""

    up: int = 0
    down: int = 0


@dataclass(slots=True, kw_only=True)
class CuttableLink:
    """One node's way to the cloud broker."""

    node: str
    port: int
    target: tuple[str, int]
    quality: Quality = field(default_factory=Quality)
    traffic: Traffic = field(default_factory=Traffic)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _carriers: set[asyncio.Task[None]] = field(default_factory=set)

    def set(self, mode: Mode, *, delay_s: float = SLOW_DELAY_S, bytes_per_s: float = SLOW_BYTES_PER_S) -> None:
        """Change the link's quality, for the connections that are open too."""
        self.quality = Quality(mode=mode, delay_s=delay_s, bytes_per_s=bytes_per_s)
        self._changed.set()
        self._changed = asyncio.Event()
        logger.info("link changed", extra={"node": self.node, "mode": mode})

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Listen on the node's port; leaving closes what is open."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, limit=CHUNK_BYTES)
        try:
            yield
        finally:
            server.close()
            for carrier in self._carriers:
                carrier.cancel()
            await asyncio.gather(*self._carriers, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        carrier = asyncio.create_task(self._carry(reader, writer), name=f"link of {self.node}")
        self._carriers.add(carrier)
        carrier.add_done_callback(self._carriers.discard)

    async def _open(self) -> None:
        while self.quality.mode == "cut":
            await self._changed.wait()

    async def _slow_until(self, due: float) -> None:
        """Wait for a moment of the loop's clock, but no longer than the link is slow."""
        now = asyncio.get_running_loop().time
        while self.quality.mode == "slow" and now() < due:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._changed.wait()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _no_delay(writer)
        async with _closing(writer):
            await self._open()
            try:
                far_reader, far_writer = await asyncio.open_connection(*self.target, limit=CHUNK_BYTES)
            except OSError as error:
                logger.info("the far end is away", extra={"node": self.node, "problem": str(error)})
                return
            _no_delay(far_writer)
            async with _closing(far_writer):
                ways = [
                    asyncio.create_task(self._copy(reader, far_writer, up=True), name=f"{self.node} up"),
                    asyncio.create_task(self._copy(far_reader, writer, up=False), name=f"{self.node} down"),
                ]
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    await asyncio.gather(*ways, return_exceptions=True)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        way = _Way(writer=writer, is_up=up)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._take_in(reader, way), name=f"{self.node} takes in")
            group.create_task(self._let_out(way), name=f"{self.node} lets out")

    async def _take_in(self, reader: asyncio.StreamReader, way: "_Way") -> None:
        now = asyncio.get_running_loop().time
        taken_in = 0.0
        while True:
            quality = self.quality
            is_slow = quality.mode == "slow"
            pace = max(MIN_CHUNK_BYTES, int(quality.bytes_per_s * PACE_S))
            data = await reader.read(min(CHUNK_BYTES, pace) if is_slow else CHUNK_BYTES)
            if not data:
                break
            quality = self.quality
            if quality.mode == "slow":
                taken_in = max(now(), taken_in) + len(data) / quality.bytes_per_s
                await way.put(data, taken_in + quality.delay_s)
                await self._slow_until(taken_in)
            elif quality.mode == "up" and way.is_empty:
                await self._deliver(data, way)
            else:
                await way.put(data, now())
        await way.put(b"", 0.0)

    async def _let_out(self, way: "_Way") -> None:
        while True:
            data, due = await way.chunks.get()
            if not data:
                return
            await self._slow_until(due)
            # Also after the wait: a cable that was pulled meanwhile carries nothing.
            await self._open()
            await self._deliver(data, way)
            way.waiting -= 1

    async def _deliver(self, data: bytes, way: "_Way") -> None:
        if way.is_up:
            self.traffic.up += len(data)
        else:
            self.traffic.down += len(data)
        way.writer.write(data)
        await way.writer.drain()


@dataclass(slots=True, kw_only=True)
class _Way:
    """One direction of a connection, and what is on its way there.

    Attributes:
        chunks: each with the moment of the loop's clock at which it is due; an empty one is the end.
        waiting: how many of them have not been delivered.
    """

    writer: asyncio.StreamWriter
    is_up: bool
    chunks: asyncio.Queue[tuple[bytes, float]] = field(default_factory=lambda: asyncio.Queue(CHUNKS_ON_THE_WAY))
    waiting: int = 0

    @property
    def is_empty(self) -> bool:
        return self.waiting == 0

    async def put(self, data: bytes, due: float) -> None:
        self.waiting += 1
        await self.chunks.put((data, due))


@contextlib.asynccontextmanager
async def _closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    try:
        yield
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _no_delay(writer: asyncio.StreamWriter) -> None:
    # Nagle on one leg costs 44-88 ms a QoS 1 exchange, which would be blamed on the brokers.
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


async def run(links: Mapping[str, CuttableLink], control: Path) -> None:
    """Serve all links and their control socket until cancelled."""
    async with contextlib.AsyncExitStack() as stack:
        for link in links.values():
            await stack.enter_async_context(link.serving())
        control.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(
            lambda reader, writer: _answer(links, reader, writer), control, limit=MAX_COMMAND_BYTES
        )
        control.chmod(0o600)
        async with server:
            await server.serve_forever()


async def _answer(
    links: Mapping[str, CuttableLink], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    async with _closing(writer):
        try:
            command = json.loads(await reader.readline())
            reply = _obey(links, command)
        except (ValueError, KeyError, TypeError) as error:
            reply = {"error": f"not a command: {error}"}
        writer.write(json.dumps(reply).encode() + b"\n")
        with contextlib.suppress(OSError):
            await writer.drain()


def _obey(links: Mapping[str, CuttableLink], command: dict[str, Any]) -> dict[str, Any]:
    if command["do"] != "list":
        link = links.get(command["node"])
        if link is None:
            return {"error": f"there is no node {command['node']!r}", "nodes": sorted(links)}
        quality = Quality(**command["quality"])
        link.set(quality.mode, delay_s=float(quality.delay_s), bytes_per_s=float(quality.bytes_per_s))
    return {
        "links": [
            {"node": link.node, **asdict(link.quality), "up": link.traffic.up, "down": link.traffic.down}
            for link in links.values()
        ]
    }


def ask(control: Path, command: dict[str, Any]) -> list[dict[str, Any]]:
    """Send one command to a running system; returns the links as they are then.

    Raises:
        UserError: no system runs on that state folder, or it knows no such node.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(CONTROL_TIMEOUT_S)
            client.connect(str(control))
            client.sendall(json.dumps(command).encode() + b"\n")
            with client.makefile("rb") as lines:
                reply = json.loads(lines.readline())
    except (OSError, ValueError) as error:
        raise UserError("no system answers there", where=str(control.parent), mend="Start one: nereid up") from error
    if "error" in reply:
        known = f"The nodes are: {', '.join(reply['nodes'])}" if "nodes" in reply else ""
        raise UserError(reply["error"], where="NODE", mend=known)
    found = reply["links"]
    assert isinstance(found, list)  # noqa: S101 - our own server's shape
    return found
