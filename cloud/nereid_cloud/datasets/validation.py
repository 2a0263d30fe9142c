# SPDX-License-Identifier: Apache-2.0
"""Every problem of a dataset, each as a line that names the file, the place in it, and what to do."""

import os
from collections.abc import Callable, Iterator
from typing import Final

from nereid_shared.datasets import Dataset, Sample
from nereid_shared.datasets.pictures import measured
from nereid_shared.datasets.sample import Found, Listed
from nereid_shared.datasets.source import shown
from nereid_shared.datasets.summing import seems_of_pictures
from nereid_shared.errors import UserError

TOLERANCE: Final = 1.0
"""Pixels by which a box may leave its picture: annotations are rounded."""


def problems_of(dataset: Dataset, *, progress: Callable[[int], None] | None = None) -> Iterator[str]:
    """Yield a dataset's problems, in the order of its samples.

    Args:
        dataset: what is read.
        progress: called with bytes as they are read.
    """
    try:
        checker = _Checker(dataset)
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
        self._names_pictures = dataset.found is not None or (dataset.has_pictures and seems_of_pictures(dataset))

    def check(self, sample: Sample, where: str) -> Iterator[str]:
        """Yield what is wrong with a sample of the file `where`."""
        place = shown(str(self._dataset.root / where)) + (f":{sample.line}" if sample.line else "")
        if sample.problem:
            yield f"{place}: {shown(sample.problem)}. Mend it, or take it out."
        elif sample.name and self._names_pictures:
            yield from (f"{place}: {problem}" for problem in self._of_picture(sample))

    def _of_picture(self, sample: Sample) -> Iterator[str]:
        name, picture = shown(sample.name), self._dataset.root / sample.name
        try:
            if not os.path.realpath(picture).startswith(self._inside):
                yield f"{name} lies outside of the dataset's folder. Move it into the folder."
                return
            size = measured(picture)
        except (OSError, ValueError) as error:  # a name with a NUL is a ValueError
            yield f"{name} is missing: {error.strerror if isinstance(error, OSError) else error}. Put it there."
            return
        if size is None:
            yield f"{name} is no whole JPEG or PNG file. Write it again."
            return
        for number, box in enumerate(sample.boxes, 1):
            right, bottom = box.left + box.width, box.top + box.height
            if min(box.left, box.top) < -TOLERANCE or right > size[0] + TOLERANCE or bottom > size[1] + TOLERANCE:
                yield f"box {number} ({box.label}) of {name} leaves its {size[0]}x{size[1]} pixels. Mend its corners."
