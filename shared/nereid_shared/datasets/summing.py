# SPDX-License-Identifier: Apache-2.0
"""The sums over a dataset, in bounded memory; of files that have not changed, from what was read of them before."""

import hashlib
import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from nereid_shared.datasets.dataset import Dataset
from nereid_shared.datasets.known import Known, Stamp, stamp_of
from nereid_shared.datasets.pictures import Looker, is_picture
from nereid_shared.datasets.sample import Found, Listed
from nereid_shared.datasets.tally import Part, Tally, part_of
from nereid_shared.messages import DatasetStatistics

Progress = Callable[[int], None]

_SEEM_PICTURES: Final = 100
"""Samples of which one has to be called like a picture, or none is looked for: a table's first column is no path."""


class Reading(Struct, frozen=True, kw_only=True):
    """What a dataset holds.

    Attributes:
        samples: their number.
        changed_at: when its files last changed, seconds since the epoch.
        folders: where its samples, annotations and pictures lie, as far as they were looked at; absolute.
    """

    samples: int
    changed_at: float
    statistics: DatasetStatistics
    folders: frozenset[str]


def read(
    dataset: Dataset, *, known: Known | None = None, most_looks: int | None = None, progress: Progress | None = None
) -> Reading:
    """Return the sums over all samples.

    Args:
        dataset: what is read.
        known: what was read before; only files that have changed since then are read.
        most_looks: how many pictures are looked at, the first ones; None for all.
        progress: called with bytes as they are read; what it raises ends the reading.

    Raises:
        UserError: a file is not what the format says, or there is none.
        OSError: the path, or a file, cannot be read.
    """
    if known is not None:
        known.begin(dataset.identity)
    sums = _Sums(dataset, known, progress)
    if dataset.listed is not None:
        sums.add_indices(dataset.listed)
        if dataset.has_pictures:
            sums.look_at_rows(most_looks)
    elif dataset.found is not None:
        sums.add_found(dataset.found, most_looks)
    if known is not None:
        known.end()
    return sums.reading()


def seems_of_pictures(dataset: Dataset) -> bool:
    """Whether one of the first names is a picture's: then all are to be, and what is none is missing.

    Raises:
        UserError, OSError: see `Dataset.samples`.
    """
    return any(is_picture(sample.name) for sample in islice(dataset.samples(), _SEEM_PICTURES))


class _Sums:
    def __init__(self, dataset: Dataset, known: Known | None, progress: Progress | None) -> None:
        self._dataset, self._known, self._progress = dataset, known, progress
        self._root = dataset.root
        self._tally, self._looker, self._folders = Tally(), Looker(self._root, known), {""}

    def reading(self) -> Reading:
        tally, looks = self._tally, self._looker.looks
        folders = (os.path.normpath(self._root / folder) for folder in self._folders | looks.folders)
        return Reading(
            samples=tally.samples, changed_at=tally.changed_ns / 1e9, statistics=tally.statistics(looks),
            folders=frozenset(folders),
        )  # fmt: skip

    def add_indices(self, listed: Listed) -> None:
        for index in self._dataset.indices():
            name, stamp = index.relative_to(self._root).as_posix(), stamp_of(index.stat())
            part = self._recalled(name, stamp)
            if part is None:
                with self._dataset.open(index, is_hashed=True, progress=self._progress) as source:
                    part = listed.part(source, self._root)
                    part.digest = source.digest()
                self._keep(name, stamp, part)
            self._tally.add(part)
            self._tally.add_file(name, stamp, content=part.digest)

    def look_at_rows(self, most: int | None) -> None:
        if seems_of_pictures(self._dataset):
            for name in filter(None, (sample.name for sample in islice(self._dataset.samples(), most))):
                self._looker.look(name)

    def add_found(self, found: Found, most: int | None) -> None:
        shared = self._add_shared(found.shared(self._root))
        for name, stat in self._dataset.entries(on_folder=self._folders.add):
            try:
                picture = self._add_sample(found, name, stamp_of(stat), shared)
                if picture and (most is None or self._looker.looks.looked < most):
                    # Where it was not before, it may be elsewhere now.
                    self._looker.look(picture if (self._root / picture).exists() else found.picture(self._root, name))
            except FileNotFoundError:  # it has vanished since it was found
                continue
            if self._progress is not None:
                self._progress(stat.st_size)

    def _add_shared(self, file: str) -> str:
        """Add the file that all samples need; return what tells its state."""
        stamp = _stamp(self._root / file) if file else None
        if stamp is None:
            return ""
        digest = hashlib.sha256((self._root / file).read_bytes()).hexdigest()
        self._tally.add_file(file, stamp, content=digest)
        return digest

    def _add_sample(self, found: Found, name: str, own: Stamp, shared: str) -> str:
        """Add a sample that is a file, and the annotation beside it, if it has one; return its picture."""
        file = found.annotation(self._root, name)
        stamp = own if file == name else _stamp(self._root / file) if file else None
        part = None if stamp is None else self._recalled(name, stamp)
        if part is None or part.shared != shared:
            sample = found.sample(self._root, name)
            part = part_of([sample], where=file or name)
            part.picture, part.shared = os.fsencode(sample.name), shared
            if stamp is not None:
                part.digest = hashlib.sha256((self._root / file).read_bytes()).hexdigest()
                self._keep(name, stamp, part)
        self._tally.add(part)
        if file != name:
            self._tally.add_file(name, own)
        if stamp is not None:
            self._tally.add_file(file, stamp, content=part.digest)
        return os.fsdecode(part.picture)

    def _recalled(self, name: str, stamp: Stamp) -> Part | None:
        said = None if self._known is None else self._known.get(name, stamp)
        try:
            return None if said is None else msgspec.msgpack.decode(said, type=Part)
        except msgspec.DecodeError:  # a damaged disk: the file itself tells
            return None

    def _keep(self, name: str, stamp: Stamp, part: Part) -> None:
        if self._known is not None:
            self._known.put(name, stamp, msgspec.msgpack.encode(part))


def _stamp(path: Path) -> Stamp | None:
    try:
        return stamp_of(path.stat())
    except OSError:
        return None
