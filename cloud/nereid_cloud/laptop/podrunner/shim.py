# SPDX-License-Identifier: Apache-2.0
"""The parent of one container's process: writes its log and its exit status, and outlives the PodRunner.

Started as a script with ``python -I -S`` so that it stays small: it imports the standard library only. It leads a
session of its own and holds a lock on the attempt's folder while it lives: who finds the lock held has found this
very process, whatever happened to process ids since. SIGTERM is passed on to the container's process group, SIGUSR1
kills it. When the container's process ends, so does everything that it left behind, as in a pid namespace; when the
shim is killed, the kernel kills the container.
"""

import contextlib
import ctypes
import functools
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

LOCK_FD = 3
LAUNCH, STARTED, EXIT = "launch.json", "started.json", "exit.json"

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_CHUNK_BYTES = 65536
# What runc reports of a process that could not be executed.
_START_ERROR = 128


class Log:
    """A container's log file, which moves aside to `rotated` before it exceeds its size; no byte is cut away before."""

    def __init__(self, path: Path, *, rotated: Path, max_bytes: int) -> None:
        self._path, self._rotated, self._max_bytes = path, rotated, max_bytes
        self.lost_bytes = 0
        self._open()

    def write(self, chunk: bytes) -> None:
        """Append; what a full disk refuses is counted in `lost_bytes`, and the container goes on."""
        left = chunk
        try:
            while left:
                fits = self._fits(left)
                if fits:
                    written = os.write(self._fd, left[:fits])
                    self._size += written
                    left = left[written:]
                else:
                    self._path.replace(self._rotated)
                    os.close(self._fd)
                    self._open()
        except OSError:
            self.lost_bytes += len(left)

    def _fits(self, chunk: bytes) -> int:
        """Return how much of a chunk the file takes: whole lines, or part of one where the file is empty."""
        room = max(self._max_bytes - self._size, 0)
        if len(chunk) <= room:
            return len(chunk)
        return chunk.rfind(b"\n", 0, room) + 1 or (0 if self._size else room)

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._size = os.fstat(self._fd).st_size


def main() -> None:
    """Run the container that ``launch.json`` in the folder given describes, until it has ended."""
    folder = Path(sys.argv[1])
    os.pwrite(LOCK_FD, str(os.getpid()).encode(), 0)
    os.set_inheritable(LOCK_FD, False)
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    signals = listen(signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD)
    launch = json.loads((folder / LAUNCH).read_text())
    log = Log(Path(launch["log"]), rotated=Path(launch["rotated"]), max_bytes=launch["logBytes"])
    output, its_output = os.pipe()
    started_at = now()
    try:
        process = subprocess.Popen(
            launch["argv"],
            cwd=launch["cwd"],
            env=launch["env"],
            stdin=subprocess.DEVNULL,
            stdout=its_output,
            stderr=its_output,
            start_new_session=True,
            preexec_fn=functools.partial(die_with, os.getpid()),  # noqa: PLW1509 - there are no threads here
        )
    except OSError as error:
        message = f"failed to start container process: {error.strerror}: {error.filename}"
        write(folder / EXIT, exitCode=_START_ERROR, signal=0, reason="StartError", message=message,
              startedAt=started_at, finishedAt=now())  # fmt: skip
        return
    os.close(its_output)
    write(folder / STARTED, pid=process.pid, startedAt=started_at)
    detach_stdout()
    pump(process.pid, signals=signals, output=output, log=log)
    code, number = outcome(process.pid)
    end_what_is_left(process.pid)
    drain(output, log)
    write(folder / EXIT, exitCode=code, signal=number, startedAt=started_at, finishedAt=now(),
          lostLogBytes=log.lost_bytes)  # fmt: skip


def listen(*numbers: signal.Signals) -> int:
    """Return a descriptor from which the numbers of these signals can be read as bytes."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in numbers:
        signal.signal(number, lambda *_: None)
    return reader


def pump(pid: int, *, signals: int, output: int, log: Log) -> None:
    """Move output to the log and pass signals on until the process has ended; it is left for `outcome` to reap."""
    poller = select.poll()
    poller.register(signals, select.POLLIN)
    poller.register(output, select.POLLIN)
    while True:
        for fd, _ in poller.poll():
            if fd == output:
                chunk = os.read(output, _CHUNK_BYTES)
                if chunk:
                    log.write(chunk)
                else:
                    poller.unregister(output)
                continue
            for number in os.read(signals, 64):
                if number == signal.SIGTERM:
                    kill_group(pid, signal.SIGTERM)
                elif number == signal.SIGUSR1:
                    kill_group(pid, signal.SIGKILL)
            if reap_others(pid):
                return


def reap_others(pid: int) -> bool:
    """Reap adopted orphans that have ended; return whether the container's own process has."""
    while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if ended.si_pid == pid:
            return True
        os.waitid(os.P_PID, ended.si_pid, os.WEXITED)
    return False


def outcome(pid: int) -> tuple[int, int]:
    """Return the exit code as a shell has it, and the signal that ended the process or 0; leave it unreaped."""
    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None  # noqa: S101 - without WNOHANG it waits
    if ended.si_code == os.CLD_EXITED:
        return ended.si_status, 0
    return 128 + ended.si_status, ended.si_status


def end_what_is_left(pid: int) -> None:
    """Kill and reap every process that the container started and did not wait for."""
    kill_group(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG) is None:
                for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
                    os.kill(int(child), signal.SIGKILL)
                os.waitid(os.P_ALL, 0, os.WEXITED)


def kill_group(pid: int, number: signal.Signals) -> None:
    """Signal the container's process group. Its leader is not reaped yet, so that the id is still its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def drain(output: int, log: Log) -> None:
    """Move what is left in the pipe to the log."""
    os.set_blocking(output, False)
    with contextlib.suppress(BlockingIOError):
        while chunk := os.read(output, _CHUNK_BYTES):
            log.write(chunk)


def detach_stdout() -> None:
    """Close stdout: the PodRunner waits for its end to know that the container has started."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def die_with(parent: int) -> None:
    """Have the kernel kill the calling process when its parent dies."""
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def prctl(option: int, value: int) -> None:
    """Set an option of the calling process (prctl(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def now() -> str:
    """Return the time as Kubernetes writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def write(path: Path, **record: object) -> None:
    """Write a record that readers see whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(record))
    temporary.replace(path)


if __name__ == "__main__":
    main()
