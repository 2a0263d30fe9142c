# SPDX-License-Identifier: Apache-2.0
"""``parquet``: a sample a row. Needs pyarrow (the extra ``datasets``).

The class is the column ``label``, ``class`` or ``category``; where Hugging Face's metadata name its numbers, by name.
The picture's path is the column ``path`` or ``file_name``; pictures inside of the file stay there.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nereid_shared.datasets.sample import Sample
from nereid_shared.datasets.source import Source
from nereid_shared.datasets.tally import Part
from nereid_shared.errors import UserError

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

names_pictures: Final = False
max_line: Final = None
LABELS: Final = ("label", "class", "category")
NAMES: Final = ("path", "file_name")
_BATCH: Final = 16 * 1024


def files(folder: Path) -> list[Path]:
    """Return a folder's files in their order."""
    return [path for path in sorted(folder.glob("*.parquet")) if path.is_file()]


def count(source: Source) -> int:
    """Return the number of rows, which stands at the file's end."""
    with _opened(source) as file:
        return int(file.metadata.num_rows)


def samples(source: Source, root: Path, *, whole: bool = False) -> Iterator[Sample]:
    """Yield the rows."""
    del root, whole
    with _opened(source) as file:
        label, name = _column(file, LABELS), _column(file, NAMES)
        classes = _class_names(file, label)
        row = 0
        for batch in file.iter_batches(batch_size=_BATCH, columns=[one for one in (label, name) if one]):
            columns = {one: batch.column(one).to_pylist() for one in (label, name) if one}
            for place in range(batch.num_rows):
                row += 1
                yield Sample(
                    name=str(columns[name][place] or "") if name else "",
                    label=_shown(columns[label][place], classes) if label else "",
                    line=row,
                )


def part(source: Source, root: Path) -> Part:
    """Return the sums; of the columns only the classes are read."""
    del root
    with _opened(source) as file:
        sums = Part(samples=file.metadata.num_rows)
        label = _column(file, LABELS)
        if label is None:
            return sums
        classes = _class_names(file, label)
        for batch in file.iter_batches(batch_size=_BATCH, columns=[label]):
            for one in batch.column(0).value_counts().to_pylist():
                if (name := _shown(one["values"], classes)) != "":
                    sums.count(name, one["counts"])
                    sums.labelled += one["counts"]
        return sums


@contextmanager
def _opened(source: Source) -> "Iterator[ParquetFile]":
    try:
        import pyarrow  # noqa: PLC0415 - optional: the extra [datasets]
        from pyarrow.parquet import ParquetFile  # noqa: PLC0415 - the same
    except ImportError as error:
        raise UserError(
            "Parquet needs pyarrow", where=source.where, mend="pip install 'nereid-ai[datasets]'", reason="ExtraMissing"
        ) from error
    try:
        with ParquetFile(source.path) as file:
            yield file
    except pyarrow.ArrowException as error:
        raise UserError(
            str(error).partition("\n")[0], where=source.where, mend="Write the file again.", reason="DatasetInvalid"
        ) from error


def _column(file: "ParquetFile", names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in file.schema_arrow.names), None)


def _class_names(file: "ParquetFile", label: str | None) -> list[str]:
    """Return the names of the classes by number, as Hugging Face's metadata have them."""
    try:
        said = json.loads((file.schema_arrow.metadata or {})[b"huggingface"])
        names = said["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError):
        return []
    return [str(name) for name in names] if isinstance(names, list) else []


def _shown(value: Any, classes: list[str]) -> str:
    if value is None:
        return ""
    return classes[value] if isinstance(value, int) and 0 <= value < len(classes) else str(value)
