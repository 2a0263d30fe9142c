# SPDX-License-Identifier: Apache-2.0
"""The processes of one system, found by its state folder: for killing one, and for seeing that none is left."""

import json
import time
from pathlib import Path

from tests.flow import patience


def of_state(state: Path) -> dict[int, str]:
    """Return command lines by pid of all processes whose command or environment names the state folder."""
    found: dict[int, str] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environment = (folder / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if command and (str(state) in command or str(state) in environment):
            found[int(folder.name)] = command
    return found


def part(state: Path, name: str) -> int:
    """Return the pid of a part: a program of the system (``gm``, ``lc-edge-0``, ``broker-cloud`` …) or a worker.

    Workers are ``worker-edge`` and ``worker-cloud``; waits until the part runs.
    """

    def find() -> int:
        if not name.startswith("worker-"):
            try:
                return int(json.loads((state / "pids.json").read_text()).get(name, 0))
            except (OSError, ValueError):
                return 0
        is_cloud = name == "worker-cloud"
        for pid, command in of_state(state).items():
            if command.rstrip().endswith("-m nereid_worker") and (_role(pid) == "cloud") is is_cloud:
                return pid
        return 0

    return patience.until(find, f"{name} to run")


def _role(pid: int) -> str:
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return ""
    return next((text.partition("=")[2] for text in variables if text.startswith("NEREID_ROLE=")), "edge")


def assert_none_left(state: Path, *, within_s: float = 30.0) -> None:
    """Fail where a process of the system is still there."""
    end = time.monotonic() + within_s
    while left := of_state(state):
        assert time.monotonic() < end, f"left behind: {left}"
        time.sleep(0.05)
