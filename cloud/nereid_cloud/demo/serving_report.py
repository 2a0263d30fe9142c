# SPDX-License-Identifier: Apache-2.0
"""The serving demo's figures, as one object, as a live picture and as a table at the end."""

from collections import Counter
from typing import Any

from rich.console import Console
from rich.table import Table

from nereid_cloud.cluster.readiness import condition_of
from nereid_cloud.demo.serving import Outcome, View
from nereid_cloud.demo.traffic import Tally

_FIGURES = ("requests", "failed", "wrong", "p50_ms", "p99_ms")


def as_object(outcome: Outcome) -> dict[str, Any]:
    """Return what ``--json`` prints: the figures over all places, and those of each."""
    tallies = outcome.view.tallies
    every = Tally(
        versions=sum((one.versions for one in tallies.values()), Counter()),
        failed=sum(one.failed for one in tallies.values()),
        wrong=sum(one.wrong for one in tallies.values()),
        latencies_s=[latency for one in tallies.values() for latency in one.latencies_s],
    )
    return {
        **_figures(every),
        "rollbacks": [{"place": one.place, "version": one.version, "reason": one.reason} for one in outcome.rollbacks],
        "places": {place: _figures(one) for place, one in tallies.items()},
        "models": outcome.view.models,
    }


def live(view: View) -> Table:
    """Return the picture of one look."""
    table = Table(title=view.note, title_justify="left")
    for head in ("model", "wanted", "serves", "ready", *_FIGURES):
        table.add_column(head, justify="right" if head in _FIGURES else "left", no_wrap=True)
    for place, model in view.models.items():
        status, figures = model.get("status") or {}, _figures(view.tallies.get(place, Tally()))
        ready = condition_of(model, "Ready")
        table.add_row(
            model["metadata"]["name"], model["spec"]["targetVersion"], status.get("servingVersion", ""),
            ready.get("reason", ""), *(_text(figures[name]) for name in _FIGURES),
        )  # fmt: skip
    return table


def show(console: Console, outcome: Outcome) -> None:
    """Print what became of the requests, and of the versions."""
    said = as_object(outcome)
    table = Table(title="Requests", title_justify="left")
    places = {"all": said, **said["places"]}
    for head in ("", *places):
        table.add_column(head, justify="right" if head else "left")
    for name in _FIGURES:
        table.add_row(name, *(_text(figures[name]) for figures in places.values()))
    for version in said["versions"]:
        counts = (str(figures["versions"].get(version, 0)) for figures in places.values())
        table.add_row(f"answered by version {version}", *counts)
    console.print(table)
    for one in said["rollbacks"]:
        console.print(f"{one['place']}: version {one['version']} never served: {one['reason']}", highlight=False)


def _figures(tally: Tally) -> dict[str, Any]:
    return {
        "requests": tally.requests, "failed": tally.failed, "wrong": tally.wrong,
        "versions": dict(sorted(tally.versions.items())),
        "p50_ms": tally.percentile_ms(0.5), "p99_ms": tally.percentile_ms(0.99),
    }  # fmt: skip


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.2f}"
