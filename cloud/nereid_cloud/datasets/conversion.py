# SPDX-License-Identifier: Apache-2.0
"""Writes a dataset in another format: what its readers read is written as they would read it again.

Pictures are hard links, or copies where the disk wants that. A sample that is broken, or has what the other format has
no place for, ends the conversion, and nothing is left of it; only who asks for a lossy one has that left out, counted.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nereid_cloud.datasets.writers import WRITERS, Writer
from nereid_shared.datasets import Dataset, Sample
from nereid_shared.datasets.pictures import measured
from nereid_shared.datasets.source import shown
from nereid_shared.errors import UserError

_BROKEN: Final = "broken samples"
_BOXES: Final = "boxes"
_LABELS: Final = "classes of whole pictures"


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """What came of a conversion.

    Attributes:
        samples: how many were written.
        left_out: how many there were of what has no place in the format, by what it is.
    """

    samples: int
    left_out: Mapping[str, int]


def convert(
    dataset: Dataset, form: str, out: Path, *, is_lossy: bool = False, progress: Callable[[int], None] | None = None
) -> Converted:
    """Write a dataset into a new folder.

    Args:
        dataset: what is read.
        form: one of `WRITERS`.
        out: the folder; it must not be there yet.
        is_lossy: leave out what has no place in the format, and broken samples.
        progress: called with the number of samples so far.

    Raises:
        UserError: the format cannot be written, the folder is there already, a sample cannot be converted. Nothing
            is left then.
    """
    if form not in WRITERS:
        raise UserError(f"{form!r} is not written here", where="--to", mend=f"Use {', '.join(WRITERS)}.")
    if not dataset.has_pictures:
        raise UserError(
            f"the pictures of a {dataset.format} file stay inside of it", where=str(dataset.path),
            mend="Write them into files with the tool that made it.",
        )  # fmt: skip
    if out.exists():
        raise UserError("it is there already", where=str(out), mend="Name a new folder.")
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        with ExitStack() as stack:
            done = _Conversion(dataset, WRITERS[form](part, stack), part, is_lossy=is_lossy).run(progress)
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return done


class _Conversion:
    def __init__(self, dataset: Dataset, writer: Writer, folder: Path, *, is_lossy: bool) -> None:
        self._dataset, self._writer, self._folder, self._is_lossy = dataset, writer, folder, is_lossy
        self._inside = os.path.realpath(dataset.root) + os.sep
        self._left_out: dict[str, int] = {}
        self._placed: dict[str, str] = {}

    def run(self, progress: Callable[[int], None] | None) -> Converted:
        written = 0
        for number, sample in enumerate(self._dataset.samples(whole=True), 1):
            written += self._add(sample, number)
            if progress is not None:
                progress(number)
        self._writer.close()
        return Converted(samples=written, left_out=self._left_out)

    def _add(self, sample: Sample, number: int) -> bool:
        where = f"{self._dataset.path}: " + (
            f"line {sample.line}" if sample.line else shown(sample.name) or f"sample {number}"
        )
        picture = self._dataset.root / sample.name
        if problem := sample.problem or self._problem(sample, picture):
            self._leave_out(_BROKEN, 1, f"{problem}", where)
            return False
        size = measured(picture)
        if size is None:
            self._leave_out(_BROKEN, 1, "its picture is no whole JPEG or PNG file", where)
            return False
        if sample.boxes and not self._writer.takes_boxes:
            self._leave_out(_BOXES, len(sample.boxes), "the format has no place for boxes", where)
        if sample.label and not self._writer.takes_labels:
            self._leave_out(_LABELS, 1, "the format has no place for the class of a whole picture", where)
        name = self._writer.place(sample)
        if self._placed.setdefault(name, sample.name) != sample.name:
            raise UserError(
                f"it and {self._placed[name]} would both be {name}", where=sample.name, mend="Rename one of them."
            )
        self._put(picture, self._folder / name)
        self._writer.add(sample, name, size)
        return True

    def _problem(self, sample: Sample, picture: Path) -> str:
        if not sample.name:
            return "it names no picture"
        if shown(sample.name) != sample.name or "\0" in sample.name:
            return "its picture's name is no text"
        if not os.path.realpath(picture).startswith(self._inside):
            return "its picture lies outside of the dataset's folder"
        return "" if picture.is_file() else "its picture is missing"

    def _leave_out(self, what: str, count: int, problem: str, where: str) -> None:
        if not self._is_lossy:
            raise UserError(problem, where=where, mend="Mend it, or leave such things out with --lossy.")
        self._left_out[what] = self._left_out.get(what, 0) + count

    def _put(self, source: Path, target: Path) -> None:
        if target.exists():
            return  # named twice
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(os.path.realpath(source), target)
        except OSError:
            shutil.copy2(source, target)
