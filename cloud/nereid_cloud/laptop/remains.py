# SPDX-License-Identifier: Apache-2.0
"""What a system has for processes, and which of them outlived it; read from the kernel, whatever the disk says."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_PARENT, _STARTED = 1, 19
"""Fields of ``/proc/PID/stat`` after the command's name, which may hold blanks (proc_pid_stat(5): 4 and 22)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process, for good: ids are recycled, but not with the same time of start.

    Attributes:
        started: ticks since the machine started.
    """

    pid: int
    started: int
    command: str

    @property
    def is_alive(self) -> bool:
        """Whether it runs still; a process that has ended and was not reaped does not."""
        fields = _stat(self.pid)
        return bool(fields) and fields[0] != "Z" and int(fields[_STARTED]) == self.started


def below(ancestor: int) -> list[Process]:
    """Return the processes that a process started, and those that these did."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[_PARENT]), []).append(int(entry.name))
    return list(_known(_descendants(ancestor, children)))


def _descendants(ancestor: int, children: dict[int, list[int]]) -> Iterator[int]:
    for child in children.get(ancestor, ()):
        yield child
        yield from _descendants(child, children)


def _known(pids: Iterable[int]) -> Iterator[Process]:
    for pid in pids:
        if fields := _stat(pid):
            yield Process(pid=pid, started=int(fields[_STARTED]), command=_command(pid))


def _stat(pid: int) -> list[str]:
    """Return a process's fields from its state on, none where it is gone."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _command(pid: int) -> str:
    try:
        return os.fsdecode((_PROC / str(pid) / "cmdline").read_bytes()).replace("\0", " ").strip()
    except OSError:
        return ""
