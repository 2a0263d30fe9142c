# SPDX-License-Identifier: Apache-2.0
"""How good the answers were: each tier alone, and both together."""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nereid_shared.errors import NereidError


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What was answered to one picture.

    Attributes:
        edge: the little model's label; None where it failed.
        live: what the caller had at the deadline.
        final: with the correction, where one came.
        is_hard, degraded, corrected: as in the worker's log of answers.
    """

    edge: str | None
    live: str | None
    final: str | None
    is_hard: bool = False
    degraded: bool = False
    corrected: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Shares of right answers, 0..1.

    Attributes:
        gap_recovered: (joint - edge) / (cloud - edge); None where the cloud is no better than the edge.
    """

    edge: float
    cloud: float
    joint_live: float
    joint: float
    gap_recovered: float | None


def read_answers(path: Path) -> dict[str, Said]:
    """Return by picture what a worker's log of answers says, a line cut off by a kill left aside.

    A frame that came twice, because a kill caught it in flight, counts once.
    """
    edge: dict[str, dict[str, str]] = {}
    live: dict[str, dict[str, str]] = {}
    late: dict[str, dict[str, str]] = {}
    into = {"edge": edge, "answer": live, "correction": late}
    if not path.exists():
        return {}
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.endswith("\n"):
                event = json.loads(line)
                into[event["event"]][event["key"]] = event
    return {
        key: Said(
            edge=first["label"] or None,
            live=(live.get(key) or first)["label"] or None,
            final=(late.get(key) or live.get(key) or first)["label"] or None,
            is_hard=bool(first["is_hard"]),
            degraded=bool(live.get(key, {}).get("degraded")),
            corrected=key in late,
        )
        for key, first in edge.items()
    }


def ask_big_model(model: Path, pictures: Iterable[Path]) -> dict[Path, str]:
    """Return the big model's label of each picture, from the very bytes that would travel.

    Raises:
        NereidError: the model cannot be run.
    """
    names = [str(picture) for picture in pictures]
    done = subprocess.run(
        [sys.executable, "-m", "nereid_worker.predict", str(model), *names], capture_output=True, check=False, text=True
    )
    if done.returncode != 0:
        raise NereidError(f"the big model alone: {done.stderr.strip()}")
    rows = (json.loads(line) for line in done.stdout.splitlines())
    return {Path(row["path"]): row["label"] for row in rows}


def score(said: Mapping[Path, Said], cloud: Mapping[Path, str], truth: Mapping[Path, str]) -> Accuracy:
    """Return the accuracies over all pictures of `truth`; one without an answer counts as wrong."""
    count = max(1, len(truth))

    def share(right: Iterable[bool]) -> float:
        return round(sum(right) / count, 4)

    edge = share(path in said and said[path].edge == digit for path, digit in truth.items())
    joint = share(path in said and said[path].final == digit for path, digit in truth.items())
    alone = share(cloud.get(path) == digit for path, digit in truth.items())
    return Accuracy(
        edge=edge,
        cloud=alone,
        joint_live=share(path in said and said[path].live == digit for path, digit in truth.items()),
        joint=joint,
        gap_recovered=round((joint - edge) / (alone - edge), 4) if alone > edge else None,
    )
