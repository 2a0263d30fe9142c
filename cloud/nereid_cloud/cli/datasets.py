# SPDX-License-Identifier: Apache-2.0
"""``nereid datasets``: what a dataset on this machine holds, what is wrong with it, and the same in another format.

The readers are the LocalController's and the workers': what is said here is what a Dataset's status will say.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from nereid_cloud.cli.problems import note
from nereid_cloud.datasets.conversion import convert
from nereid_cloud.datasets.validation import problems_of
from nereid_cloud.datasets.writers import WRITERS
from nereid_shared.datasets import Dataset, Reading, read
from nereid_shared.datasets.formats import guess
from nereid_shared.defaults import DATASET_FORMATS
from nereid_shared.errors import UserError

WIDE: Final = 240
"""Columns of a table that goes into a file or a pipe: nothing of it is cut."""

Paths = Annotated[list[Path], typer.Argument(help="Index files or folders on this machine.")]
Format = Annotated[str, typer.Option("--format", "-f", help=f"{'|'.join(DATASET_FORMATS)}; else by the looks.")]
Output = Annotated[str, typer.Option("-o", "--output", help="table|json")]

datasets = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Count, check and convert datasets on this machine."
)


@datasets.command()
def stats(paths: Paths, form: Format = "", output: Output = "table") -> None:
    """Print how many samples, classes and boxes there are, and which files are missing or corrupt."""
    _check_output(output)
    found: list[tuple[Dataset, Reading]] = []
    for dataset in [_opened(path, form) for path in paths]:
        with _progress(dataset) as progress:
            found.append((dataset, read(dataset, progress=progress)))
    if output == "json":
        _print_json([_summary(dataset, reading) for dataset, reading in found])
        return
    console = _console()
    table = _table(
        "PATH", "FORMAT", "SAMPLES", "LABELLED", "BOXES", "CLASSES", "MALFORMED", "MISSING", "CORRUPT", "SIZES"
    )
    for dataset, reading in found:
        said = reading.statistics
        table.add_row(
            escape(str(dataset.path)), dataset.format,
            *(str(n) for n in (reading.samples, said.labelled, said.boxes, said.number_of_classes, said.malformed,
                               said.missing, said.corrupt)),
            _sizes(reading),
        )  # fmt: skip
    console.print(table)
    for dataset, reading in found:
        if reading.statistics.classes:
            console.print(_classes(dataset, reading))
        for problem in reading.statistics.problems:
            note(f"{dataset.path}: {problem}")


@datasets.command()
def validate(
    paths: Paths,
    form: Format = "",
    output: Output = "table",
    limit: Annotated[int, typer.Option("--limit", min=1, help="Problems that are named, of each dataset.")] = 100,
) -> None:
    """Name each row, annotation and picture that is wrong; exit code 2 where there is one."""
    _check_output(output)
    rows, total = [], 0
    for dataset in [_opened(path, form) for path in paths]:
        with _progress(dataset) as progress:
            problems = problems_of(dataset, progress=progress)
            found = list(islice(problems, limit))
            more = sum(1 for _ in problems)
        total += len(found) + more
        rows.append({"path": str(dataset.path), "format": dataset.format, "problems": found, "more": more})
        if output == "table":
            sys.stdout.writelines(f"{problem}\n" for problem in found)
            if more:
                sys.stdout.write(f"{dataset.path}: {more} more. Give a larger --limit to see them.\n")
            if not found:
                sys.stdout.write(f"{dataset.path}: {dataset.format}, no problem found\n")
    if output == "json":
        _print_json(rows)
    if total:
        raise UserError(f"{total} problem{'s' * (total > 1)} found", mend="Mend what is named.")


@datasets.command(name="convert")
def convert_(
    paths: Paths,
    to: Annotated[str, typer.Option("--to", help="|".join(WRITERS))],
    out: Annotated[Path, typer.Option("--out", help="New folder; of several datasets, each goes into one in it.")],
    form: Format = "",
    lossy: Annotated[
        bool, typer.Option("--lossy/--no-lossy", help="Leave out broken samples, and what the format has no place for.")
    ] = False,
) -> None:
    """Write datasets in another format; pictures are linked where the disk allows it, else copied."""
    opened = [_opened(path, form) for path in paths]
    for dataset in opened:
        target = out if len(opened) == 1 else out / dataset.path.stem
        with _progress(dataset, counts=True) as progress:
            done = convert(dataset, to, target.absolute(), is_lossy=lossy, progress=progress)
        sys.stdout.write(f"{target}: {to}, {done.samples} samples\n")
        for what, count in done.left_out.items():
            note(f"left out: {count} {what}")


def _opened(path: Path, form: str) -> Dataset:
    absolute = path.expanduser().absolute()
    if not absolute.exists():
        raise UserError("there is no such file or folder", where=str(path), mend="Mend the path.")
    return Dataset(str(absolute), form or guess(absolute))


def _check_output(output: str) -> None:
    if output not in {"table", "json"}:
        raise UserError(f"there is no output {output!r}", where="-o", mend="Use table or json")


@contextmanager
def _progress(dataset: Dataset, *, counts: bool = False) -> Iterator[Callable[[int], None] | None]:
    """Show on stderr how far a reading is, if anybody looks."""
    if not sys.stderr.isatty():
        yield None
        return
    total = None if counts or dataset.listed is None else sum(index.stat().st_size for index in dataset.indices())
    columns = [TextColumn("{task.completed} samples")] if counts else [DownloadColumn(), TransferSpeedColumn()]
    with Progress(
        TextColumn("{task.description}"), BarColumn(), *columns, console=Console(stderr=True), transient=True
    ) as shown:
        task = shown.add_task(escape(dataset.path.name), total=total)
        if counts:
            yield lambda done: shown.update(task, completed=done)
        else:
            yield lambda read_bytes: shown.advance(task, read_bytes)


def _summary(dataset: Dataset, reading: Reading) -> dict[str, Any]:
    said: dict[str, Any] = msgspec.to_builtins(reading.statistics)
    del said["schema"]
    return {"path": str(dataset.path), "format": dataset.format, "numberOfSamples": reading.samples, "statistics": said}


def _sizes(reading: Reading) -> str:
    said = reading.statistics
    if not said.max_width:
        return ""
    least, most = f"{said.min_width}x{said.min_height}", f"{said.max_width}x{said.max_height}"
    return least if least == most else f"{least} to {most}"


def _classes(dataset: Dataset, reading: Reading) -> Table:
    table = _table(f"CLASS ({escape(dataset.path.name)})", "COUNT")
    for name, count in reading.statistics.classes.items():
        table.add_row(escape(name), str(count))
    if (hidden := reading.statistics.number_of_classes - len(reading.statistics.classes)) > 0:
        table.add_row(f"… and {hidden} more", "")
    return table


def _table(*headings: str) -> Table:
    table = Table(*headings, box=box.SIMPLE_HEAD if sys.stdout.isatty() else None, pad_edge=False, padding=(0, 3, 0, 0))
    for column in table.columns[1:]:
        column.no_wrap = True
    return table


def _console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=4, ensure_ascii=False) + "\n")
