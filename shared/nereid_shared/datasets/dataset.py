# SPDX-License-Identifier: Apache-2.0
"""A dataset on this machine: its files, and its samples in their order.

The LocalController, the worker and the command read every format here, so that what is counted is what is served.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Final

from nereid_shared.datasets import formats
from nereid_shared.datasets.sample import Found, Listed, Sample
from nereid_shared.datasets.source import Source
from nereid_shared.errors import UserError
from nereid_shared.places import node_path


class Dataset:
    """A dataset. It need not be there yet.

    Args:
        url: an absolute path, or a ``file://`` URL.
        format: one of `nereid_shared.defaults.DATASET_FORMATS`.

    Attributes:
        listed: its format, where the samples stand in index files in an order of their own.
        found: its format, where they are files that have none.

    Raises:
        UserError: the URL is not a path, or the format is unknown.
    """

    def __init__(self, url: str, format: str) -> None:  # noqa: A002 - the CRD's word
        formats.check(format)
        self.path: Final = path_of(url)
        self.format: Final = format
        self.listed: Final[Listed | None] = formats.listed(format)
        self.found: Final[Found | None] = None if self.listed else formats.found(format)

    @property
    def identity(self) -> str:
        """What tells it from other datasets of this machine."""
        return f"{self.format} {self.path}"

    @property
    def root(self) -> Path:
        """The folder that names are relative to."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def has_pictures(self) -> bool:
        """Whether samples are pictures in files of their own, which a worker can read."""
        return self.listed is None or self.listed.names_pictures

    def indices(self) -> list[Path]:
        """Return the index files in their order; none where the samples are files themselves.

        Raises:
            UserError: it is a folder without one: zero samples would look like a dataset that is merely empty.
        """
        if self.listed is None or not self.path.is_dir():
            return [] if self.listed is None else [self.path]
        if found := self.listed.files(self.path):
            return found
        raise UserError(
            f"no {formats.endings(self.format)} in it; an index is needed", where=str(self.path), reason="NoIndex",
            mend="`nereid new` writes one for a folder of pictures; without any, write format: folder.",
        )  # fmt: skip

    def open(self, index: Path, *, is_hashed: bool = False, progress: Callable[[int], None] | None = None) -> Source:
        """Open an index file for one reading.

        Args:
            index: one of `indices`.
            is_hashed: whether its digest will be asked for.
            progress: called with the bytes of each read; what it raises ends the reading.
        """
        limit = None if self.listed is None else self.listed.max_line
        return Source(index, where=str(index), max_line=limit, is_hashed=is_hashed, progress=progress)

    def entries(self, *, on_folder: Callable[[str], None] | None = None) -> Iterator[tuple[str, os.stat_result]]:
        """Yield the files that are samples, by name relative to `root`, in no order: no list of them is held.

        Args:
            on_folder: called with each folder, relative to `root`, before it is read.

        Raises:
            OSError: a folder cannot be read.
        """
        if self.found is None:
            return
        if not self.path.is_dir():
            only = self.path.stat()
            if self.found.is_sample(self.path.name):
                yield self.path.name, only
                return
            if not formats.is_index(self.format, self.path.name):
                raise UserError(
                    f"it is no sample of format {self.format}", where=str(self.path), reason="DatasetInvalid",
                    mend="Name the folder.",
                )  # fmt: skip
        root, waiting = self.root, [""]
        while waiting:
            folder = waiting.pop()
            if on_folder is not None:
                on_folder(folder)
            # What vanishes while it is looked at was not there.
            with suppress(FileNotFoundError) if folder else nullcontext(), os.scandir(root / folder) as entries:
                for entry in entries:
                    name = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(name)
                    elif self.found.is_sample(entry.name) and (stat := _stat(entry)) is not None:
                        yield name, stat

    def samples(self, *, whole: bool = False) -> Iterator[Sample]:
        """Yield all samples, in the order of index files and rows, or of names.

        Args:
            whole: with labels and boxes in pixels, also where that takes time, or memory for all of them.

        Raises:
            UserError: a file is not what the format says, or there is none.
            OSError: the path, or a file, cannot be read.
        """
        if self.found is not None:
            for name in sorted(name for name, _ in self.entries()):
                yield self.found.sample(self.root, name, whole=whole)
        if self.listed is not None:
            for index in self.indices():
                with self.open(index) as source:
                    yield from self.listed.samples(source, self.root, whole=whole)

    def count(self) -> int:
        """Return the number of samples, reading no more than that takes; raises as `samples`."""
        if self.listed is None:
            return sum(1 for _ in self.entries())
        total = 0
        for index in self.indices():
            with self.open(index) as source:
                total += self.listed.count(source)
        return total


def _stat(entry: "os.DirEntry[str]") -> os.stat_result | None:
    try:
        return entry.stat() if entry.is_file() else None
    except FileNotFoundError:
        return None


def path_of(url: str) -> Path:
    """Return the path that a URL names.

    Raises:
        UserError: it is elsewhere.
    """
    path = node_path(url)
    if path is None:
        raise UserError(
            "a path on the node is needed", where=url, mend="Write an absolute path, or file:///….",
            reason="DatasetUrlUnsupported",
        )  # fmt: skip
    return Path(path)
