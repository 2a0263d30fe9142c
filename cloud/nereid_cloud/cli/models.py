# SPDX-License-Identifier: Apache-2.0
"""``nereid models``: which of the Models fits, and is the best by a figure."""

import json
import sys
from collections.abc import Callable
from typing import Annotated, Final

import typer

from nereid_cloud.cli.options import cluster_of
from nereid_cloud.cli.problems import FAILED, note
from nereid_cloud.cli.tables import table
from nereid_cloud.cli.targets import DEFAULT_NAMESPACE
from nereid_cloud.cluster.kinds import MODEL
from nereid_cloud.cluster.port import Object
from nereid_cloud.evaluation import metrics_of
from nereid_shared.errors import UserError

LESS_IS_BETTER: Final = ("latencyP50Ms", "latencyP99Ms", "sizeBytes")
SHOWN: Final = ("accuracy", "f1", "latencyP50Ms", "sizeBytes")
MEASURED: Final = ("accuracy", "precision", "recall", "f1", *LESS_IS_BETTER)

models = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Find Models by what they are for and worth.")


@models.callback()
def _models() -> None:
    """Find Models by what they are for and worth."""


@models.command()
def select(
    ctx: typer.Context,
    best: Annotated[str, typer.Option("--best", help="The metric that orders them, the best first.")] = "accuracy",
    task: Annotated[str, typer.Option("--task", help="What it is for, as spec.task says.")] = "",
    classes: Annotated[
        list[str] | None, typer.Option("--class", help="A class that it tells apart; repeat it.")
    ] = None,
    labels: Annotated[str, typer.Option("-l", "--selector", help="Labels of the Models.")] = "",
    namespace: Annotated[str, typer.Option("-n", "--namespace", help="Namespace.")] = DEFAULT_NAMESPACE,
    output: Annotated[str, typer.Option("-o", "--output", help="table|name|json")] = "table",
) -> None:
    """List the Models that fit, best first; exit code 1 where there is none. What was not measured is not listed."""
    if output not in {"table", "name", "json"}:
        raise UserError(f"{output!r} is no output", where="-o", mend="Use table, name or json")
    found = [
        obj
        for obj in cluster_of(ctx).list(MODEL, namespace=namespace, labels=labels).items
        if (not task or obj["spec"].get("task") == task) and {*(classes or ())} <= {*(obj["spec"].get("labels") or ())}
    ]
    measured = [(figure, obj) for obj in found if (figure := _figure(obj, best)) is not None]
    measured.sort(key=lambda one: one[0], reverse=best not in LESS_IS_BETTER)
    if left_out := len(found) - len(measured):
        known = sorted({key for obj in found for key in metrics_of(obj)})
        others = f"; there are {', '.join(known)}" if known else ""
        note(f"{left_out} more fit and have no figure {best!r}: nereid evaluate measures {', '.join(MEASURED)}{others}")
    if not measured:
        if not found:
            note("no Model fits: --task and --class go by spec.task and spec.labels, -l by metadata.labels")
        raise typer.Exit(FAILED)
    _PRINTERS[output]([obj for _, obj in measured], best)


def _figure(obj: Object, key: str) -> float | None:
    try:
        return float(metrics_of(obj)[key])
    except (KeyError, ValueError):
        return None


def _print_table(found: list[Object], best: str) -> None:
    columns = [best, *(name for name in SHOWN if name != best)]
    rows = [[obj["metadata"]["name"], *(metrics_of(obj).get(name, "-") for name in columns)] for obj in found]
    sys.stdout.writelines(f"{line}\n" for line in table(["NAME", *(name.upper() for name in columns)], rows))


def _print_names(found: list[Object], _: str) -> None:
    sys.stdout.writelines(f"{obj['metadata']['name']}\n" for obj in found)


def _print_json(found: list[Object], _: str) -> None:
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


_PRINTERS: Final[dict[str, Callable[[list[Object], str], None]]] = {
    "table": _print_table, "name": _print_names, "json": _print_json,
}  # fmt: skip
