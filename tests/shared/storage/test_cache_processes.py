# SPDX-License-Identifier: Apache-2.0
"""Several processes on one cache, and what is left when one of them is killed."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.shared.storage.file_server import CONTENT, MAX_BYTES, PATH, SHA256, Server
from tests.shared.storage.test_cache import FOLDER, offer

from nereid_shared.storage import Cache, Wanted

# Says "looked" when it is first asked whether to stop, each count of bytes, and the path; then holds what it has.
OBTAIN = """
import sys
from pathlib import Path
from nereid_shared.storage import Cache, Wanted
looked = []
def stop():
    if not looked:
        looked.append(True)
        print("looked", flush=True)
    return False
cache = Cache(Path(sys.argv[1]), max_bytes=10**9, backoff_s=0.01)
wanted = Wanted(url=sys.argv[2], sha256=sys.argv[3], max_bytes=10**9)
print(cache.obtain(wanted, progress=lambda there, whole: print(there, flush=True), stop=stop).path, flush=True)
sys.stdin.read()
"""

Obtain = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def obtain(server: Server, root: Path) -> Iterator[Obtain]:
    """Starts a process that obtains the server's file, with or without its digest."""
    started: list[subprocess.Popen[str]] = []

    def start(sha256: str = SHA256) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", OBTAIN, str(root), server.url, sha256], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        with process:
            process.kill()


def says(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def path_of(process: subprocess.Popen[str]) -> Path:
    while (said := says(process)) and not said.startswith("/"):
        pass
    return Path(said)


@pytest.mark.parametrize("sha256", [SHA256, ""])
def test_processes_that_want_the_same_download_it_once(server: Server, obtain: Obtain, sha256: str) -> None:
    server.stalls = 1
    first = obtain(sha256)
    assert server.stalled.wait(30)
    second = obtain(sha256)
    assert says(second) == "looked"  # it waits: nothing else is asked before the lock
    assert server.paths == [PATH]
    server.go_on.set()
    path = path_of(first)
    assert path == path_of(second)
    assert path.read_bytes() == CONTENT
    assert server.requests[1:] == ([] if sha256 else [{"If-None-Match": '"one"'}])


def test_a_download_goes_on_where_a_killed_process_left_it(server: Server, root: Path, obtain: Obtain) -> None:
    server.stalls, server.cut_after = 1, len(CONTENT) * 99 // 100
    first = obtain()
    while says(first) != str(server.cut_after):
        pass
    second = obtain()
    assert says(second) == "looked"
    first.kill()  # while the other waits for it
    assert path_of(second).read_bytes() == CONTENT
    kept = int(server.requests[1]["Range"].removeprefix("bytes=").removesuffix("-"))
    assert server.cut_after - 2 * 256 * 1024 < kept <= server.cut_after
    assert list((root / "parts").iterdir()) == []


def test_what_a_living_process_holds_is_not_evicted(server: Server, root: Path, obtain: Obtain) -> None:
    holder = obtain()
    path = path_of(holder)
    cache = Cache(root, max_bytes=0)
    assert cache.collect([]) == 0
    assert path.read_bytes() == CONTENT
    holder.kill()
    holder.wait(30)
    assert cache.collect([]) == len(CONTENT)
    assert not path.exists()


@pytest.mark.parametrize("act", ["obtain", "collect"])
@pytest.mark.slow
@pytest.mark.timeout(600)  # some eighty processes, three for each step
def test_a_kill_at_whatever_step_leaves_nothing_wrong(server: Server, tmp_path: Path, act: str) -> None:
    offer(server, goldens={"golden/0.png": b"0"})
    whole = {
        path.removeprefix(f"{FOLDER}/"): hashlib.sha256(content).hexdigest() for path, content in server.files.items()
    }
    command = [sys.executable, str(Path(__file__).with_name("crashes.py")), str(tmp_path), server.url, act]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=570)
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(reports) > 20
    for report in reports:
        assert all(found == whole for found in report["sets_after_kill"]), report
        assert report["known_is_right"], report
        assert report["set"] == whole, report
        assert (report["parts"], report["left"]) == (0, []), report
        assert report["freed"] == sum(map(len, server.files.values())), report


def test_threads_and_processes_share_what_is_remembered(server: Server, root: Path, obtain: Obtain) -> None:
    path = path_of(obtain(""))
    known = Cache(root, max_bytes=MAX_BYTES).known(Wanted(url=server.url, max_bytes=MAX_BYTES))
    assert known is not None
    assert known.path == path
