# SPDX-License-Identifier: Apache-2.0
"""``nereid demo``: a whole system on this machine, real digits, and what came of them."""

import asyncio
import contextlib
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from enum import StrEnum
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from nereid_cloud.cli.options import options_of
from nereid_cloud.cli.up import Nodes, progress_to
from nereid_cloud.demo import report, serving, serving_report, story
from nereid_cloud.demo.live import LiveTable
from nereid_cloud.laptop.system import System
from nereid_shared.errors import NereidError, UserError

INTERRUPTED: Final = 130
NEEDED: Final = {"ai_edge_litert": "worker", "numpy": "worker", "cv2": "vision"}
NEEDED_TO_SERVE: Final = {**NEEDED, "aiohttp": "serving", "prometheus_client": "serving"}

T = TypeVar("T")


class Which(StrEnum):
    """The demos."""

    JOINT = "joint"
    SERVING = "serving"


def demo(
    ctx: typer.Context,
    which: Annotated[
        Which,
        typer.Argument(help="joint: two models share the samples; serving: one in versions, asked all the while."),
    ] = Which.JOINT,
    samples: Annotated[
        int | None,
        typer.Option("--samples", min=1, help="How many pictures, all if not given; serving: requests at each step."),
    ] = None,
    nodes: Nodes = 1,
    seed: Annotated[int, typer.Option("--seed", help="joint: which pictures, in which order.")] = 0,
    no_cut: Annotated[bool, typer.Option("--no-cut", help="joint: leave the link alone.")] = False,
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
    _check_extras(NEEDED if which is Which.JOINT else NEEDED_TO_SERVE)
    with _folder(ctx, keep=keep) as state:
        if which is Which.JOINT:
            cut = not no_cut
            problems = _joint(
                story.Options(state=state, nodes=nodes, samples=samples, seed=seed, cut=cut, base_port=base_port),
                as_json=as_json,
            )
        else:
            requests = samples or serving.REQUESTS
            problems = _serving(
                serving.Options(state=state, nodes=nodes, requests=requests, base_port=base_port), as_json=as_json
            )
    if problems:
        raise NereidError("it is not as it should be: " + "; ".join(problems))


def _joint(options: story.Options, *, as_json: bool) -> list[str]:
    table = LiveTable()
    outcome = _played(partial(story.play, options), lambda view, width: table.of(view, width=width))
    if as_json:
        _write(report.as_object(outcome.ledger, outcome.accuracy, outcome.service))
    else:
        report.show(Console(), outcome.ledger, outcome.accuracy)
    return outcome.problems


def _serving(options: serving.Options, *, as_json: bool) -> list[str]:
    outcome = _played(partial(serving.play, options), lambda view, _: serving_report.live(view))
    if as_json:
        _write(serving_report.as_object(outcome))
    else:
        serving_report.show(Console(), outcome)
    return outcome.problems


def _write(body: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(body, indent=1) + "\n")


def _check_extras(needed: dict[str, str]) -> None:
    """Refuse before anything starts where the workers' libraries are missing."""
    if missing := [name for name in needed if find_spec(name) is None]:
        extras = ",".join(sorted({needed[name] for name in missing}))
        raise UserError(f"not installed: {', '.join(missing)}", mend=f"pip install 'nereid-ai[{extras}]'")


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


def _played(play: Callable[..., Coroutine[Any, Any, T]], picture: Callable[[Any, int], Table]) -> T:
    """Play a demo with its progress on standard error: a live picture on a terminal, else lines."""
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

        def on_frame(view: Any) -> None:
            if live is not None:
                live.update(picture(view, console.width))

        def tell(line: str) -> None:
            if live is None:
                progress(line)

        return runner.run(_interruptible(play(progress=tell, on_up=on_up, on_frame=on_frame)))


async def _interruptible(course: Coroutine[Any, Any, T]) -> T:
    """Let SIGTERM, and a terminal that is closed, end the demo as Ctrl-C does: with everything taken down."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine that runs has one
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        return await course
    except asyncio.CancelledError:
        sys.stderr.write("interrupted; everything is down\n")
        raise typer.Exit(INTERRUPTED) from None
