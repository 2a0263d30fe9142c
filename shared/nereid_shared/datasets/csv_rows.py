# SPDX-License-Identifier: Apache-2.0
"""``csv``: a header, which is the first record that is not blank, and a sample a record.

The column ``path`` names the picture, else the first one does; ``label``, ``class`` or ``category`` names the class.
A file without a column ``path`` whose first record names no picture is a table of numbers or texts: its records count,
and nothing is looked for in them but classes.
"""

import csv
from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice
from operator import countOf, itemgetter
from pathlib import Path
from typing import Final

from nereid_shared.datasets.csv_count import count_records
from nereid_shared.datasets.pictures import is_picture
from nereid_shared.datasets.sample import Sample
from nereid_shared.datasets.source import MAX_LINE, Source, utf8
from nereid_shared.datasets.tally import MAX_TOLD_APART, Part
from nereid_shared.errors import UserError

names_pictures: Final = True
max_line: Final = MAX_LINE
PATH: Final = "path"
LABELS: Final = ("label", "class", "category")
_BATCH: Final = 512


def files(folder: Path) -> list[Path]:
    """Return a folder's index files in their order."""
    return [path for path in sorted(folder.glob("*.csv")) if path.is_file()]


def count(source: Source) -> int:
    """Return the number of samples."""
    return max(0, count_records(source) - 1)


def samples(source: Source, root: Path, *, whole: bool = False) -> Iterator[Sample]:
    """Yield the records after the header; one without a name is a sample that fails."""
    del root, whole
    table = _Table(source)
    for record in table.records:
        yield _sample(record, table)


def part(source: Source, root: Path) -> Part:
    """Return the sums; a table without classes is only counted."""
    del root
    with Source(source.path, where=source.where) as ahead:
        table = _Table(ahead)
    if not table.names_pictures and table.label is None:
        return Part(samples=count(source))
    return _sums(_Table(source), source)


class _Table:
    """A file's records behind its header.

    Attributes:
        name: the column that names the picture.
        label: the column that names the class, if there is one.
        records: those that are not blank lines.
    """

    def __init__(self, source: Source) -> None:
        self._where = source.where
        self._reader = csv.reader(source.text())
        self.records = self._records()
        header = [column.strip().lower() for column in next(self.records, [])]
        first = list(islice(self.records, 1))
        self.records = chain(first, self.records)
        self.name = header.index(PATH) if PATH in header else 0
        self.names_pictures = PATH in header or any(is_picture(record[0]) for record in first)
        self.label = next((header.index(column) for column in LABELS if column in header), None)

    @property
    def line(self) -> int:
        """The line of the file that was read last."""
        return self._reader.line_num

    def _records(self) -> Iterator[list[str]]:
        try:
            yield from filter(None, self._reader)
        except csv.Error as error:
            raise UserError(
                str(error), where=f"{self._where}:{self._reader.line_num}", reason="DatasetInvalid",
                mend="Look for a quote that nothing closes.",
            ) from error  # fmt: skip


def _sample(record: list[str], table: _Table) -> Sample:
    label = "" if table.label is None or len(record) <= table.label else _shown(record[table.label])
    name, problem = _name(record, table)
    return Sample(name=name, label=label, line=table.line, problem=problem)


def _name(record: list[str], table: _Table) -> tuple[str, str]:
    name = record[table.name] if len(record) > table.name else ""
    if not name:
        return "", f"column {table.name + 1} names no picture" if table.names_pictures else ""
    try:
        return utf8(name), ""
    except UnicodeDecodeError:
        return "", f"column {table.name + 1} is not UTF-8"


def _shown(label: str) -> str:
    return label.encode("latin-1").decode(errors="replace")


def _sums(table: _Table, source: Source) -> Part:
    """Return the sums, of many records at a time: each for itself would take three times as long."""
    sums, classes = Part(), Counter[str]()
    while batch := list(islice(table.records, _BATCH)):
        shortest = min(map(len, batch))
        if (column := table.label) is not None:
            whole = batch if shortest > column else [record for record in batch if len(record) > column]
            sums.labelled += len(whole) - countOf(map(itemgetter(column), whole), "")
            if len(classes) < MAX_TOLD_APART:
                classes.update(map(itemgetter(column), whole))
        if table.names_pictures and (shortest <= table.name or not source.is_ascii or _lacks_one(batch, table.name)):
            for number, record in enumerate(batch, sums.samples + 1):
                if problem := _name(record, table)[1]:
                    sums.complain(f"{source.where}: record {number}: {problem}")
        sums.samples += len(batch)
    sums.count_all({_shown(label): times for label, times in classes.items() if label})
    return sums


def _lacks_one(batch: list[list[str]], column: int) -> bool:
    return "" in map(itemgetter(column), batch)
