# SPDX-License-Identifier: Apache-2.0
"""The live picture: a row per node as its worker logs it, and below what the resource's status says of them all."""

from collections.abc import Iterable
from statistics import median
from typing import Final

from rich.table import Table

from nereid_cloud.demo import report
from nereid_cloud.demo.evaluation import Said
from nereid_cloud.demo.view import View

COLUMNS: Final = (
    "node", "link", "frames/s", "seen", "hard", "answered", "changed", "queued", "degraded", "corrected",
    "edge p50", "cloud p50", "up", "down",
)  # fmt: skip
NARROW: Final = frozenset({"seen", "changed", "degraded", "corrected", "cloud p50", "up", "down"})
"""Columns that go first where the terminal is narrower than `WIDE`."""

WIDE: Final = 140
RECENT: Final = 100
"""Latencies are those of so many last samples, so that a cut shows."""

_WHOLE: Final = 10.0
"""Frames a second from which on tenths say nothing."""

_LINK_STYLE: Final = {"up": "green", "slow": "yellow", "cut": "bold red"}


class LiveTable:
    """Makes tables of successive views; rates are those since the view before."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[float, int]] = {}
        self._rates: dict[str, float] = {}

    def of(self, view: View, *, width: int) -> Table:
        """Return the table of a view, for a terminal so many characters wide."""
        table = Table(title=view.note, title_justify="left", caption=_status_line(view), caption_justify="left")
        shown = [name for name in COLUMNS if width >= WIDE or name not in NARROW]
        for name in shown:
            table.add_column(name, justify="left" if name in {"node", "link"} else "right", no_wrap=True)
        for node, said in view.per_node.items():
            row = dict(zip(COLUMNS, self._row(node, list(said.values()), view), strict=True))
            table.add_row(*(row[name] for name in shown))
        return table

    def _row(self, node: str, said: list[Said], view: View) -> Iterable[str]:
        link = view.links.get(node, {"mode": "", "up": 0, "down": 0})
        hard = [one for one in said if one.is_hard]
        answered = [one for one in hard if one.is_answered]
        yield node
        yield f"[{_LINK_STYLE.get(link['mode'], '')}]{link['mode']}[/]" if link["mode"] else ""
        rate = self._rate(node, len(said), view.at_s)
        yield f"{rate:.{0 if rate >= _WHOLE else 1}f}"
        yield str(len(said))
        yield str(len(hard))
        yield str(len(answered))
        yield str(sum(one.final != one.edge for one in answered))
        yield str(len(hard) - len(answered))
        yield str(sum(one.degraded for one in said))
        yield str(sum(one.corrected for one in said))
        yield _ms([one.edge_ms for one in said[-RECENT:]])
        yield _ms([one.cloud_ms for one in answered[-RECENT:] if one.cloud_ms is not None])
        yield f"{link['up'] / 1e3:,.0f} kB"
        yield f"{link['down'] / 1e3:,.0f} kB"

    def _rate(self, node: str, seen: int, at_s: float) -> float:
        then, before = self._before.get(node, (at_s, seen))
        if at_s - then >= 1.0 or node not in self._before:
            self._before[node] = at_s, seen
            self._rates[node] = (seen - before) / max(at_s - then, 1e-9)
        return self._rates.get(node, 0.0)


def _ms(values: list[float]) -> str:
    return f"{median(values):.1f} ms" if values else "-"


def _status_line(view: View) -> str:
    ledger = report.ledger_of(view.service)
    conditions = view.service.get("status", {}).get("conditions", [])
    return (
        f"status: {conditions[-1]['type'] if conditions else '-'}, seen {ledger['seen']}, hard {ledger['hard']}, "
        f"sent {ledger['sent']}, answered {ledger['answered']}, changed {ledger['changed']}, queued {ledger['pending']}"
    )
