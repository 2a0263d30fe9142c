# SPDX-License-Identifier: Apache-2.0
"""Keeps a handful of host processes running, as an init system would, and leaves none behind."""

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nereid_shared.backoff import Backoff

logger = logging.getLogger(__name__)

RESTART_S: Final = 0.2
RESTART_MAX_S: Final = 5.0
STEADY_S: Final = 10.0
"""A process that ran so long starts again with the shortest delay."""

STOP_S: Final = 10.0
KILL_S: Final = 5.0
"""How long a process may take to end after SIGKILL, before the others are stopped without it."""

RETELL_S: Final = 1.0
NOT_STARTED: Final = 126
"""What a shell returns for a command that it found and could not start."""

_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One process to keep running.

    Attributes:
        name: unique; also the log's name.
        argv: program and arguments.
        env: its whole environment.
        log: file that its output is appended to.
        stop_s: how long it may take to end after SIGTERM.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    log: Path
    stop_s: float = STOP_S


@dataclass(slots=True, kw_only=True)
class Kept:
    """A program and its present process.

    Attributes:
        pid: of the process that runs, or 0.
        starts: how often it was started.
        ends: how often it ended by itself.
        code: with which exit code it did so last; negative for a signal, `NOT_STARTED` where it could not begin.
    """

    program: Program
    pid: int = 0
    starts: int = 0
    ends: int = 0
    code: int = 0


class Supervisor:
    """Starts programs in the order of `add`, restarts what ends, stops all in reverse order.

    No error of the machine, such as a full disk, ends the supervision of a program: it is tried again.

    Args:
        on_change: called when a process started or ended; where it raises an OSError, again a little later.

    Programs die with the supervisor, also when it is killed: each asks the kernel for a signal at its parent's death.
    """

    def __init__(self, *, on_change: Callable[[], None] | None = None) -> None:
        self.kept: dict[str, Kept] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._on_change = on_change
        self._retell: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> "Supervisor":
        return self

    async def __aexit__(self, *exc: object) -> None:
        stopping = asyncio.create_task(self._stop_all(), name="stop all")
        cancelled: asyncio.CancelledError | None = None
        while not stopping.done():
            try:
                await asyncio.wait([stopping])
            except asyncio.CancelledError as error:
                cancelled = error  # who waits no longer must not leave processes behind
        await stopping
        if cancelled is not None:
            raise cancelled

    async def _stop_all(self) -> None:
        for name in reversed(list(self._tasks)):
            task = self._tasks.pop(name)
            task.cancel()
            # What one part died of must not keep the others from being stopped.
            await asyncio.wait([task])
            if not task.cancelled() and (error := task.exception()):
                logger.error("process not supervised to its end", extra={"program": name}, exc_info=error)
        if self._retell is not None:
            self._retell.cancel()

    def add(self, program: Program) -> Kept:
        """Start a program and keep it running."""
        kept = Kept(program=program)
        self.kept[program.name] = kept
        self._tasks[program.name] = asyncio.create_task(self._keep(kept), name=program.name)
        return kept

    async def _keep(self, kept: Kept) -> None:
        backoff = Backoff(first_s=RESTART_S, longest_s=RESTART_MAX_S)
        while True:
            started = time.monotonic()
            try:
                code = await self._run(kept)
            except OSError as error:
                logger.warning("process not started", extra={"program": kept.program.name, "problem": str(error)})
                code = NOT_STARTED
            kept.code, kept.ends = code, kept.ends + 1
            if time.monotonic() - started > STEADY_S:
                backoff.reset()
            delay_s = backoff.next_s()
            logger.warning("process ended", extra={"program": kept.program.name, "code": code, "restart_s": delay_s})
            await asyncio.sleep(delay_s)

    async def _run(self, kept: Kept) -> int:
        program = kept.program
        with program.log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *program.argv, env=dict(program.env), stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True, preexec_fn=_die_with_parent,
            )  # fmt: skip
        kept.pid, kept.starts = process.pid, kept.starts + 1
        self._tell()
        try:
            return await process.wait()
        except asyncio.CancelledError:
            if not await _end(process, program.stop_s):
                logger.error("process does not end", extra={"program": program.name, "pid": process.pid})
            raise
        finally:
            if process.returncode is not None:
                kept.pid = 0
            self._tell()

    def _tell(self) -> None:
        if self._retell is not None:
            self._retell.cancel()
            self._retell = None
        if self._on_change is None:
            return
        try:
            self._on_change()
        except OSError as error:
            logger.warning("change of a process not told", extra={"problem": str(error)})
            self._retell = asyncio.get_running_loop().call_later(RETELL_S, self._tell)


async def _end(process: asyncio.subprocess.Process, stop_s: float) -> bool:
    """End a process; return whether it did."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    if await _ended(process, stop_s):
        return True
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return await _ended(process, KILL_S)


async def _ended(process: asyncio.subprocess.Process, limit_s: float) -> bool:
    try:
        async with asyncio.timeout(limit_s):
            await process.wait()
    except TimeoutError:
        return False
    return True


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
