# SPDX-License-Identifier: Apache-2.0
"""The formats by their names, and a guess at which one a path is of."""

from importlib import import_module
from pathlib import Path
from typing import Final, cast

from nereid_shared.datasets.sample import Found, Listed
from nereid_shared.defaults import DATASET_FORMATS, DATASET_SUFFIXES
from nereid_shared.errors import UserError

_LISTED: Final = {
    "csv": "csv_rows", "txt": "txt", "coco": "coco", "jsonl": "jsonl", "parquet": "parquet", "tfrecord": "tfrecord",
}  # fmt: skip
_FOUND: Final = {"xml": "voc", "yolo": "yolo", "folder": "folder"}
_GUESSED: Final = ("jsonl", "csv", "coco", "parquet", "tfrecord", "txt")
"""Of a folder, the surest first."""


def listed(name: str) -> Listed | None:
    """Return a format whose samples stand in index files; None where it is none of these."""
    return cast("Listed", _module(_LISTED[name])) if name in _LISTED else None


def found(name: str) -> Found:
    """Return a format whose samples are files of their own."""
    return cast("Found", _module(_FOUND[name]))


def check(name: str) -> None:
    """Refuse a format that there is not.

    Raises:
        UserError.
    """
    if name not in DATASET_SUFFIXES:
        raise UserError(
            f"format {name!r} has no reader", where="format", reason="DatasetFormatUnknown",
            mend=f"Write {', '.join(DATASET_FORMATS[:-1])} or {DATASET_FORMATS[-1]}.",
        )  # fmt: skip


def endings(name: str) -> str:
    """Return how a format's files end, for a message."""
    return " or ".join(DATASET_SUFFIXES[name])


def is_index(name: str, file: str) -> bool:
    """Whether a file is called like one that describes a dataset of the format."""
    return file.lower().endswith(DATASET_SUFFIXES[name])


def guess(path: Path) -> str:
    """Return the format that a file or folder looks like.

    Raises:
        UserError: there is none, or nothing can be said.
    """
    if not path.exists():
        raise UserError("there is no such file or folder", where=str(path), mend="Mend the path.")
    if not path.is_dir():
        suffix = path.suffix.lower()
        for name, suffixes in DATASET_SUFFIXES.items():
            if suffix in suffixes:
                return name
    elif any(path.glob("*.xml")) or any((path / "Annotations").glob("*.xml")):
        return "xml"
    elif any(path.glob("*.y*ml")) or (path / "labels").is_dir():
        return "yolo"
    else:
        return next((name for name in _GUESSED if cast("Listed", listed(name)).files(path)), "folder")
    raise UserError("its name tells no format", where=str(path), mend="Give --format.")


def _module(name: str) -> object:
    # Each only where it is wanted: a LocalController has no memory to spare.
    return import_module(f"nereid_shared.datasets.{name}")
