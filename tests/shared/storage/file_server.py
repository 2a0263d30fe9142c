# SPDX-License-Identifier: Apache-2.0
"""A real HTTP server of files that cuts, stalls, lies and goes away when it is told to."""

import contextlib
import hashlib
import http.server
import ssl
import threading
from collections.abc import Iterator
from urllib.parse import unquote

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MAX_BYTES = 10_000_000
PATH = "/models/little.tflite"


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` under every path, or `files` where there are any, with ranges, and with the faults that are set.

    Attributes:
        files: contents by path; each has its digest as ETag.
        cuts: how many answers still end after `cut_after` bytes, each.
        stalls: how many answers still stop sending after `cut_after` bytes, set `stalled`, and wait for `go_on`.
        statuses: what the next answers are instead; region: that of the bucket, in them.
        away: paths that give 503.
        ignores_if_range: sends the rest of whatever there is now.
        shift: how many bytes too late the rest of a file begins.
        requests: the Range, If-Range and If-None-Match headers of each request; paths: what each was for.
    """

    daemon_threads = True

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self._scheme = "https" if tls else "http"
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.content = CONTENT
        self.files: dict[str, bytes] = {}
        self.etag: str | None = '"one"'
        self.cuts = 0
        self.cut_after = 300_000
        self.stalls = 0
        self.statuses: list[int] = []
        self.region = ""
        self.away: set[str] = set()
        self.lengths = True
        self.claimed_bytes: int | None = None
        self.ignores_if_range = False
        self.shift = 0
        self.requests: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.stalled, self.go_on = threading.Event(), threading.Event()

    @property
    def url(self) -> str:
        return self.url_of(PATH)

    def url_of(self, path: str) -> str:
        return f"{self._scheme}://127.0.0.1:{self.server_address[1]}{path}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, path = self.server, unquote(self.path.partition("?")[0])
        asked = {name: self.headers[name] for name in ("Range", "If-Range", "If-None-Match") if self.headers[name]}
        server.requests.append(asked)
        server.paths.append(path)
        if server.statuses or path in server.away:
            self.send_response(503 if path in server.away else server.statuses.pop(0))
            if server.region:
                self.send_header("x-amz-bucket-region", server.region)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if server.files and path not in server.files:
            self.send_error(404)
            return
        content = server.files.get(path, server.content)
        etag = f'"{hashlib.sha256(content).hexdigest()}"' if server.files else server.etag
        if etag and asked.get("If-None-Match") == etag:
            self.send_response(304)
            self.end_headers()
            return
        start = 0
        if "Range" in asked and (server.ignores_if_range or asked.get("If-Range", etag) == etag):
            start = int(asked["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start + server.shift}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if etag:
            self.send_header("ETag", etag)
        body = content[start:]
        if server.lengths:
            self.send_header("Content-Length", str(server.claimed_bytes or len(body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # the client may have had enough
            self._send(body)

    def _send(self, body: bytes) -> None:
        server = self.server
        if server.cuts:
            server.cuts -= 1
            self.wfile.write(body[: server.cut_after])
        elif server.stalls:
            server.stalls -= 1
            self.wfile.write(body[: server.cut_after])
            server.stalled.set()
            server.go_on.wait(60)
            self.wfile.write(body[server.cut_after :])
        else:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    with Server(tls) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield running
        finally:
            running.go_on.set()
            running.shutdown()
            thread.join()
