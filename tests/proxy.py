# SPDX-License-Identifier: Apache-2.0
"""A loopback TCP proxy that stands for the network: it can go silent, cut, and count."""

import asyncio
import socket
from types import TracebackType
from typing import Self


class Proxy:
    """Forwards connections to a port of 127.0.0.1; use it as an async context manager.

    Attributes:
        port: where clients connect.
        accepted: connections taken so far.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting: set[asyncio.Task[None]] = set()
        self.port = 0
        self.accepted = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        await asyncio.gather(*self._accepting)  # what is accepted is no pair yet: `cut` would miss it
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def silence(self) -> None:
        """Keep all connections open and forward nothing any more: a half-open link."""
        self._flows.clear()

    def resume(self) -> None:
        """Forward again, what was held back first."""
        self._flows.set()

    def cut(self) -> None:
        """Reset all connections, both ways."""
        for pair in self._pairs:
            for writer in pair:
                sock = writer.get_extra_info("socket")
                # Lingering for no time makes the close a reset, as when a machine vanishes and comes back.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
                writer.transport.abort()
        self._pairs.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        me = asyncio.current_task()
        assert me is not None
        self._accepting.add(me)
        me.add_done_callback(self._accepting.discard)
        self.accepted += 1
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        for end in (writer, far_writer):
            end.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pair = (writer, far_writer)
        self._pairs.add(pair)
        for source, target in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(self._forward(source, target, pair))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forward(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
    ) -> None:
        try:
            while data := await source.read(65_536):
                await self._flows.wait()
                target.write(data)
                await target.drain()
        except OSError:
            pass
        finally:
            self._pairs.discard(pair)
            for writer in pair:
                writer.close()
