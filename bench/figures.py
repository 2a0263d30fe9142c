# SPDX-License-Identifier: Apache-2.0
"""What a measurement yields, as a table for people and as JSON for machines."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured figure.

    Attributes:
        target: what it should be, in `unit`; None where it is for information.
        better: which side of the target is the good one.
        note: how it spread, or what it was measured against.
    """

    name: str
    value: float
    unit: str
    target: float | None = None
    better: Literal["higher", "lower"] = "higher"
    note: str = ""

    @property
    def holds(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        if self.target is None:
            return None
        return self.value >= self.target if self.better == "higher" else self.value <= self.target


def as_json(results: Mapping[str, Sequence[Figure]]) -> str:
    """Return all figures by measurement, with `holds`."""
    return json.dumps({name: [asdict(one) | {"holds": one.holds} for one in rows] for name, rows in results.items()})


def as_table(results: Mapping[str, Sequence[Figure]]) -> str:
    """Return all figures as aligned lines."""
    lines = []
    for name, rows in results.items():
        width = max((len(one.name) for one in rows), default=0)
        lines.append(f"\n{name}")
        for one in rows:
            target = "" if one.target is None else f"{'≥' if one.better == 'higher' else '≤'} {one.target:g}"
            verdict = {True: "ok", False: "MISSED", None: ""}[one.holds]
            lines.append(
                f"  {one.name:<{width}}  {one.value:>10.4g} {one.unit:<6} {target:<8} {verdict:<7} {one.note}".rstrip()
            )
    return "\n".join(lines).lstrip("\n")
