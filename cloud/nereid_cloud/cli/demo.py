# SPDX-License-Identifier: Apache-2.0
"""``nereid demo``: a whole system, real digits, a link that breaks and heals, and the ledger."""

import asyncio
import contextlib
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.live import Live

from nereid_cloud.cli.options import options_of
from nereid_cloud.cli.up import Nodes, progress_to
from nereid_cloud.demo import report
from nereid_cloud.demo.live import LiveTable
from nereid_cloud.demo.story import Options, Outcome, play
from nereid_cloud.demo.view import View
from nereid_cloud.laptop.system import System
from nereid_shared.errors import NereidError, UserError

INTERRUPTED: Final = 130


def demo(
    ctx: typer.Context,
    samples: Annotated[
        int | None, typer.Option("--samples", min=1, help="How many pictures; all if not given.")
    ] = None,
    nodes: Nodes = 1,
    seed: Annotated[int, typer.Option("--seed", help="Which pictures, in which order.")] = 0,
    no_cut: Annotated[bool, typer.Option("--no-cut", help="Leave the link alone.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the state folder, with logs and answers.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
    base_port: Annotated[
        int | None,
        typer.Option(
            "--base-port", min=0, max=65000, help="The cloud broker's port, the nodes' follow; else free ones."
        ),
    ] = None,
) -> None:
    """Run handwritten digits through an edge and a cloud on this machine, and show what came of it."""
    _check_extras()
    with _folder(ctx, keep=keep) as state:
        options = Options(state=state, nodes=nodes, samples=samples, seed=seed, cut=not no_cut, base_port=base_port)
        outcome = _play(options)
    if as_json:
        body = report.as_object(outcome.ledger, outcome.accuracy, outcome.service)
        sys.stdout.write(json.dumps(body, indent=1) + "\n")
    else:
        report.show(Console(), outcome.ledger, outcome.accuracy)
    if outcome.problems:
        raise NereidError("the counts do not add up: " + "; ".join(outcome.problems))


def _check_extras() -> None:
    """Refuse before anything starts where the workers' libraries are missing."""
    if missing := [name for name in ("ai_edge_litert", "cv2", "numpy") if find_spec(name) is None]:
        raise UserError(f"not installed: {', '.join(missing)}", mend="pip install 'nereid-ai[worker,vision]'")


@contextlib.contextmanager
def _folder(ctx: typer.Context, *, keep: bool) -> Iterator[Path]:
    """Give a fresh state folder: the user's own if there is nothing in it, else one that goes afterwards."""
    root = ctx.find_root()
    source = root.get_parameter_source("state")
    given = source is not None and source.name == "COMMANDLINE"
    folder = options_of(ctx).state if given else Path(tempfile.mkdtemp(prefix="nereid-demo-"))
    if given and folder.exists() and any(folder.iterdir()):
        raise UserError("the demo wants a fresh state folder", where=str(folder), mend="Name one that is empty or new")
    try:
        yield folder
    finally:
        if keep:
            sys.stderr.write(f"kept: {folder}\n")
        elif not given:
            shutil.rmtree(folder, ignore_errors=True)


def _play(options: Options) -> Outcome:
    terminal = sys.stderr.isatty()
    console = Console(stderr=True)
    progress = progress_to(sys.stderr.write, terminal=terminal)
    with contextlib.ExitStack() as stack, asyncio.Runner() as runner:
        live: Live | None = None

        def on_up(system: System) -> None:
            nonlocal live
            if terminal:
                lines = ["Watch it in another terminal:", *system.watch_lines()]
                console.print(*lines, sep="\n  ", highlight=False, soft_wrap=True)
                live = stack.enter_context(Live(console=console, transient=False))

        table = LiveTable()

        def on_frame(view: View) -> None:
            if live is not None:
                live.update(table.of(view, width=console.width))

        def tell(line: str) -> None:
            if live is None:
                progress(line)

        return runner.run(_interruptible(options, tell, on_up, on_frame))


async def _interruptible(options: Options, *callbacks: object) -> Outcome:
    """Let SIGTERM, and a terminal that is closed, end the demo as Ctrl-C does: with everything taken down."""
    progress, on_up, on_frame = callbacks
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine that runs has one
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        return await play(options, progress=progress, on_up=on_up, on_frame=on_frame)  # type: ignore[arg-type]
    except asyncio.CancelledError:
        sys.stderr.write("interrupted; everything is down\n")
        raise typer.Exit(INTERRUPTED) from None
