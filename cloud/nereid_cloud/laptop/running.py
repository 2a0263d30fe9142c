# SPDX-License-Identifier: Apache-2.0
"""Brings a system up and down: locks its state folder, starts the processes, waits until all parts are up."""

import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from nereid_cloud.cluster.local import LocalCluster
from nereid_cloud.cluster.local_store import check
from nereid_cloud.cluster.opening import DATABASE
from nereid_cloud.laptop import remains, statelock
from nereid_cloud.laptop.readiness import Progress, Signs, until_up
from nereid_cloud.laptop.supervisor import Kept, Supervisor
from nereid_cloud.laptop.system import CONTROL, Ports, System, edge_nodes
from nereid_shared.errors import NereidError, UserError

PIDS: Final = "pids.json"
POLL_S: Final = 0.1
DOWN_S: Final = 60.0
LAST_S: Final = 2.0
"""How long a process may outlive the system: a kill takes a moment."""


class StillRunning(NereidError):
    """A system, or a process of it, that did not end when it was told to."""


@contextlib.asynccontextmanager
async def running(
    state: Path, *, nodes: int, base_port: int | None, progress: Progress
) -> AsyncIterator[tuple[System, Supervisor]]:
    """Run a system while the context lasts; entering means that all its parts are up.

    Raises:
        UserError: another system runs on that folder, a port is taken, Mosquitto is missing, the
            cluster's file is damaged, a part does not start.
    """
    state.mkdir(parents=True, exist_ok=True)
    with statelock.held(state):
        check(state / DATABASE)
        names = edge_nodes(nodes)
        system = System(state=state, nodes=names, ports=Ports.choose(names, base_port))
        system.logs.mkdir(exist_ok=True)
        system.write_brokers()
        system.save()
        with _swept(system), closing(LocalCluster(state / DATABASE)) as cluster:
            signs = Signs(system, cluster)
            async with Supervisor(on_change=lambda: _write_pids(state, supervisor)) as supervisor:
                for program in system.programs():
                    progress(f"starting {program.name}")
                    supervisor.add(program)
                await until_up(system, supervisor, signs, progress)
                try:
                    yield system, supervisor
                finally:
                    progress("stopping")


@contextlib.contextmanager
def _swept(system: System) -> Iterator[None]:
    """Leave nothing in the state folder that speaks of a system that runs."""
    try:
        yield
    finally:
        for path in (system.state / PIDS, system.control):
            path.unlink(missing_ok=True)


def _clear_after_a_kill(state: Path) -> None:
    """Remove what a system that was killed could not: its processes have ended with it."""
    left = [state / PIDS, state / CONTROL]
    if any(path.exists() for path in left):
        with contextlib.suppress(UserError), statelock.held(state):
            for path in left:
                path.unlink(missing_ok=True)


def _write_pids(state: Path, supervisor: Supervisor) -> None:
    """Keep ``pids.json`` true, for people and tests that end one part."""
    path = state / PIDS
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps({name: kept.pid for name, kept in supervisor.kept.items() if kept.pid}) + "\n")
    fresh.replace(path)


def stop(state: Path) -> None:
    """End the system that runs on a state folder, and wait until it is gone.

    Raises:
        UserError: none runs there.
        StillRunning: it does not end, or not with all its processes.
    """
    if not statelock.is_held(state):
        _clear_after_a_kill(state)
        raise UserError("no system runs there", where=str(state))
    owner = statelock.owner(state)
    if not owner:
        raise StillRunning(f"{state}: a system runs there, but its file `owner` does not say which process it is")
    processes = {process.pid: process for process in remains.below(owner)}
    os.kill(owner, signal.SIGTERM)
    end = time.monotonic() + DOWN_S
    while statelock.is_held(state):
        if time.monotonic() > end:
            raise StillRunning(f"{state}: process {owner} does not end; look at its logs folder")
        processes |= {process.pid: process for process in remains.below(owner)}  # one that was just starting
        time.sleep(POLL_S)
    end = time.monotonic() + LAST_S
    while left := [process for process in processes.values() if process.is_alive]:
        if time.monotonic() > end:
            lines = [f"  {process.pid}  {process.command}" for process in left]
            raise StillRunning("\n".join([f"{state}: the system ended, but not these processes of it:", *lines]))
        time.sleep(POLL_S)


__all__ = ["Kept", "Progress", "StillRunning", "running", "stop"]
