# SPDX-License-Identifier: Apache-2.0
"""Sums over a dataset: of one file, and of all; small enough to keep for each of many files."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from msgspec import Struct, field

from nereid_shared.datasets.source import shown
from nereid_shared.defaults import MAX_CLASSES, MAX_PROBLEMS
from nereid_shared.messages import DatasetStatistics

if TYPE_CHECKING:
    from nereid_shared.datasets.sample import Sample

MAX_TOLD_APART: Final = 10_000
"""Classes that are counted; a column with more has no classes, and the memory is bounded."""
MAX_NAME: Final = 128
MAX_PROBLEM: Final = 300
_MODULUS: Final = 1 << 256


class Part(Struct, kw_only=True, omit_defaults=True):
    """What one file holds.

    Attributes:
        digest: sha256 of its content, in hex.
        shared: the state of the file that all samples need, when this one was read.
        picture: the picture's path, where the file is one sample; as the disk has it, which may be no text.
    """

    samples: int = 0
    labelled: int = 0
    boxes: int = 0
    malformed: int = 0
    classes: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    digest: str = ""
    shared: str = ""
    picture: bytes = b""

    def count(self, name: str, times: int = 1) -> None:
        """Count a class."""
        name = shown(name)
        if name in self.classes or len(self.classes) < MAX_TOLD_APART:
            self.classes[name] = self.classes.get(name, 0) + times

    def count_all(self, names: Mapping[str, int]) -> None:
        """Count classes."""
        for name, times in names.items():
            self.count(name, times)

    def complain(self, problem: str) -> None:
        """Count a sample that is none."""
        self.malformed += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(shown(problem))

    def add(self, sample: "Sample", *, where: str) -> None:
        """Count a sample of the file `where`."""
        self.samples += 1
        if sample.problem:
            self.complain(f"{where}:{sample.line}: {sample.problem}" if sample.line else f"{where}: {sample.problem}")
        if sample.label:
            self.count(sample.label)
        for box in sample.boxes:
            self.count(box.label)
        self.boxes += len(sample.boxes)
        self.labelled += bool(sample.label or sample.boxes)


def part_of(samples: "Iterable[Sample]", *, where: str) -> Part:
    """Return the sums over a file's samples."""
    part = Part()
    for sample in samples:
        part.add(sample, where=where)
    return part


class Looks(Struct, kw_only=True):
    """What was seen of pictures.

    Attributes:
        looked: how many were looked at; `missing` and `corrupt` are among them.
        folders: where they lie, or should lie.
    """

    looked: int = 0
    missing: int = 0
    corrupt: int = 0
    widths: tuple[int, int] = (0, 0)
    heights: tuple[int, int] = (0, 0)
    problems: list[str] = field(default_factory=list)
    folders: set[str] = field(default_factory=set)

    def saw(self, width: int, height: int) -> None:
        """Take in a whole picture's size."""
        self.widths, self.heights = _wider(self.widths, width), _wider(self.heights, height)

    def complain(self, problem: str) -> None:
        """Note a problem."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(shown(problem))


def _wider(span: tuple[int, int], value: int) -> tuple[int, int]:
    least, most = span
    return (min(least, value), max(most, value)) if most else (value, value)


class Tally:
    """The sums over all files, in any order."""

    def __init__(self) -> None:
        self.samples = 0
        self.changed_ns = 0
        self._whole = Part()
        self._files = self._bytes = 0
        self._digest = 0

    def add(self, part: Part) -> None:
        """Take in what a file holds."""
        whole = self._whole
        self.samples += part.samples
        whole.labelled += part.labelled
        whole.boxes += part.boxes
        whole.malformed += part.malformed
        whole.count_all(part.classes)
        whole.problems = (whole.problems + part.problems)[:MAX_PROBLEMS]

    def add_file(self, name: str, stamp: tuple[int, int], *, content: str = "") -> None:
        """Take in a file itself.

        Args:
            name: relative to the dataset's folder.
            stamp: when it last changed, in nanoseconds since the epoch, and its size in bytes.
            content: its sha256 in hex; "" where its size has to do for that.
        """
        changed_ns, size = stamp
        self._files += 1
        self._bytes += size
        self.changed_ns = max(self.changed_ns, changed_ns)
        line = f"{name}\0{content or size}".encode(errors="surrogateescape")
        # A sum does not ask for the files in order, nor for all their names in memory.
        self._digest = (self._digest + int.from_bytes(hashlib.sha256(line).digest())) % _MODULUS

    def statistics(self, looks: Looks) -> DatasetStatistics:
        """Return the sums as a status has them."""
        whole = self._whole
        frequent = sorted(whole.classes.items(), key=lambda one: (-one[1], one[0]))[:MAX_CLASSES]
        return DatasetStatistics(
            files=self._files,
            bytes=self._bytes,
            labelled=whole.labelled,
            boxes=whole.boxes,
            malformed=whole.malformed,
            classes={name[:MAX_NAME]: count for name, count in frequent},
            number_of_classes=len(whole.classes),
            looked=looks.looked,
            missing=looks.missing,
            corrupt=looks.corrupt,
            min_width=looks.widths[0],
            max_width=looks.widths[1],
            min_height=looks.heights[0],
            max_height=looks.heights[1],
            digest=f"sha256:{self._digest:064x}" if self._files else "",
            problems=[problem[:MAX_PROBLEM] for problem in (whole.problems + looks.problems)[:MAX_PROBLEMS]],
        )
