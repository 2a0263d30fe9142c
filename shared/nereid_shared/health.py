# SPDX-License-Identifier: Apache-2.0
"""A kubelet's probes over HTTP: ``/livez`` answers while the event loop turns, ``/readyz`` says what the process says.

Nothing else is served, and nothing of a request is read but its path.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Final

from nereid_shared.errors import UserError

logger = logging.getLogger(__name__)

REQUEST_TIMEOUT_S: Final = 5.0
RETRY_S: Final = 5.0


class Health:
    """Whether this process can do its work, and if not, why; the process itself keeps it up to date."""

    def __init__(self) -> None:
        self.problem = "starting"

    def ready(self) -> None:
        """Say that the process does its work."""
        self.problem = ""

    def not_ready(self, problem: str) -> None:
        """Say why it cannot."""
        self.problem = problem


def address_of(text: str) -> tuple[str, int]:
    """Return host and port of ``host:port``; an empty host means every address.

    Raises:
        UserError: it is none.
    """
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise UserError("not an address", where=text, mend="Write host:port, such as 127.0.0.1:9470")
    return host.strip("[]"), int(port)


@contextlib.asynccontextmanager
async def serving(address: tuple[str, int] | None, problem: Callable[[], str]) -> AsyncIterator[int]:
    """Answer probes while the body runs; yields the port, 0 where `address` is None and nothing is served.

    Args:
        address: where to listen; port 0 takes a free one.
        problem: returns why the process is not ready, "" where it is.

    Raises:
        UserError: the address cannot be listened on.
    """
    if address is None:
        yield 0
        return
    host, port = address
    try:
        server = await asyncio.start_server(partial(_answer, problem), host or None, port)
    except OSError as error:
        raise UserError(f"cannot listen: {error.strerror}", where=f"{host}:{port}", mend="Take a free port") from error
    async with server:
        yield server.sockets[0].getsockname()[1]


@contextlib.asynccontextmanager
async def answering(address: tuple[str, int] | None, problem: Callable[[], str]) -> AsyncIterator[None]:
    """Answer probes while the body runs, from when the address is free: what is probed does not wait for it.

    Args:
        address: as `serving` takes it.
        problem: likewise.
    """
    task = asyncio.create_task(_serve(address, problem), name="probes")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _serve(address: tuple[str, int] | None, problem: Callable[[], str]) -> None:
    told = False
    while True:
        try:
            async with serving(address, problem):
                await asyncio.Event().wait()
        except UserError as error:
            if not told:
                logger.warning("probes are not answered yet", extra={"problem": str(error)})
            told = True
            await asyncio.sleep(RETRY_S)


async def _answer(problem: Callable[[], str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            line = await reader.readline()
        status, body = _said(line.split(b" ")[1:2], problem)
        head = f"HTTP/1.0 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
    except (TimeoutError, OSError, ValueError) as error:
        logger.debug("probe not answered", extra={"problem": str(error)})
    finally:
        writer.close()


def _said(path: list[bytes], problem: Callable[[], str]) -> tuple[str, bytes]:
    if path == [b"/livez"]:
        return "200 OK", b"ok\n"
    if path == [b"/readyz"]:
        why = problem()
        return ("503 Service Unavailable", f"{why}\n".encode()) if why else ("200 OK", b"ok\n")
    return "404 Not Found", b"/livez or /readyz\n"
