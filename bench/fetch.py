# SPDX-License-Identifier: Apache-2.0
"""How fast a model comes, against what reading, writing and hashing the same bytes takes at least.

One file from a server of its own process on the loopback, to a folder in memory where there is one: a disk's fsync
would be most of it. The bare loop takes the body from a socket, writes it and feeds sha256, with nothing checked; curl
does not hash.
"""

import contextlib
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from bench.figures import Figure
from nereid_shared.storage import Cache, Wanted, fetch

FILE_BYTES: Final = 200_000_000
QUICK_BYTES: Final = 40_000_000
ROUNDS: Final = 9
QUICK_ROUNDS: Final = 2
RATIO: Final = 0.9
_CHUNK: Final = 256 * 1024

# One answer per connection, by sendfile: what serves must not be what is measured.
_SERVER: Final = """
import socket, sys
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
while True:
    connection, _ = listening.accept()
    with connection, open(sys.argv[1], "rb") as file:
        while b"\\r\\n\\r\\n" not in connection.recv(65536):
            pass
        head = "HTTP/1.1 200 OK", "Connection: close", f"Content-Length: {file.seek(0, 2)}", "", ""
        connection.sendall("\\r\\n".join(head).encode())
        connection.sendfile(file, 0)
"""


def run(*, quick: bool) -> list[Figure]:
    """Return the throughput of fetch and of the cache as ratios."""
    size = QUICK_BYTES if quick else FILE_BYTES
    memory = Path("/dev/shm")  # noqa: S108 - the folder in memory of every Linux
    fits = memory.is_dir() and shutil.disk_usage(memory).free > 3 * size
    with tempfile.TemporaryDirectory(dir=memory if fits else None) as made:
        folder = Path(made)
        file = folder / "model.bin"
        file.write_bytes(os.urandom(size))
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        with _serving(file) as port:
            seconds, cpu_s = _measure(port, folder / "into", digest, rounds=QUICK_ROUNDS if quick else ROUNDS)
    place = "in memory" if fits else "on disk"
    figures = [_ratio(f"{name} / bare loop", seconds["bare"], seconds[name], RATIO) for name in ("fetch", "cache")]
    figures.append(_ratio("fetch / bare loop, by CPU time", cpu_s["bare"], cpu_s["fetch"], None))
    if "curl" in seconds:
        figures.append(_ratio("fetch / curl -o, which does not hash", seconds["curl"], seconds["fetch"], None))
    speed = size / min(seconds["fetch"]) / 1e6
    return [*figures, Figure(name="fetch", value=speed, unit="MB/s", note=f"{size / 1e6:.0f} MB, {place}")]


def _measure(
    port: int, into: Path, digest: str, *, rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return the seconds of each way, by round, and those of CPU in this process; all ways take turns."""
    url = f"http://127.0.0.1:{port}/model.bin"
    limit = FILE_BYTES + 1
    ways: dict[str, Callable[[], object]] = {
        "bare": lambda: _bare(port, into / "bare", digest),
        "fetch": lambda: fetch(url, into=into, sha256=digest, max_bytes=limit),
        "cache": lambda: Cache(into, max_bytes=limit).obtain(Wanted(url=url, sha256=digest, max_bytes=limit)),
    }
    if curl := shutil.which("curl"):
        command = [curl, "--silent", "--fail", "--noproxy", "*", "-o", str(into / "curl"), url]
        ways["curl"] = lambda: subprocess.run(command, check=True)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    cpu_s: dict[str, list[float]] = {name: [] for name in ways}
    for round_number in range(rounds + 1):
        for name, way in ways.items():
            into.mkdir()
            began, cpu_before = time.perf_counter(), time.process_time()
            way()
            if round_number:  # the first warms up
                seconds[name].append(time.perf_counter() - began)
                cpu_s[name].append(time.process_time() - cpu_before)
            shutil.rmtree(into)
    return seconds, cpu_s


def _bare(port: int, into: Path, digest: str) -> None:
    hashed, buffer = hashlib.sha256(), bytearray(_CHUNK)
    with socket.create_connection(("127.0.0.1", port)) as connection, into.open("wb") as file:
        connection.sendall(b"GET /model.bin HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        _, _, body = connection.recv(_CHUNK).partition(b"\r\n\r\n")
        hashed.update(body)
        file.write(body)
        while got := connection.recv_into(buffer):
            chunk = memoryview(buffer)[:got]
            hashed.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    assert hashed.hexdigest() == digest


def _ratio(name: str, baseline: list[float], measured: list[float], target: float | None) -> Figure:
    """Return the ratio of the best rounds: whatever else the machine does only takes from a round."""
    ratios = [base / own for base, own in zip(baseline, measured, strict=True)]
    note = f"best of {len(ratios)} each; by round {min(ratios):.2f}-{max(ratios):.2f}"
    return Figure(name=name, value=min(baseline) / min(measured), unit="", target=target, note=note)


@contextlib.contextmanager
def _serving(file: Path) -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", _SERVER, str(file)], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield int(server.stdout.readline())
        finally:
            server.terminate()
