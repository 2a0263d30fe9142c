# SPDX-License-Identifier: Apache-2.0
"""What a dataset is made of, whatever its format."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from nereid_shared.datasets.source import Source
from nereid_shared.datasets.tally import Part


class Box(Struct, frozen=True, kw_only=True, gc=False):
    """An object in a picture: its class, and its place in pixels from the upper left corner."""

    label: str
    left: float
    top: float
    width: float
    height: float


def box(label: object, left: float, top: float, width: float, height: float) -> Box:
    """Return a box.

    Raises:
        ValueError: a side is no number, or is negative; there is no class.
    """
    if not all(map(math.isfinite, (left, top, width, height))):
        raise ValueError("the sides of a box are numbers")
    if width < 0 or height < 0:
        raise ValueError("a box ends before it begins")
    name = str(label)
    if not name:
        raise ValueError("a box without a class")
    return Box(label=name, left=left, top=top, width=width, height=height)


class Sample(Struct, frozen=True, kw_only=True):
    """One sample, as its index or annotation has it; nobody has looked at its picture.

    Attributes:
        name: the picture's path, relative to the dataset's folder; "" where there is none.
        label: the class of the whole picture or row, "" where there is none.
        boxes: objects in it.
        line: where it stands in its file, from 1 on; 0 where the whole file is the sample.
        problem: why it is none, though it counts: it is one that fails.
    """

    name: str = ""
    label: str = ""
    boxes: tuple[Box, ...] = ()
    line: int = 0
    problem: str = ""


class Listed(Protocol):
    """A format whose samples stand one after the other in index files, a folder's by name."""

    @property
    def names_pictures(self) -> bool:
        """Whether samples are pictures in files of their own, which a worker can read."""
        ...

    @property
    def max_line(self) -> int | None:
        """The longest line in such a file; None where lines mean nothing."""
        ...

    def files(self, folder: Path) -> list[Path]:
        """Return a folder's index files in their order."""
        ...

    def samples(self, source: Source, root: Path, *, whole: bool = False) -> Iterator[Sample]:
        """Yield a file's samples in order.

        Args:
            source: the file.
            root: the dataset's folder.
            whole: with labels and boxes also where that needs all annotations in memory.

        Raises:
            UserError: it cannot be such a file.
        """
        ...

    def count(self, source: Source) -> int:
        """Return the number of samples that `samples` yields, no slower than it has to be; raises as `samples`."""
        ...

    def part(self, source: Source, root: Path) -> Part:
        """Return what a file's samples are, in sums, in bounded memory; raises as `samples`."""
        ...


class Found(Protocol):
    """A format whose samples are files of their own, in a folder and the folders in it, in no order."""

    def is_sample(self, name: str) -> bool:
        """Whether a file of that name, without its folder, is a sample."""
        ...

    def annotation(self, root: Path, name: str) -> str:
        """Return the file that `sample` reads, relative to the dataset's folder; "" for none."""
        ...

    def shared(self, root: Path) -> str:
        """Return the file that all samples need, such as the classes' names, relative to the folder; "" for none."""
        ...

    def sample(self, root: Path, name: str, *, whole: bool = False) -> Sample:
        """Return a sample by its file's name; one whose annotation is broken has a `problem`.

        Args:
            root: the dataset's folder.
            name: relative to it.
            whole: with boxes in pixels also where that needs a look at the picture.
        """
        ...

    def picture(self, root: Path, name: str) -> str:
        """Return the picture's path, relative to the dataset's folder, by its sample's name."""
        ...
