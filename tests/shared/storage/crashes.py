# SPDX-License-Identifier: Apache-2.0
"""``crashes.py FOLDER URL obtain|collect``: a process that is killed before each step it takes on the disk, in turn.

After each kill another process obtains the same, and says what it found. One JSON line per kill.
"""

import hashlib
import itertools
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from nereid_shared.storage import Cache, Wanted

STEPS = frozenset({
    "open", "os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "os.chmod", "os.utime", "shutil.rmtree",
    "fcntl.flock",
})  # fmt: skip


def main(folder: Path, url: str, act: str) -> None:
    wanted = Wanted(url=url, max_bytes=10**7, companions=True)
    for step in itertools.count(1):
        root = folder / str(step)
        if act == "collect":
            in_another_process(obtain, root, wanted)
        killed = in_another_process(doomed, root, wanted, act, step)
        found = [digests(one) for one in (root / "sets").glob("[!.]*")]
        code = in_another_process(report, root, wanted, step, found)
        if code or not killed:
            sys.exit(code)


def in_another_process(act: Callable[..., None], *arguments: object) -> int:
    """Return how it ended, 0 where well."""
    child = os.fork()
    if child == 0:
        try:
            act(*arguments)
        except BaseException:  # noqa: BLE001 - a fork must never go on as its parent
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def obtain(root: Path, wanted: Wanted) -> None:
    Cache(root, max_bytes=0, backoff_s=0.01).obtain(wanted)


def doomed(root: Path, wanted: Wanted, act: str, step: int) -> None:
    left = itertools.count(step - 1, -1)

    def count(event: str, arguments: tuple[object, ...]) -> None:
        # The interpreter opens files of its own, too.
        if event in STEPS and (event != "open" or str(arguments[0]).startswith(str(root))) and next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    if act == "obtain":
        obtain(root, wanted)
    else:
        Cache(root, max_bytes=0).collect([])


def report(root: Path, wanted: Wanted, step: int, found: list[dict[str, str]]) -> None:
    cache = Cache(root, max_bytes=0, backoff_s=0.01)
    known = cache.known(wanted)
    one = cache.obtain(wanted)
    said = {
        "step": step,
        "sets_after_kill": found,
        "known_is_right": known in {None, one},
        "set": digests(one.path.parent),
        "parts": len(list((root / "parts").iterdir())),
    }
    cache.close()
    said["freed"] = cache.collect([])
    said["left"] = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


def digests(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*")) if file.is_file()
    }  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
