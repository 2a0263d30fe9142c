# SPDX-License-Identifier: Apache-2.0
"""A closed loop of HTTP requests over bare sockets: a client library would cost as much as the server."""

import socket
import threading
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one loop came to.

    Attributes:
        rate: answers a second; `latencies_s` what each took, sorted.
    """

    rate: float
    latencies_s: list[float]

    def quantile_ms(self, share: float) -> float:
        """Return the latency that this share of the requests did not exceed."""
        return self.latencies_s[min(len(self.latencies_s) - 1, int(len(self.latencies_s) * share))] * 1e3


def post(path: str, body: bytes, **headers: str) -> bytes:
    """Return a request as it goes on the wire."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def closed_loop(port: int, request: bytes, *, connections: int, total: int) -> Outcome:
    """Return what `total` requests came to, each connection sending its next one after its last answer.

    Raises:
        RuntimeError: an answer was no 200.
    """
    latencies: list[float] = []
    failures: list[str] = []

    def one() -> None:
        with socket.create_connection(("127.0.0.1", port)) as link:
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(total // connections):
                began = time.perf_counter()
                link.sendall(request)
                status = _answer(link)
                latencies.append(time.perf_counter() - began)
                if status != b"200":
                    failures.append(status.decode())
                    return

    threads = [threading.Thread(target=one) for _ in range(connections)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent = time.perf_counter() - began
    if failures or not latencies:
        raise RuntimeError(f"{len(failures)} requests were answered {failures[:1]}")
    return Outcome(rate=len(latencies) / spent, latencies_s=sorted(latencies))


def _answer(link: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        more = link.recv(1 << 16)
        if not more:
            return b"closed"
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += link.recv(1 << 16)
    return head[9:12]
