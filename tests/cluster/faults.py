# SPDX-License-Identifier: Apache-2.0
"""A proxy in front of a real API server that fails as API servers, load balancers and networks do."""

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import urllib3
from kubernetes import config
from kubernetes.client import Configuration
from kubernetes.client.rest import RESTClientObject

_FORWARDED: Final = ("Accept", "Content-Type")
_RESET: Final = struct.pack("ii", 1, 0)  # lingering for no time: the peer sees a reset


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a client asked."""

    method: str
    path: str

    @property
    def is_watch(self) -> bool:
        """Whether it is a watch."""
        return "watch=true" in self.path

    @property
    def is_list(self) -> bool:
        """Whether it lists a kind."""
        return self.method == "GET" and not self.is_watch


Matches = Callable[[Request], bool]


@dataclass(slots=True)
class _Refusal:
    matches: Matches
    code: int
    reason: str
    times: int
    retry_after_s: int | None


@dataclass(slots=True)
class _Watch:
    """An open watch: the client's end, the server's end, and whether events still pass."""

    handler: "_Handler"
    upstream: urllib3.BaseHTTPResponse
    flows: bool = True
    writing: threading.Lock = field(default_factory=threading.Lock)

    def send(self, data: bytes) -> None:
        with self.writing:
            if self.flows:
                self.handler.chunk(data)

    def end(self) -> None:
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            self.upstream.shutdown()


class FaultProxy:
    """Forwards to the API server of a kubeconfig, with its credentials; ``with`` bounds it.

    Attributes:
        requests: all that came, refused ones too.
        delay_s: how long each answer takes longer; for each event of a watch likewise.
        every: called with each request's number; a code that it returns is answered instead of forwarding.
    """

    def __init__(self, kubeconfig: Path) -> None:
        self.requests: list[Request] = []
        self.delay_s = 0.0
        self.every: Callable[[int, Request], int] = lambda _number, _request: 0
        configuration = Configuration()
        config.load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)  # type: ignore[no-untyped-call]
        self._configuration = configuration
        self._pool: urllib3.PoolManager = RESTClientObject(configuration).pool_manager
        self._refusals: list[_Refusal] = []
        self._watches: list[_Watch] = []
        self._lock = threading.Lock()
        self.closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.proxy = self  # type: ignore[attr-defined] # read by its handlers
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        for watch in self._open():
            watch.end()
        self._server.server_close()
        self._thread.join()
        self._pool.clear()

    def kubeconfig(self, folder: Path) -> Path:
        """Write a kubeconfig of the proxy."""
        path = folder / "through-the-faults"
        server = f"http://127.0.0.1:{self._server.server_address[1]}"
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "faults", "cluster": {"server": server}}],
                    "users": [{"name": "faults", "user": {}}],
                    "contexts": [{"name": "faults", "context": {"cluster": "faults", "user": "faults"}}],
                    "current-context": "faults",
                }
            )
        )
        return path

    def refuse(
        self, code: int, reason: str, *, when: Matches, times: int = 1, retry_after_s: int | None = None
    ) -> None:
        """Answer the next requests of a sort with a Status of this code."""
        with self._lock:
            self._refusals.append(_Refusal(when, code, reason, times, retry_after_s))

    def refuse_nothing(self) -> None:
        """Forward everything again."""
        with self._lock:
            self._refusals.clear()

    def cut_watches(self) -> int:
        """Reset the connections of all open watches; returns how many there were."""
        watches = self._open()
        for watch in watches:
            sock = watch.handler.connection
            with watch.writing, contextlib.suppress(OSError):
                watch.flows = False
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                # A shutdown would say goodbye; closing the last descriptor with no lingering resets.
                sock.close()
                watch.handler.rfile.close()
                watch.handler.wfile.close()
            watch.end()
        return len(watches)

    def freeze_watches(self) -> int:
        """Let the open watches be silent for ever, their connections open; returns how many there were."""
        watches = self._open()
        for watch in watches:
            with watch.writing:
                watch.flows = False
        return len(watches)

    def expire_watches(self) -> int:
        """End the open watches as an API server ends those that are too old; returns how many there were."""
        watches = self._open()
        status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
        for watch in watches:
            with contextlib.suppress(OSError):
                watch.send(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")
            watch.end()
        return len(watches)

    def watching(self, plural: str) -> bool:
        """Return whether a watch of this kind is open and events pass."""
        return any(watch.flows and f"/{plural}?" in watch.handler.path for watch in self._open())

    def refusal_of(self, request: Request) -> tuple[int, str, int | None] | None:
        """Note a request; return code, reason and patience where it is to be refused."""
        with self._lock:
            self.requests.append(request)
            code = self.every(len(self.requests), request)
            if code:
                return code, "InternalError" if code >= 500 else "TooManyRequests", 0 if code == 429 else None
            for refusal in self._refusals:
                if refusal.times > 0 and refusal.matches(request):
                    refusal.times -= 1
                    return refusal.code, refusal.reason, refusal.retry_after_s
        return None

    def forwarded(self, request: Request, body: bytes, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        """Return the API server's answer, whose body is still to be read."""
        settings: Any = self._configuration.auth_settings()
        for setting in settings.values():
            headers[setting["key"]] = setting["value"]
        return self._pool.request(
            request.method, self._configuration.host + request.path, body=body or None, headers=headers,
            preload_content=False, retries=False, timeout=urllib3.Timeout(connect=5, read=600),
        )  # fmt: skip

    @contextlib.contextmanager
    def registered(self, watch: _Watch) -> Iterator[None]:
        """Hold a watch among the open ones."""
        with self._lock:
            self._watches.append(watch)
        try:
            yield
        finally:
            with self._lock:
                self._watches.remove(watch)

    def _open(self) -> list[_Watch]:
        with self._lock:
            return list(self._watches)


class _Handler(BaseHTTPRequestHandler):
    """One client's connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        self.proxy: FaultProxy = self.server.proxy  # type: ignore[attr-defined]
        super().setup()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass

    def handle(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # a client that is gone, or was cut off
            super().handle()

    def chunk(self, data: bytes) -> None:
        # In two parts, so that no event ends with its chunk.
        for part in filter(None, (data[: len(data) // 2], data[len(data) // 2 :])):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
            self.wfile.flush()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Request(method=self.command, path=self.path)
        refusal = self.proxy.refusal_of(request)
        if self.proxy.delay_s:
            self.proxy.closing.wait(self.proxy.delay_s)
        if refusal is not None:
            self._refuse(*refusal)
            return
        headers = {name: self.headers[name] for name in _FORWARDED if name in self.headers}
        try:
            answer = self.proxy.forwarded(request, body, headers)
            if request.is_watch and answer.status == 200:
                self._stream(answer)
            else:
                self._whole(answer.status, answer.data, answer.headers.get("Retry-After"))
        except urllib3.exceptions.HTTPError:
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815 - the base class's names

    def _refuse(self, code: int, reason: str, retry_after_s: int | None) -> None:
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason}
        status["message"] = f"the fault proxy says {reason}"
        self._whole(code, json.dumps(status).encode(), None if retry_after_s is None else str(retry_after_s))

    def _whole(self, code: int, body: bytes, retry_after: str | None) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if retry_after is not None:
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, upstream: urllib3.BaseHTTPResponse) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        watch = _Watch(self, upstream)
        with self.proxy.registered(watch):
            for data in upstream.stream():
                if self.proxy.delay_s:
                    self.proxy.closing.wait(self.proxy.delay_s)
                watch.send(data)
            if not watch.flows:
                # Half-open: the connection stays until the client leaves it, or the test ends.
                self.proxy.closing.wait()
        self.wfile.write(b"0\r\n\r\n")
