# SPDX-License-Identifier: Apache-2.0
"""One container of a Pod: starts it, adopts it, restarts it by the Pod's policy, and knows its state."""

import asyncio
import logging
import os
import shutil
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from nereid_cloud.laptop.podrunner import probe, shim
from nereid_cloud.laptop.podrunner.attempt import Attempt, Launch
from nereid_cloud.laptop.podrunner.launch import CannotCreate
from nereid_cloud.laptop.podrunner.report import EventType
from nereid_cloud.laptop.podrunner.restart_delay import RestartDelay
from nereid_cloud.laptop.podrunner.status import (
    ContainerView,
    RestartPolicy,
    Running,
    State,
    Terminated,
    Waiting,
    restarts,
)
from nereid_cloud.laptop.podrunner.stop import Stop
from nereid_shared.errors import TemporaryError

logger = logging.getLogger(__name__)

TERMINATION_MESSAGE: Final = ".termination"
"""Ends the name of the file, beside the container's log, in which it may say why or with what it ended."""

TERMINATION_MESSAGE_BYTES: Final = 4096
TERMINATION_LOG_BYTES: Final = 2048

Event = Callable[[EventType, str, str], None]


class Container:
    """A container and its runs, each in a numbered folder below `folder`.

    Args:
        spec: the container's part of the Pod.
        policy: the Pod's restart policy.
        grace_s: how long a container may take to end after a failed liveness probe.
        folder: where its runs are kept.
        host: the address that probes ask.
        backoff_s, backoff_ceiling_s: delays between restarts.
        resolve: what to execute; raises `CannotCreate` or `TemporaryError`.
        changed: called after each change of `view`.
        event: called with type, reason and message of what happened.
    """

    def __init__(
        self,
        spec: Mapping[str, Any],
        *,
        policy: RestartPolicy,
        grace_s: float,
        folder: Path,
        host: str,
        backoff_s: float,
        backoff_ceiling_s: float,
        resolve: Callable[[], Awaitable[Launch]],
        changed: Callable[[], None],
        event: Event,
    ) -> None:
        self._spec, self._policy, self._grace_s = spec, policy, grace_s
        self._folder, self._host, self._retry_s = folder, host, backoff_s
        self._restart_delay = RestartDelay(base_s=backoff_s, ceiling_s=backoff_ceiling_s)
        self._resolve, self._changed, self._event = resolve, changed, event
        self.name: str = spec["name"]
        self.view = ContainerView(name=self.name, image=spec.get("image", ""), state=Waiting())

    async def run(self, stop: Stop) -> None:
        """Run until the policy wants no further restart or a stop is asked; on return no process is left."""
        attempt = await self._resume()
        while True:
            attempt = attempt or await self._start(stop)
            if attempt is None:
                return
            try:
                ended = await self._until_ended(attempt, stop)
            finally:
                attempt.close()  # when this task is cancelled the container goes on, to be adopted
            attempt = None
            ended = await asyncio.to_thread(self._explained, ended)
            self._show(state=ended, ready=False)
            logger.info("container ended", extra={"container": self.name, "code": ended.exit_code})
            if stop.asked or not restarts(self._policy, ended) or not await self._back_off(ended, stop):
                return

    def wait_for(self, reason: str, message: str) -> None:
        """Show what keeps the container from its first run."""
        self._show(state=Waiting(reason=reason, message=message))

    async def _resume(self) -> Attempt | None:
        """Return the last run that an earlier PodRunner started, or None."""
        await asyncio.to_thread(self._forget_unstarted)
        numbers = self._numbers()
        if not numbers:
            return None
        number = numbers[-1]
        last = await self._outcome(number - 1) if number - 1 in numbers else None
        attempt = await Attempt.adopt(self._run_folder(number))
        alive = attempt.alive
        self._show(
            state=_running(attempt) if alive else await attempt.ended(),
            last=last,
            restarts=number,
            ready=alive and self._ready_at_once(attempt),
            identity=_identity(attempt),
        )
        logger.info("container adopted", extra={"container": self.name, "pid": attempt.pid, "alive": alive})
        return attempt

    def _forget_unstarted(self) -> None:
        """Remove runs of which a PodRunner that was killed, or met a full disk, had made no more than the folder."""
        for number in self._numbers():
            if not (self._run_folder(number) / shim.LAUNCH).exists():
                logger.warning("run never started", extra={"container": self.name, "run": number})
                shutil.rmtree(self._run_folder(number))

    async def _outcome(self, number: int) -> Terminated:
        return await (await Attempt.adopt(self._run_folder(number))).ended()

    async def _start(self, stop: Stop) -> Attempt | None:
        """Start the next run, as often as it takes; None where a stop was asked."""
        while not stop.asked:
            try:
                launch = await self._resolve()
            except CannotCreate as error:
                self._event("Warning", "Failed", f"Error: {error}")
                self._show(state=Waiting(reason=error.reason, message=str(error)))
            except TemporaryError as error:
                self._show(state=Waiting(message=str(error)))
            else:
                try:
                    return await self._start_as(launch)
                except OSError as error:
                    self._event("Warning", "Failed", f"Error: {error}")
                    self._show(state=Waiting(reason="RunContainerError", message=str(error)))
            await stop.wait(self._retry_s)
        return None

    async def _start_as(self, launch: Launch) -> Attempt:
        numbers = self._numbers()
        number = numbers[-1] + 1 if numbers else 0
        last = self.view.last
        if isinstance(self.view.state, Terminated):
            last = self.view.state
        attempt = await Attempt.start(self._run_folder(number), launch)
        for old in numbers[:-1]:
            await asyncio.to_thread(shutil.rmtree, self._run_folder(old), ignore_errors=True)
        self._show(state=_running(attempt), last=last, restarts=number, ready=self._ready_at_once(attempt),
                   identity=_identity(attempt))  # fmt: skip
        if attempt.started_at:
            self._event("Normal", "Started", f"Started container {self.name}")
        logger.info("container started", extra={"container": self.name, "pid": attempt.pid})
        return attempt

    async def _until_ended(self, attempt: Attempt, stop: Stop) -> Terminated:
        if not attempt.alive:
            return await attempt.ended()
        launch = Launch.read(self._run_folder(self.view.restarts) / shim.LAUNCH)
        ended = asyncio.create_task(attempt.ended(), name=f"{self.name} ended")
        stopping = asyncio.create_task(stop.wait(), name=f"{self.name} stop")
        sick = asyncio.create_task(self._sick(launch, attempt.pid), name=f"{self.name} liveness")
        readiness = asyncio.create_task(self._follow_readiness(launch, attempt.pid), name=f"{self.name} readiness")
        tasks = {ended, stopping, sick, readiness}
        try:
            await asyncio.wait({ended, stopping, sick}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                return ended.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if stop.asked:
            self._event("Normal", "Killing", f"Stopping container {self.name}")
            return await _end(attempt, stop)
        self._event("Normal", "Killing", f"Container {self.name} failed liveness probe, will be restarted")
        of_this_run = Stop()
        of_this_run.ask(self._grace_s)
        return await _end(attempt, of_this_run)

    async def _sick(self, launch: Launch, pid: int | None) -> None:
        """Return when the liveness probe has failed; never where there is none."""
        if "livenessProbe" in self._spec:
            asked = probe.outcomes(self._spec, self._spec["livenessProbe"], launch, host=self._host, pid=pid)
            async for alive in asked:
                if not alive:
                    self._event("Warning", "Unhealthy", f"Liveness probe of container {self.name} failed")
                    return
        await asyncio.Event().wait()

    async def _follow_readiness(self, launch: Launch, pid: int | None) -> None:
        if "readinessProbe" in self._spec:
            asked = probe.outcomes(self._spec, self._spec["readinessProbe"], launch, host=self._host, pid=pid)
            async for ready in asked:
                if not ready:
                    self._event("Warning", "Unhealthy", f"Readiness probe of container {self.name} failed")
                if isinstance(self.view.state, Running):
                    self._show(ready=ready)

    async def _back_off(self, ended: Terminated, stop: Stop) -> bool:
        """Wait before the next run; return whether there is to be one."""
        delay_s = self._restart_delay.after(_ran_s(ended))
        if delay_s > 0:
            message = f"back-off {delay_s:g}s restarting failed container={self.name}"
            self._event("Warning", "BackOff", f"Back-off restarting failed container {self.name}")
            self._show(state=Waiting(reason="CrashLoopBackOff", message=message), last=ended)
        return not await stop.wait(delay_s)

    def _explained(self, ended: Terminated) -> Terminated:
        """Return an end with its message: what the container wrote as such, or of an error the last of its log."""
        falls_back = self._spec.get("terminationMessagePolicy") == "FallbackToLogsOnError" and ended.exit_code
        if ended.message:
            return ended
        try:
            log = Launch.read(self._run_folder(self.view.restarts) / shim.LAUNCH).log
            said = _end_of(log.with_name(self.name + TERMINATION_MESSAGE), TERMINATION_MESSAGE_BYTES)
            if not said and falls_back:
                said = _end_of(log, TERMINATION_LOG_BYTES)
            return replace(ended, message=said)
        except (OSError, ValueError):
            return ended  # the log is gone, or what says where it is: the exit code stands alone

    def _ready_at_once(self, attempt: Attempt) -> bool:
        return isinstance(_running(attempt), Running) and "readinessProbe" not in self._spec

    def _numbers(self) -> list[int]:
        return sorted(int(path.name) for path in self._folder.iterdir()) if self._folder.is_dir() else []

    def _run_folder(self, number: int) -> Path:
        return self._folder / str(number)

    def _show(self, **changes: Any) -> None:
        view = replace(self.view, **changes)
        if view != self.view:
            self.view = view
            self._changed()


def termination_message_path(spec: Mapping[str, Any]) -> str:
    """Return the file, as a container sees it, in which it may leave a message."""
    return str(spec.get("terminationMessagePath") or "/dev/termination-log")


def _end_of(path: Path, most_bytes: int) -> str:
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - most_bytes))
        return file.read().decode(errors="replace")


async def _end(attempt: Attempt, stop: Stop) -> Terminated:
    """Ask the run's processes to end, and kill them when the stop is overdue."""
    ended = asyncio.create_task(attempt.ended(), name="ended")
    overdue = asyncio.create_task(stop.overdue(), name="overdue")
    attempt.terminate()
    try:
        await asyncio.wait({ended, overdue}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            attempt.kill()
        return await ended
    finally:
        for task in (ended, overdue):
            task.cancel()
        await asyncio.gather(ended, overdue, return_exceptions=True)


def _running(attempt: Attempt) -> State:
    return Running(started_at=attempt.started_at) if attempt.started_at else Waiting()


def _identity(attempt: Attempt) -> str:
    return f"process://{attempt.pid}" if attempt.pid else ""


def _ran_s(ended: Terminated) -> float:
    if ended.started_at is None:
        return 0.0
    started, finished = (datetime.fromisoformat(time) for time in (ended.started_at, ended.finished_at))
    return (finished - started).total_seconds()
