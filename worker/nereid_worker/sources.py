# SPDX-License-Identifier: Apache-2.0
"""Where samples come from: folders, indices, live streams.

A source yields `Frame`s from a given index on. Files wait for the worker (and resume from its cursor); live sources do
not wait, so that of several unread frames only the newest is kept.
"""

import csv
import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct

from nereid_shared.errors import UserError

IMAGE_SUFFIXES = frozenset({".jpeg", ".jpg", ".png"})
MAX_FILE_BYTES = 12 * 1024 * 1024


class Frame(Struct, frozen=True, kw_only=True):
    """One sample as it was captured.

    Attributes:
        index: its place in the source.
        key: the source's name for it.
        data: encoded image bytes, an array (height, width[, channels]) of uint8, or None where it could not be read.
        captured_s: monotonic time of capture; the deadline counts from here.
        captured_at: seconds since the epoch.
    """

    index: int
    key: str
    data: Any
    captured_s: float
    captured_at: float


class Source(Protocol):
    """A stream of frames.

    Attributes:
        identity: what a cursor belongs to; "" where the source cannot resume.
        live: frames cannot be asked for again, and do not wait for the worker.
        blocking: the next frame may take its time, so that a thread of its own has to wait for it.
        interval_s: the least time between two frames that the worker asks for.
    """

    identity: str
    live: bool
    blocking: bool
    interval_s: float

    def frames(self, start: int) -> Iterator[Frame]:
        """Yield frames from the index `start` on."""
        ...

    def version(self) -> object:
        """Return something that changes when there may be more frames."""
        ...


def frame(data: Any, *, index: int, key: str = "") -> Frame:
    """Return a frame captured now."""
    if isinstance(data, bytearray | memoryview):
        data = bytes(data)
    return Frame(index=index, key=key or str(index), data=data, captured_s=time.monotonic(), captured_at=time.time())


class Files:
    """Images named by an index file (`csv`, `txt`) or found in a folder, in a fixed order.

    A ``csv`` has a header; the column ``path`` names the image (else the first column). A ``txt`` has one path per
    line, and what follows it after white space is not read. Paths are relative to the index file's folder and cannot
    leave it. A folder's images are taken in the order of their relative paths.

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
        self._path = Path(url.removeprefix("file://"))
        if format not in {"csv", "txt", "folder"}:
            raise UserError(f"format {format!r} has no reader", where=url, mend="Use csv, txt or folder")
        self._require()
        self._format = format
        self.interval_s = interval_s
        self.identity = hashlib.sha256(f"{format} {self._path}".encode()).hexdigest()

    def frames(self, start: int) -> Iterator[Frame]:
        """Yield the images from the index `start` on; one that cannot be read has ``data`` None.

        Raises:
            UserError: the index cannot be read, or the whole dataset has vanished; no image counts as failed for that.
        """
        root = self._path if self._path.is_dir() else self._path.parent
        inside = os.path.realpath(root) + os.sep
        try:
            for index, name in enumerate(self._names()):
                if index >= start:
                    data = _read(root / name, inside)
                    if data is None:
                        self._require()
                    yield frame(data, index=index, key=name)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise UserError(
                f"the index cannot be read: {error}", where=str(self._path), mend="Mend the file; it is tried again.",
                reason="DatasetUnreadable",
            ) from error  # fmt: skip

    def _require(self) -> None:
        if not self._path.exists():
            raise UserError(
                "there is no such file or folder", where=str(self._path),
                mend="Put it there, or mend spec.dataUrl of the Dataset.", reason="DatasetUnreadable",
            )  # fmt: skip

    def version(self) -> tuple[int, int]:
        """Return the index file's (or folder's) time of change and size; (0, 0) while it is gone."""
        try:
            status = self._path.stat()
        except OSError:
            return 0, 0
        return status.st_mtime_ns, status.st_size

    def _names(self) -> Iterator[str]:
        if self._format == "folder":
            found = (path for path in self._path.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
            yield from sorted(str(path.relative_to(self._path)) for path in found)
        elif self._format == "csv":
            with self._path.open(newline="", encoding="utf-8-sig") as file:
                rows = csv.reader(file)
                header = next(rows, [])
                column = header.index("path") if "path" in header else 0
                yield from (row[column] for row in rows if len(row) > column)
        else:
            with self._path.open(encoding="utf-8-sig") as file:
                yield from (line.split()[0] for line in file if line.strip())


def _read(path: Path, inside: str) -> bytes | None:
    try:
        if not os.path.realpath(path).startswith(inside) or path.stat().st_size > MAX_FILE_BYTES:
            return None
        return path.read_bytes()
    except OSError:
        return None


class Live:
    """A camera or any other iterable of frames that cannot wait."""

    identity = ""
    live = True
    blocking = True
    interval_s = 0.0

    def __init__(self, frames: Iterable[Any]) -> None:
        self._frames = frames

    def frames(self, start: int) -> Iterator[Frame]:
        """Yield what comes, numbered from `start` on."""
        for index, data in enumerate(self._frames, start):
            yield data if isinstance(data, Frame) else frame(data, index=index)

    def version(self) -> None:
        """There is no second look at what is live."""


class Iterated:
    """Frames that the caller has or makes. A list is read in the caller's thread, a generator in one of its own."""

    identity = ""
    live = False
    interval_s = 0.0

    def __init__(self, frames: Iterable[Any]) -> None:
        self._frames = frames
        self.blocking = not isinstance(frames, Sequence)

    def frames(self, start: int) -> Iterator[Frame]:
        """Yield them, numbered from 0 on, without those before `start`."""
        for index, data in enumerate(self._frames):
            if index >= start:
                yield data if isinstance(data, Frame) else frame(data, index=index)

    def version(self) -> None:
        """What the caller passed does not change."""


def camera(device: int | str = 0) -> Live:
    """Return a live source over OpenCV's ``VideoCapture``: a device number, or a stream's URL.

    Raises:
        UserError: the device cannot be opened, or OpenCV is not installed.
    """
    try:
        import cv2  # noqa: PLC0415 - optional: the extra [vision]
    except ImportError as error:
        raise UserError("OpenCV is not installed", mend="pip install 'nereid-ai[vision]'") from error
    capture = cv2.VideoCapture(device)
    if not capture.isOpened():
        raise UserError("the camera cannot be opened", where=str(device), mend="Check the device or URL")

    def pictures() -> Iterator[Any]:
        try:
            while True:
                taken, picture = capture.read()
                if not taken:
                    return
                yield picture
        finally:
            capture.release()

    return Live(pictures())
