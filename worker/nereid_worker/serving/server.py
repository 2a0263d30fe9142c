# SPDX-License-Identifier: Apache-2.0
"""The HTTP server: sockets, bounds, readiness and drain; what is said in a body is the protocols' part.

It listens only once a version serves. Draining, it says so at the readiness routes and ends each connection with its
next answer; it goes on listening for a little, since those who send requests here hear of it late, and finishes what
is under way within a bounded time.
"""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address
from typing import Final, Protocol

from aiohttp import web

from nereid_shared.errors import BadSample, RequestRefused
from nereid_shared.samples import UNDECODABLE
from nereid_worker.serving.bodies import Bodies, Held
from nereid_worker.serving.metrics import CONTENT_TYPE, Metrics
from nereid_worker.serving.versions import Loaded, Versions

logger = logging.getLogger(__name__)

MAX_JSON_BYTES: Final = 16 * 1024 * 1024
"""JSON's figures take about eight times their text in memory while they are read."""
LAME_DUCK_S: Final = 2.0
"""How long a draining server still takes new connections: an endpoint list, or a client's own, is that late."""
SETTLE_S: Final = 1.0
"""After that: how long connections that are there have for one more request, with whose answer they end."""
DRAIN_S: Final = 15.0
BACKLOG: Final = 512


def lame_duck_at(host: str) -> float:
    """Return how long a draining server still takes new connections.

    None of this machine's own: no list of endpoints names a loopback address. Replicas there share a port, and whom the
    kernel gave a draining one would hear from it that another is not ready.
    """
    try:
        return 0.0 if ip_address(host).is_loopback else LAME_DUCK_S
    except ValueError:
        return 0.0 if host == "localhost" else LAME_DUCK_S


class Answer:
    """What a handler answers; `loaded` for the metrics, where it asked for an inference."""

    __slots__ = ("body", "content_type", "headers", "loaded", "status")

    def __init__(
        self, body: bytes, *, status: int = 200, loaded: Loaded | None = None, headers: dict[str, str] | None = None,
        content_type: str = "application/json",
    ) -> None:  # fmt: skip
        self.body, self.status, self.loaded, self.headers = body, status, loaded, headers
        self.content_type = content_type


Handler = Callable[[web.Request, bytearray], Awaitable[Answer]]


class Frontend(Protocol):
    """One protocol: its routes, and how it says that a request failed.

    Attributes:
        name: for the metrics.
    """

    name: str

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Return method, path and handler, those that are asked for most first."""

    def refusal(self, error: RequestRefused) -> bytes:
        """Return the body that says why a request failed."""


class Server:
    """One process's server.

    Args:
        versions: what answers.
        metrics: what counts.
        lame_duck_s: how long it goes on listening when it drains.

    Attributes:
        draining: it ends; it is not ready any more.
        in_flight: requests under way.
        port: where it listens; 0 before `listen`.
    """

    def __init__(self, versions: Versions, metrics: Metrics, *, lame_duck_s: float = LAME_DUCK_S) -> None:
        self._versions, self._metrics, self._lame_duck_s = versions, metrics, lame_duck_s
        self.draining = False
        self.in_flight = self.port = 0
        self._bodies = Bodies()
        self._app = web.Application()
        self._runner: web.AppRunner | None = None
        self._listener: socket.socket | None = None

    @property
    def ready(self) -> bool:
        """Whether a request without a version would be answered, now and shortly after."""
        return not self.draining and self._versions.default is not None

    def add(self, *frontends: Frontend) -> None:
        """Take protocols; before `listen`. What no route of any wants is said to be malformed by the last."""
        for frontend in frontends:
            for method, path, handler in frontend.routes():
                self._app.router.add_route(method, path, self._guarded(frontend, handler))
        self._app.router.add_route("GET", "/metrics", self._say_metrics)
        self._app.router.add_route("*", "/{tail:.*}", self._guarded(frontends[-1], _malformed))

    async def listen(self, *, host: str, port: int) -> None:
        """Begin to listen, beside other processes that do so at the same port.

        Args:
            host: an address, or "" for all.
            port: 0 for a free one.

        Raises:
            OSError: the port is taken by a process that does not share it, or the address is not here.
        """
        both = not host and socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both or ":" in host else socket.AF_INET
        listener = socket.create_server(
            (host, port), family=family, backlog=BACKLOG, reuse_port=True, dualstack_ipv6=both
        )
        try:
            self._runner = web.AppRunner(
                self._app, access_log=None, handle_signals=False, handler_cancellation=True, keepalive_timeout=75.0,
                shutdown_timeout=DRAIN_S,
            )  # fmt: skip
            await self._runner.setup()
            await web.SockSite(self._runner, listener, backlog=BACKLOG).start()
        except BaseException:
            listener.close()
            raise
        self._listener, self.port = listener, listener.getsockname()[1]
        logger.info("listening", extra={"host": host, "port": self.port})

    async def drain(self) -> None:
        """Finish what is under way, and stop; takes at most `lame_duck_s` + `SETTLE_S` + `DRAIN_S`."""
        self.draining = True
        runner, self._runner = self._runner, None
        if runner is None:
            return
        logger.info("draining", extra={"in_flight": self.in_flight})
        await asyncio.sleep(self._lame_duck_s)
        await self._close_listener(runner)
        await asyncio.sleep(SETTLE_S)
        await runner.cleanup()

    async def _close_listener(self, runner: web.AppRunner) -> None:
        """Listen no longer, and serve all that have connected until then."""
        loop, server, listener = asyncio.get_running_loop(), runner.server, self._listener
        last: list[socket.socket] = []
        if listener is not None:
            # Its server drops what it has accepted and not begun with when it is closed: that needs one turn more.
            loop.remove_reader(listener)
            await asyncio.sleep(0)
            # From here to the closing no turn of the loop: what connects meanwhile is reset.
            last = _accepted(listener)
        for site in list(runner.sites):
            await site.stop()
        if server is not None:
            for connection in last:
                await loop.connect_accepted_socket(server, connection)

    def _guarded(self, frontend: Frontend, handler: Handler) -> Callable[[web.Request], Awaitable[web.Response]]:
        """Return the handler with all that can go wrong as the protocol says it, counted."""

        async def handle(request: web.Request) -> web.Response:
            began = time.perf_counter()
            self.in_flight += 1
            held = Held()
            try:
                body = await self._bodies.read(request, held) if request.can_read_body else bytearray()
                answer = await handler(request, body)
            except (RequestRefused, BadSample) as error:
                answer = Answer(frontend.refusal(_refused(error)), status=_refused(error).status)
            except Exception:  # one request must not end the others' connections without a word
                logger.exception("a request failed", extra={"path": request.path})
                refused = RequestRefused("internal error; the server's log has more", status=500)
                answer = Answer(frontend.refusal(refused), status=500)
            finally:
                self.in_flight -= 1
                self._bodies.release(held)
            loaded = answer.loaded
            self._metrics.request(
                model=loaded.name if loaded else "", version=loaded.version if loaded else "",
                protocol=frontend.name, code=answer.status,
                spent_s=time.perf_counter() - began if loaded else None,
            )  # fmt: skip
            return self._response(answer)

        return handle

    async def _say_metrics(self, _request: web.Request) -> web.Response:
        return self._response(Answer(self._metrics.text(), content_type=CONTENT_TYPE))

    def _response(self, answer: Answer) -> web.Response:
        headers = {"Content-Type": answer.content_type}
        if answer.headers:
            headers |= answer.headers
        if answer.status == 503:
            headers["Retry-After"] = "1"
        response = web.Response(body=answer.body, status=answer.status, headers=headers)
        if self.draining:
            response.force_close()
        return response


def _accepted(listener: socket.socket) -> list[socket.socket]:
    """Return the connections that wait to be accepted."""
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            connection, _ = listener.accept()
            connection.setblocking(False)
            found.append(connection)
    return found


def _refused(error: RequestRefused | BadSample) -> RequestRefused:
    if isinstance(error, RequestRefused):
        return error
    return RequestRefused(str(error), status=400 if error.reason == UNDECODABLE else 500)


async def _malformed(request: web.Request, _body: bytearray) -> Answer:
    raise RequestRefused(f"Malformed request: {request.method} {request.path}", status=404)
