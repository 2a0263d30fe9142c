# SPDX-License-Identifier: Apache-2.0
"""Every problem of a dataset, each as a line that names the file, the place in it, and what to do."""

import os
from collections.abc import Callable, Iterator
from typing import Final

from nereid_shared.datasets import Dataset, Sample
from nereid_shared.datasets.pictures import is_picture, measured
from nereid_shared.datasets.sample import Found, Listed
from nereid_shared.errors import UserError

TOLERANCE: Final = 1.0
"""Pixels by which a box may leave its picture: annotations are rounded."""


def problems_of(dataset: Dataset, *, progress: Callable[[int], None] | None = None) -> Iterator[str]:
    """Yield a dataset's problems, in the order of its samples.

    Args:
        dataset: what is read.
        progress: called with bytes as they are read.
    """
    checker = _Checker(dataset)
    try:
        if dataset.found is not None:
            yield from _in_found(dataset, dataset.found, checker)
        if dataset.listed is not None:
            yield from _in_listed(dataset, dataset.listed, checker, progress)
    except UserError as error:
        yield str(error)
    except OSError as error:
        yield f"{error.filename or dataset.path}: {error.strerror}. Look at the path and its rights."


def _in_listed(
    dataset: Dataset, listed: Listed, checker: "_Checker", progress: Callable[[int], None] | None
) -> Iterator[str]:
    for index in dataset.indices():
        where = index.relative_to(dataset.root).as_posix()
        with dataset.open(index, progress=progress) as source:
            for sample in listed.samples(source, dataset.root, whole=dataset.has_pictures):
                yield from checker.check(sample, where)


def _in_found(dataset: Dataset, found: Found, checker: "_Checker") -> Iterator[str]:
    for name in sorted(name for name, _ in dataset.entries()):
        try:
            sample = found.sample(dataset.root, name, whole=True)
        except OSError as error:
            sample = Sample(name=name, problem=error.strerror or "it cannot be read")
        yield from checker.check(sample, found.annotation(dataset.root, name) or name)


class _Checker:
    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._inside = os.path.realpath(dataset.root) + os.sep

    def check(self, sample: Sample, where: str) -> Iterator[str]:
        """Yield what is wrong with a sample of the file `where`."""
        place = f"{self._dataset.root / where}:{sample.line}" if sample.line else str(self._dataset.root / where)
        if sample.problem:
            yield f"{place}: {sample.problem}. Mend it, or take it out."
            return
        if not self._dataset.has_pictures or not is_picture(sample.name):
            return
        picture = self._dataset.root / sample.name
        if not os.path.realpath(picture).startswith(self._inside):
            yield f"{place}: {sample.name} lies outside of the dataset's folder. Move it into the folder."
            return
        try:
            size = measured(picture)
        except (OSError, ValueError) as error:  # a name with a NUL is a ValueError
            why = error.strerror if isinstance(error, OSError) else error
            yield f"{place}: {sample.name} is missing: {why}. Put it there, or take it out."
            return
        if size is None:
            yield f"{place}: {sample.name} is no whole JPEG or PNG file. Write it again."
            return
        for number, box in enumerate(sample.boxes, 1):
            right, bottom = box.left + box.width, box.top + box.height
            if min(box.left, box.top) < -TOLERANCE or right > size[0] + TOLERANCE or bottom > size[1] + TOLERANCE:
                yield (
                    f"{place}: box {number} ({box.label}) of {sample.name} leaves the picture of {size[0]}x{size[1]}."
                    " Mend its corners."
                )
