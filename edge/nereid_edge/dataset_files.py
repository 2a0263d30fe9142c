# SPDX-License-Identifier: Apache-2.0
"""How many samples the node's datasets have: counted when their files change, told when the count does.

One thread of its own looks at each file's time and size (`os.stat`) and reads a file only when those have changed, in
bounded memory; a slow disk or a dead network share holds up nothing else. Read are ``csv`` (records after the header,
which is always the first one that is not blank, quoted newlines inside a record) and ``txt`` (lines that are not
blank). A folder is the sum of its files of that suffix. The worker serves what is counted here.
"""

import codecs
import csv
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, TextIO
from urllib.parse import unquote, urlsplit

from nereid_shared.defaults import DATASET_FORMATS
from nereid_shared.errors import PermanentError

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 2.0
MAX_LINE: Final = 1024 * 1024
_CHUNK: Final = 256 * 1024
_BOM: Final = codecs.BOM_UTF8
# A file that never stops growing is read for at most a tenth of the time.
_REST: Final = 9.0

Signature = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSource:
    """A dataset to watch."""

    url: str
    format: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetCount:
    """What is known of a dataset: its samples, or why there is no number.

    Attributes:
        changed_at: when its files last changed, seconds since the epoch.
        reason: one CamelCase word, "" where `samples` is a number.
    """

    samples: int | None = None
    changed_at: float | None = None
    reason: str = ""
    message: str = ""


class DatasetProblem(PermanentError):
    """A dataset that has no number of samples."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


@dataclass(slots=True)
class _Watched:
    source: DatasetSource
    signature: Signature | None = None
    count: DatasetCount | None = None
    not_before: float = 0.0


class DatasetMonitor:
    """The thread; it starts with the first dataset.

    Args:
        on_count: called in the thread with the uid and the count whenever that has changed.
        look_every_s: rhythm in which files are looked at.
    """

    def __init__(self, on_count: Callable[[str, DatasetCount], None], *, look_every_s: float = LOOK_EVERY_S) -> None:
        self._on_count, self._look_every_s = on_count, look_every_s
        self._sources: Mapping[str, DatasetSource] = {}
        self._wake = threading.Event()
        self._stop = False
        self._thread: threading.Thread | None = None

    def watch(self, sources: Mapping[str, DatasetSource]) -> None:
        """Watch these datasets, by uid, and no others."""
        self._sources = dict(sources)
        if self._thread is None and sources:
            self._thread = threading.Thread(target=self._run, name="datasets", daemon=True)
            self._thread.start()
        self._wake.set()

    def stop(self) -> None:
        """End the thread without waiting for a file that it reads."""
        self._stop = True
        self._wake.set()

    def _run(self) -> None:
        watched: dict[str, _Watched] = {}
        while not self._stop:
            self._wake.clear()
            sources = self._sources
            watched = {
                uid: watched[uid] if uid in watched and watched[uid].source == source else _Watched(source)
                for uid, source in sources.items()
            }
            for uid, one in watched.items():
                if self._stop or self._sources is not sources:
                    break
                self._look(uid, one)
            self._wake.wait(self._look_every_s if watched else None)

    def _look(self, uid: str, one: _Watched) -> None:
        began = time.monotonic()
        if began < one.not_before:
            return
        count = self._count(one)
        one.not_before = time.monotonic() + _REST * (time.monotonic() - began)
        if count is not None and count != one.count:
            one.count = count
            self._on_count(uid, count)

    def _count(self, one: _Watched) -> DatasetCount | None:
        """Return the count where the files have changed, None where they have not."""
        try:
            files = files_of(one.source)
            if not files:
                # Zero samples would look like a dataset that is merely empty.
                raise DatasetProblem("NoIndex", _no_index(one.source))
            signature = tuple((str(path), stat.st_mtime_ns, stat.st_size) for path, stat in files)
            if signature == one.signature:
                return None
            samples = sum(count_samples(path, one.source.format) for path, _ in files)
        except DatasetProblem as problem:
            one.signature = None
            return DatasetCount(reason=problem.reason, message=str(problem))
        except OSError as error:
            one.signature = None
            return DatasetCount(reason=_reason(error), message=f"{one.source.url}: {error.strerror}")
        one.signature = signature
        return DatasetCount(samples=samples, changed_at=max((stat.st_mtime for _, stat in files), default=None))


def files_of(source: DatasetSource) -> list[tuple[Path, os.stat_result]]:
    """Return a dataset's files with their state, sorted by name.

    Raises:
        DatasetProblem: the URL is not a path on this node, or the format is unknown.
        OSError: the path cannot be looked at.
    """
    parts = urlsplit(source.url)
    if parts.scheme not in ("", "file") or not parts.path.startswith("/"):
        raise DatasetProblem("DatasetUrlUnsupported", f"{source.url}: a path on the node is needed")
    if source.format not in DATASET_FORMATS:
        raise DatasetProblem(
            "DatasetFormatUnknown", f"format {source.format!r}: known are {', '.join(DATASET_FORMATS)}"
        )
    path = Path(unquote(parts.path) if parts.scheme else source.url)
    if not path.is_dir():
        return [(path, path.stat())]
    return [(file, file.stat()) for file in sorted(path.glob(f"*.{source.format}")) if file.is_file()]


def count_samples(path: Path, format_: str) -> int:
    """Return the number of samples in a file.

    Raises:
        DatasetProblem: it cannot be such a file.
        OSError: it cannot be read.
    """
    if format_ == "csv":
        # Each byte is a character: no file is wrong as text, and none takes time to decode.
        with path.open(encoding="latin-1", newline="") as text:
            if text.read(len(_BOM)) != _BOM.decode("latin-1"):
                text.seek(0)
            return _csv_records(text, path)
    with path.open("rb") as binary:
        if binary.read(len(_BOM)) != _BOM:
            binary.seek(0)
        return _text_lines(binary)


def _csv_records(text: TextIO, path: Path) -> int:
    try:
        records = sum(1 for record in csv.reader(_lines(text, path), strict=False) if record)
    except csv.Error as error:
        raise DatasetProblem("DatasetInvalid", f"{path}: {error}") from error
    return max(0, records - 1)


def _lines(text: TextIO, path: Path) -> Iterator[str]:
    while line := text.readline(MAX_LINE):
        if len(line) >= MAX_LINE and not line.endswith(("\n", "\r")):
            raise DatasetProblem("DatasetInvalid", f"{path}: a line is longer than {MAX_LINE} characters")
        yield line


def _text_lines(binary: BinaryIO) -> int:
    lines, has_text = 0, False
    while chunk := binary.read(_CHUNK):
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            lines += has_text or bool(piece.strip())
            has_text = False
        has_text = has_text or bool(rest.strip())
    return lines + has_text


def _no_index(source: DatasetSource) -> str:
    return f"no .{source.format} in {source.url}; an index is needed; `nereid new` writes one"


def _reason(error: OSError) -> str:
    return "DatasetNotFound" if isinstance(error, FileNotFoundError | NotADirectoryError) else "DatasetUnreadable"
