# SPDX-License-Identifier: Apache-2.0
"""How good the answers were: each tier alone, and both together."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nereid_shared.errors import NereidError


@dataclass(slots=True, kw_only=True)
class Said:
    """What was answered to one picture.

    Attributes:
        edge: the little model's label; None where it failed.
        live: what the caller had at the deadline.
        final: with the correction, where one came.
        is_hard, degraded, corrected: as in the worker's log of answers.
        is_answered: the cloud has answered.
        edge_ms, cloud_ms: from capture to the tier's answer.
    """

    edge: str | None
    live: str | None
    final: str | None
    is_hard: bool = False
    degraded: bool = False
    corrected: bool = False
    is_answered: bool = False
    edge_ms: float = 0.0
    cloud_ms: float | None = None


class AnswerLog:
    """A worker's log of answers, read as it grows.

    A frame that came twice, because a kill caught it in flight, counts once.
    """

    def __init__(self) -> None:
        self.said: dict[str, Said] = {}
        self._file = 0
        self._read_to = 0

    def follow(self, path: Path) -> None:
        """Read what was appended; a line that is not whole yet is left for the next time.

        Where the worker has begun another file, the rest of the former one, now ``<name>.1``, comes first.
        """
        former = path.with_name(f"{path.name}.1")
        with contextlib.suppress(FileNotFoundError):
            if self._file and path.stat().st_ino != self._file and former.stat().st_ino == self._file:
                self._read(former)
        self._read(path)

    def _read(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                number = os.fstat(file.fileno()).st_ino
                if number != self._file:
                    self._file, self._read_to = number, 0
                file.seek(self._read_to)
                for line in file:
                    if not line.endswith(b"\n"):
                        return
                    self._read_to += len(line)
                    try:
                        event = json.loads(line)
                    except ValueError:
                        continue  # torn by a full disk; the worker has warned of it
                    self._take(event)
        except FileNotFoundError:
            return

    def _take(self, event: dict[str, Any]) -> None:
        label = event["label"] or None
        key = event["key"]
        if event["event"] == "edge":
            if key not in self.said:
                self.said[key] = Said(
                    edge=label, live=label, final=label, is_hard=event["is_hard"], edge_ms=event["latency_ms"]
                )
            return
        said = self.said.get(key)
        if said is None:
            return
        said.final = label
        if event["event"] == "answer":
            said.live, said.degraded = label, event["degraded"]
        else:
            said.corrected = True
        if event["cloud_label"] is not None:
            said.is_answered, said.cloud_ms = True, event["latency_ms"]


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
