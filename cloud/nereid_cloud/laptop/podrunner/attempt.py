# SPDX-License-Identifier: Apache-2.0
"""One run of a container: a folder with its launch, its lock, its start and its exit, shared with the `shim`.

Whether it still runs is asked of the lock that the shim holds, never of a process id: ids are recycled, after a reboot
all at once; locks are not.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from nereid_cloud.laptop.podrunner import shim
from nereid_cloud.laptop.podrunner.status import Terminated
from nereid_shared.times import rfc3339

LOCK = "lock"
_SHIM_LOG = "shim.log"
_POLL_S = 0.01
# The kubelet's words for a container whose end nobody saw.
_UNKNOWN_CODE = 137
_UNKNOWN_REASON = "ContainerStatusUnknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What to run.

    Attributes:
        argv: the program and its arguments, with paths of this machine.
        env: the whole environment.
        cwd: the working folder.
        log: where stdout and stderr go.
        log_bytes: the size at which the log moves aside.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    log: Path
    log_bytes: int

    @property
    def rotated(self) -> Path:
        """Where the older part of a log goes that has grown too large."""
        return self.log.with_name(self.log.name + ".old")

    @property
    def previous(self) -> Path:
        """Where the log of the run before goes."""
        return self.log.with_name(self.log.name + ".1")

    def write(self, path: Path) -> None:
        """Store it for the shim, readable by its owner only: an environment may hold secrets."""
        record = {
            "argv": self.argv, "env": dict(self.env), "cwd": str(self.cwd), "log": str(self.log),
            "rotated": str(self.rotated), "logBytes": self.log_bytes,
        }  # fmt: skip
        # Whole or not at all: a half one, left by a full disk, would be read at each start.
        fresh = path.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps(record))
        fresh.replace(path)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return what `write` stored."""
        record = json.loads(path.read_text())
        return cls(
            argv=tuple(record["argv"]), env=record["env"], cwd=Path(record["cwd"]), log=Path(record["log"]),
            log_bytes=record["logBytes"],
        )  # fmt: skip


class Attempt:
    """A run that this PodRunner started or adopted."""

    def __init__(self, folder: Path, *, pidfd: int | None) -> None:
        self._folder, self._pidfd = folder, pidfd

    @classmethod
    async def start(cls, folder: Path, launch: Launch) -> Self:
        """Start a container; on return it runs or has ended.

        Raises:
            OSError: it could not be started, for instance because the disk is full; its folder is gone again.
        """
        try:
            folder.mkdir(parents=True)
            launch.write(folder / shim.LAUNCH)
            if launch.log.exists():
                launch.log.replace(launch.previous)
            launch.rotated.unlink(missing_ok=True)
            await asyncio.to_thread(_spawn, folder)
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return await cls.adopt(folder)

    @classmethod
    async def adopt(cls, folder: Path) -> Self:
        """Return the run in this folder, which may have ended long ago."""
        return cls(folder, pidfd=await _open_shim(folder / LOCK))

    @property
    def started_at(self) -> str | None:
        """When the container's process was started, as Kubernetes writes times; None where it never was."""
        record = _read(self._folder / shim.STARTED)
        return str(record["startedAt"]) if record else None

    @property
    def pid(self) -> int | None:
        """The process id of the container's process, for people; it may have ended."""
        record = _read(self._folder / shim.STARTED)
        return int(str(record["pid"])) if record else None

    @property
    def alive(self) -> bool:
        """Whether it had not ended when it was started or adopted, nor since been seen to end."""
        return self._pidfd is not None

    async def ended(self) -> Terminated:
        """Wait until the container and everything that it started have ended."""
        if self._pidfd is not None:
            await _readable(self._pidfd)
            _reap(self._pidfd)
            self.close()
        return self._exit()

    def terminate(self) -> None:
        """Ask the container's process group to end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the container's process group."""
        self._signal(signal.SIGUSR1)

    def close(self) -> None:
        """Forget the process, which goes on where it has not ended."""
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def _signal(self, number: signal.Signals) -> None:
        if self._pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def _exit(self) -> Terminated:
        record = _read(self._folder / shim.EXIT)
        if record is None:
            shim_log = self._folder / _SHIM_LOG
            why = shim_log.read_text()[-500:].strip() if shim_log.exists() else ""
            return Terminated(
                exit_code=_UNKNOWN_CODE, reason=_UNKNOWN_REASON,
                message=f"The container ended without its exit status being seen. {why}".strip(),
                started_at=self.started_at, finished_at=rfc3339(),
            )  # fmt: skip
        code = int(str(record["exitCode"]))
        return Terminated(
            exit_code=code, signal=int(str(record["signal"])),
            reason=str(record.get("reason") or ("Error" if code else "Completed")),
            message=str(record.get("message", "")),
            started_at=str(record["startedAt"]), finished_at=str(record["finishedAt"]),
        )  # fmt: skip


def _spawn(folder: Path) -> None:
    """Start the shim, and return when the container runs or has failed to."""
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    reader, writer = os.pipe()
    try:
        # The lock belongs to the open file description: the shim inherits it held, without a gap.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.posix_spawn(
            sys.executable,
            (sys.executable, "-I", "-S", str(Path(shim.__file__)), str(folder)),
            {"LANG": "C.UTF-8"},
            file_actions=(
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, writer, 1),
                (os.POSIX_SPAWN_OPEN, 2, str(folder / _SHIM_LOG), os.O_WRONLY | os.O_CREAT, 0o600),
                (os.POSIX_SPAWN_DUP2, lock, shim.LOCK_FD),
            ),
            setsid=True,
        )
        os.close(writer)
        writer = -1
        os.read(reader, 1)
    finally:
        for fd in (lock, reader, writer):
            if fd >= 0:
                os.close(fd)


async def _open_shim(lock_path: Path) -> int | None:
    """Return a descriptor of the process that holds the lock, or None where nobody does."""
    try:
        lock = os.open(lock_path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        while _held(lock):
            pid = os.pread(lock, 32, 0)
            if not pid:  # the shim is about to write it: the PodRunner that started it was killed at that moment
                await asyncio.sleep(_POLL_S)
                continue
            try:
                pidfd = os.pidfd_open(int(pid))
            except ProcessLookupError:
                return None
            # Still held after the descriptor was opened: it is the holder's, not that of a later process with its id.
            if _held(lock):
                return pidfd
            os.close(pidfd)
    finally:
        os.close(lock)
    return None


def _held(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(lock, fcntl.LOCK_UN)
    return False


def _reap(pidfd: int) -> None:
    with contextlib.suppress(ChildProcessError):  # adopted: it is another process's child
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)


def _read(path: Path) -> dict[str, object] | None:
    try:
        record: dict[str, object] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return record
