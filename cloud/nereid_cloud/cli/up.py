# SPDX-License-Identifier: Apache-2.0
"""``nereid up``, ``down`` and ``link``: a whole system on this machine."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import typer

from nereid_cloud.cli.options import options_of
from nereid_cloud.cli.problems import FAILED, note
from nereid_cloud.demo import stage
from nereid_cloud.laptop import links, running, statelock
from nereid_cloud.laptop.system import BASE_PORT, System
from nereid_shared import logs
from nereid_shared.errors import UserError

MAX_NODES: Final = 50

Nodes = Annotated[int, typer.Option("--nodes", min=1, max=MAX_NODES, help="Number of edge nodes.")]
BasePort = Annotated[
    int,
    typer.Option(
        "--base-port", min=0, max=65000, help="The cloud broker's port, the nodes' follow; 0 takes free ones."
    ),
]


def progress_to(stream: Callable[[str], object], *, terminal: bool) -> Callable[[str], None]:
    """Return a progress reporter: a line each on a terminal, nothing off one."""

    def tell(line: str) -> None:
        if terminal:
            stream(f"{line}\n")

    return tell


def up(
    ctx: typer.Context,
    nodes: Nodes = 1,
    base_port: BasePort = BASE_PORT,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Come back when all is ready.")] = False,
) -> None:
    """Start a cloud and edge nodes on this machine, until Ctrl-C or ``nereid down``."""
    folder = options_of(ctx).state
    if detach:
        _detach(folder, nodes, base_port)
        return
    with asyncio.Runner() as runner:
        runner.run(_up(folder, nodes, base_port))


async def _up(state: Path, nodes: int, base_port: int) -> None:
    logs.configure(json=False, level=logging.WARNING)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    progress = progress_to(sys.stderr.write, terminal=sys.stderr.isatty())
    bring_up = asyncio.create_task(_until(stop, state, nodes, base_port, progress), name="up")
    stopped = asyncio.create_task(stop.wait(), name="stop")
    await asyncio.wait({bring_up, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if not bring_up.done():
        # While starting, a signal has to end the start; once up, `_until` ends by itself.
        bring_up.cancel()
    stopped.cancel()
    try:
        await bring_up
    except asyncio.CancelledError:
        return


async def _until(stop: asyncio.Event, state: Path, nodes: int, base_port: int, progress: Callable[[str], None]) -> None:
    async with running.running(state, nodes=nodes, base_port=base_port, progress=progress) as (system, _):
        scene = await asyncio.to_thread(stage.set_up, system, samples=None, seed=0)
        tell_ready(system, scene.write_sample(state / "samples"))
        await stop.wait()


def tell_ready(system: System, sample: Path) -> None:
    """Print what a user needs next: where to look and how to stop."""
    sys.stdout.write(
        f"Nereid is up: cloud and {len(system.nodes)} edge node(s), state in {system.state}\n"
        "Watch it:\n" + "".join(f"  {line}\n" for line in system.watch_lines()) + f"Try: nereid apply -f {sample}\n"
    )
    sys.stdout.flush()


def _detach(state: Path, nodes: int, base_port: int) -> None:
    """Start `nereid up` in a session of its own, and wait for its word that all is ready."""
    state.mkdir(parents=True, exist_ok=True)
    statelock.check_free(state)
    argv = [
        sys.executable, "-m", "nereid_cloud.cli", "up", "--state", str(state), "--nodes", str(nodes),
        "--base-port", str(base_port),
    ]  # fmt: skip
    reading, writing = os.pipe()
    log = state / "up.log"
    # Appended: another `up` that begins at this moment writes there too.
    with log.open("ab") as errors, os.fdopen(reading, "r") as words:
        before = errors.tell()
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=writing, stderr=errors, start_new_session=True)
        os.close(writing)
        said = ""
        for line in words:
            said += line
            if line.startswith("Try:"):
                sys.stdout.write(said)
                return
    code = child.wait()
    problem = log.read_bytes()[before:].decode(errors="replace").strip()
    note(problem or f"error: {log}: it ended before it was ready")
    raise typer.Exit(code or FAILED)


def down(ctx: typer.Context) -> None:
    """Stop the system on this machine, and all its processes."""
    folder = options_of(ctx).state
    running.stop(folder)
    sys.stdout.write(f"Nereid is down; its state stays in {folder}\n")


def link(
    ctx: typer.Context,
    action: Annotated[str, typer.Argument(help="cut, slow, heal or list")],
    node: Annotated[str, typer.Argument(help="Node, such as edge-0.")] = "",
    delay_ms: Annotated[float, typer.Option("--delay-ms", min=0, max=60000, help="slow: added each way.")] = 200.0,
    kbit: Annotated[float, typer.Option("--kbit", min=1, help="slow: kbit/s each way.")] = 256.0,
) -> None:
    """Cut, slow or heal a node's link to the cloud."""
    modes: dict[str, links.Mode] = {"cut": "cut", "slow": "slow", "heal": "up"}
    system = System.load(options_of(ctx).state)
    if action == "list":
        command: dict[str, object] = {"do": "list"}
    elif action not in modes:
        raise UserError(f"{action!r} is no action", where="ACTION", mend="Use cut, slow, heal or list")
    elif not node:
        raise UserError("name the node", where="NODE", mend=f"The nodes are: {', '.join(system.nodes)}")
    else:
        quality = {"mode": modes[action], "delay_s": delay_ms / 1e3, "bytes_per_s": kbit * 125}
        command = {"do": "set", "node": node, "quality": quality}
    for found in links.ask(system.control, command):
        if action == "list" or found["node"] == node:
            sys.stdout.write(f"{found['node']}\t{found['mode']}\t{found['up']} B up\t{found['down']} B down\n")
