# SPDX-License-Identifier: Apache-2.0
"""Brings a system up and down: locks its state folder, starts the processes, waits until nodes are ready."""

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

from nereid_cloud.cluster.kinds import NODE
from nereid_cloud.cluster.local import LocalCluster
from nereid_cloud.cluster.opening import DATABASE
from nereid_cloud.laptop.supervisor import Kept, Supervisor
from nereid_cloud.laptop.system import CLOUD_NODE, Ports, System, edge_nodes
from nereid_shared.errors import NereidError, UserError

READY_S: Final = 60.0
POLL_S: Final = 0.1
DOWN_S: Final = 60.0

Progress = Callable[[str], None]


@contextlib.asynccontextmanager
async def running(
    state: Path, *, nodes: int, base_port: int, progress: Progress
) -> AsyncIterator[tuple[System, Supervisor]]:
    """Run a system while the context lasts; entering means that all nodes are ready.

    Raises:
        UserError: another system runs on that folder, a port is taken, Mosquitto is missing, a node does not get ready.
    """
    state.mkdir(parents=True, exist_ok=True)
    with _locked(state):
        names = edge_nodes(nodes)
        system = System(state=state, nodes=names, ports=Ports.choose(names, base_port))
        system.logs.mkdir(exist_ok=True)
        system.write_brokers()
        system.save()
        LocalCluster(state / DATABASE).close()
        async with Supervisor(on_change=lambda _: _write_pids(state, supervisor)) as supervisor:
            for program in system.programs():
                progress(f"starting {program.name}")
                supervisor.add(program)
            await _until_ready(system, progress)
            yield system, supervisor
            progress("stopping")
        (state / "pids.json").unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(state: Path):  # type: ignore[no-untyped-def] # the decorator gives it its type
    with (state / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"a system runs there already (process {_owner(state)})",
                where=str(state),
                mend="Stop it with nereid down, or choose another --state",
            ) from error
        (state / "owner").write_text(f"{os.getpid()}\n")
        try:
            yield
        finally:
            (state / "owner").unlink(missing_ok=True)


def _owner(state: Path) -> int:
    try:
        return int((state / "owner").read_text())
    except (OSError, ValueError):
        return 0


def _write_pids(state: Path, supervisor: Supervisor) -> None:
    """Keep ``pids.json`` true, for people and tests that end one part."""
    path = state / "pids.json"
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps({name: kept.pid for name, kept in supervisor.kept.items() if kept.pid}) + "\n")
    fresh.replace(path)


async def _until_ready(system: System, progress: Progress) -> None:
    wanted = {CLOUD_NODE, *system.nodes}
    progress("waiting for the nodes")
    end = time.monotonic() + READY_S
    cluster = LocalCluster(system.state / DATABASE)
    try:
        while missing := wanted - await asyncio.to_thread(_ready_nodes, cluster):
            if time.monotonic() > end:
                raise UserError(
                    f"not ready after {READY_S:.0f} s: {', '.join(sorted(missing))}",
                    where=str(system.logs),
                    mend="Their logs say why",
                )
            await asyncio.sleep(POLL_S)
    finally:
        cluster.close()


def _ready_nodes(cluster: LocalCluster) -> set[str]:
    try:
        nodes = cluster.list(NODE).items
    except NereidError:
        return set()
    return {
        node["metadata"]["name"]
        for node in nodes
        if any(c["type"] == "Ready" and c["status"] == "True" for c in node.get("status", {}).get("conditions", []))
    }


def stop(state: Path) -> None:
    """End the system that runs on a state folder, and wait until it is gone.

    Raises:
        UserError: none runs there, or it does not end.
    """
    owner = _owner(state)
    with (state / "lock").open("a+") if state.is_dir() else contextlib.nullcontext() as lock:
        if lock is None or _try_lock(lock.fileno()):
            raise UserError("no system runs there", where=str(state))
        os.kill(owner, signal.SIGTERM)
        end = time.monotonic() + DOWN_S
        while not _try_lock(lock.fileno()):
            if time.monotonic() > end:
                raise UserError(f"process {owner} does not end", where=str(state), mend="Look at its logs folder")
            time.sleep(POLL_S)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


__all__ = ["Kept", "Progress", "running", "stop"]
