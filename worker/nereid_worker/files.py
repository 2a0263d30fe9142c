# SPDX-License-Identifier: Apache-2.0
"""Images in files as a source: named by an index, or found in a folder, each read once, over any restarts.

A cursor is a number, and a number means something only while the order stays. An index is read in its own order, and
the mark of the image read last tells where rows were put in or taken out before it. A folder has no order of its own:
`FolderNames` keeps the one in which its images were first seen.
"""

import codecs
import csv
import hashlib
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from nereid_shared.defaults import DATASET_FORMATS
from nereid_shared.errors import UserError
from nereid_worker.folder_names import FolderNames
from nereid_worker.page import mark_of
from nereid_worker.sources import Frame, frame

logger = logging.getLogger(__name__)

FOLDER: Final = "folder"
FORMATS: Final = (*DATASET_FORMATS, FOLDER)
IMAGE_SUFFIXES: Final = frozenset({".jpeg", ".jpg", ".png"})
MAX_FILE_BYTES: Final = 12 * 1024 * 1024
# A file system's clock ticks every few ms, and two changes within one tick look the same.
TICK_NS: Final = 50_000_000


class Files:
    """Images named by an index (`csv`, `txt`) or found in a folder.

    A ``csv`` has a header; the column ``path`` names the image (else the first column). A ``txt`` has one path per
    line, and what follows it after white space is not read. Blank lines are nothing; a row without a name is a sample
    that fails. Paths are relative to the index file's folder and cannot leave it. Where the URL of a ``csv`` or ``txt``
    is a folder, its files of that suffix are read one after the other, by name. Rows are to be added behind all others:
    those put before the cursor are not read, which the log says.

    The images of a ``folder`` (and of the folders in it) are taken by name, those that come later after all others.

    Args:
        url: the index file or folder, as a path or ``file://`` URL.
        format: ``csv``, ``txt`` or ``folder``.
        interval_s: pace, kept by the worker; 0 reads as fast as it can.

    Raises:
        UserError: there is no such file or folder, or the format is unknown.
    """

    live = False
    blocking = False

    def __init__(self, url: str, format: str, *, interval_s: float = 0.0) -> None:  # noqa: A002 - the CRD's word
        self._path = Path(unquote(urlsplit(url).path) if url.startswith("file://") else url)
        if format not in FORMATS:
            raise UserError(
                f"format {format!r} has no reader", where=url, mend=f"Use {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
            )
        self._require()
        self._format = format
        self.interval_s = interval_s
        self.identity = hashlib.sha256(f"{format} {self._path}".encode()).hexdigest()
        self._seen = FolderNames()
        self._folders = [self._path]

    def keep_order(self, state: Path) -> None:
        """Let the order of a folder's images outlive the process, in a file of the state folder."""
        if self._format == FOLDER:
            self._seen.keep_in(state / "folder.names", identity=self.identity)

    def resume(self, cursor: int, mark: int) -> int:
        """Return the index of the image to go on with.

        Args:
            cursor: the index behind the image read last.
            mark: `mark_of` that image's key; 0 where none is known.

        Raises:
            UserError: as `frames`.
        """
        if not cursor or not mark:
            return cursor
        nearest = None
        for index, name in self._numbered():
            if mark_of(name or str(index)) != mark:
                continue
            if index == cursor - 1:
                if self._format == FOLDER:
                    self._seen.forget_gone(cursor)
                return cursor
            if nearest is None or abs(index + 1 - cursor) <= abs(nearest - cursor):
                nearest = index + 1
        if nearest is None:
            logger.warning("the image read last is not in the dataset any more", extra={"goes_on_at": cursor})
            return cursor
        logger.warning(
            "images were put in or taken out before those read already; none of these is read",
            extra={"read": cursor, "goes_on_at": nearest},
        )
        return nearest

    def frames(self, start: int) -> Iterator[Frame]:
        """Yield the images from the index `start` on; one that cannot be read has ``data`` None.

        Raises:
            UserError: the index cannot be read, or the whole dataset has vanished; no image counts as failed for that.
        """
        root = self._path if self._path.is_dir() else self._path.parent
        inside = os.path.realpath(root) + os.sep
        for index, name in self._numbered():
            if index >= start:
                data = _read(root / name, inside)
                if data is None:
                    self._require()
                yield frame(data, index=index, key=name)

    def version(self) -> tuple[object, ...]:
        """Return the times of change and the sizes of all that names images; empty while it is gone.

        Shortly after a change it differs from what it will be later, so that a second one in the same tick is not lost.
        """
        try:
            looks = [(look.st_mtime_ns, look.st_size) for look in map(os.stat, self._named_by())]
        except OSError:
            return ()
        now_ns = time.time_ns()
        return (*looks, any(now_ns - changed_ns < TICK_NS for changed_ns, _ in looks))

    def _require(self) -> None:
        if not self._path.exists():
            raise UserError(
                "there is no such file or folder", where=str(self._path),
                mend="Put it there, or mend spec.dataUrl of the Dataset.", reason="DatasetUnreadable",
            )  # fmt: skip

    def _named_by(self) -> list[Path]:
        if self._format == FOLDER:
            return self._folders
        return [self._path, *self._indices()] if self._path.is_dir() else [self._path]

    def _indices(self) -> list[Path]:
        """Return the index files, those that the LocalController counts."""
        if not self._path.is_dir():
            return [self._path]
        return [path for path in sorted(self._path.glob(f"*.{self._format}")) if path.is_file()]

    def _numbered(self) -> Iterator[tuple[int, str]]:
        """Yield each image's index and name."""
        try:
            if self._format == FOLDER:
                yield from self._seen.take(self._found())
            else:
                yield from enumerate(name for index in self._indices() for name in _rows(index, self._format))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise UserError(
                f"the index cannot be read: {error}", where=str(self._path), mend="Mend the file; it is tried again.",
                reason="DatasetUnreadable",
            ) from error  # fmt: skip

    def _found(self) -> list[str]:
        """Return the images that are in the folder now, by name."""
        self._require()
        found, folders = [], []
        for folder, _, files in os.walk(self._path):
            folders.append(Path(folder))
            inner = Path(folder).relative_to(self._path)
            found += [str(inner / name) for name in files if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES]  # noqa: PTH122 - for each of many files
        self._folders = folders
        return sorted(found)


def _rows(index: Path, format_: str) -> Iterator[str]:
    """Yield an index's names, one for each sample that the LocalController counts; "" for a row that has none."""
    if format_ == "csv":
        with index.open(newline="", encoding="utf-8-sig") as file:
            rows = (row for row in csv.reader(file) if row)
            header = next(rows, [])
            column = header.index("path") if "path" in header else 0
            yield from (row[column] if len(row) > column else "" for row in rows)
    else:
        with index.open("rb") as file:
            lines = (line.removeprefix(codecs.BOM_UTF8) if number == 0 else line for number, line in enumerate(file))
            # Words of bytes: what is white space only in some script's sense is part of a name, to the LC too.
            yield from (words[0].decode() for line in lines if (words := line.split()))


def _read(path: Path, inside: str) -> bytes | None:
    try:
        if not os.path.realpath(path).startswith(inside) or path.stat().st_size > MAX_FILE_BYTES:
            return None
        return path.read_bytes()
    except (OSError, ValueError):  # a name with a NUL is a ValueError
        return None
