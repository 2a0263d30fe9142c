# SPDX-License-Identifier: Apache-2.0
"""What a picture's file says of itself, from its first and last bytes: how large it is, and whether it is whole.

The worker asks the same of bytes that it has read already (`nereid_worker.image_header`); the two agree.
"""

import os
import struct
from pathlib import Path
from stat import S_ISLNK
from typing import Final

from nereid_shared.datasets.known import Known, stamp_of
from nereid_shared.datasets.tally import Looks

SUFFIXES: Final = frozenset({".jpeg", ".jpg", ".png"})
MAX_FILE_BYTES: Final = 12 * 1024 * 1024
"""Of a picture that a worker reads."""

_PICTURE: Final = "picture "
_SIZE: Final = struct.Struct("<II")
_WINDOW: Final = 4096
_TAIL: Final = 64 * 1024
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_JPEG: Final = b"\xff\xd8"
_SOS: Final = 0xDA
_SOF: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE: Final = frozenset({0x01, *range(0xD0, 0xD8)})


def is_picture(name: str) -> bool:
    """Whether a file's name is that of a picture."""
    return os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122 - for each of many files


class Looker:
    """Looks at pictures of a dataset, each once as long as it does not change.

    Args:
        root: the dataset's folder: a picture outside of it is not there.
        known: what was seen before.
    """

    def __init__(self, root: Path, known: Known | None) -> None:
        self.looks: Final = Looks()
        self._root, self._known = root, known
        self._inside = os.path.realpath(root) + os.sep
        self._folders: dict[str, bool] = {}

    def look(self, name: str) -> None:
        """Take a look at a picture, by its path relative to the dataset's folder."""
        looks = self.looks
        looks.looked += 1
        try:
            size = self._size(name)
        except (OSError, ValueError) as error:  # a name with a NUL is a ValueError
            looks.missing += 1
            looks.complain(f"{name}: missing: {error.strerror if isinstance(error, OSError) else error}")
            return
        if size is None:
            looks.corrupt += 1
            looks.complain(f"{name}: no whole JPEG or PNG file")
        else:
            looks.saw(*size)

    def _size(self, name: str) -> tuple[int, int] | None:
        path = self._root / name
        # First, so that its folder is known, and can be watched, also where it is missing.
        is_inside = self._is_inside(os.path.dirname(name))  # noqa: PTH120 - for each of many files
        stat = path.lstat()
        if S_ISLNK(stat.st_mode) or not is_inside:
            if not os.path.realpath(path).startswith(self._inside):
                raise ValueError("it lies outside of the dataset's folder")
            stat = path.stat()
        stamp = stamp_of(stat)
        said = None if self._known is None else self._known.get(f"{_PICTURE}{name}", stamp)
        if said is not None and len(said) in {0, _SIZE.size}:
            return _SIZE.unpack(said) if said else None
        size = measured(path)
        if self._known is not None:
            self._known.put(f"{_PICTURE}{name}", stamp, _SIZE.pack(*size) if size else b"")
        return size

    def _is_inside(self, folder: str) -> bool:
        """Whether a folder is one of the dataset's, by its real path, which is looked up once."""
        if folder not in self._folders:
            real = os.path.realpath(self._root / folder) + os.sep
            self._folders[folder] = real.startswith(self._inside)
            if self._folders[folder]:
                self.looks.folders.add(folder)
        return self._folders[folder]


def measured(path: Path) -> tuple[int, int] | None:
    """Return a picture's width and height in pixels, before any EXIF turn; None where it is not whole.

    Raises:
        OSError: the file cannot be read.
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = _Bytes(file)
        if data.size > MAX_FILE_BYTES:
            return None
        if data.at(0, 2) == _JPEG:
            return _jpeg(data)
        return _png(data) if data.at(0, 8) == _PNG else None
    finally:
        os.close(file)


class _Bytes:
    """A file's bytes by place; reads a few kilobytes at a time."""

    def __init__(self, file: int) -> None:
        self._file = file
        self.size = os.fstat(file).st_size
        self._start, self._window = 0, os.pread(file, _WINDOW, 0)

    def at(self, place: int, length: int) -> bytes:
        begin = place - self._start
        if begin < 0 or begin + length > len(self._window):
            self._start, self._window = place, os.pread(self._file, _WINDOW, place)
            begin = 0
        return self._window[begin : begin + length]

    def has(self, mark: bytes, *, behind: int) -> bool:
        """Whether the mark stands somewhere behind a place; looked for from the end, where it should be."""
        end = self.size
        while end > behind:
            begin = max(behind, end - _TAIL)
            if mark in os.pread(self._file, end - begin, begin):
                return True
            if begin == behind:
                return False
            end = begin + len(mark) - 1
        return False


def _png(data: _Bytes) -> tuple[int, int] | None:
    head = data.at(0, 33)
    if len(head) < 33 or head[12:16] != b"IHDR" or not data.has(b"IEND", behind=0):
        return None
    width, height = struct.unpack_from(">II", head, 16)
    return (width, height) if width and height else None


def _jpeg(data: _Bytes) -> tuple[int, int] | None:
    place, size = 2, None
    while place + 4 <= data.size:
        head = data.at(place, 9)
        if len(head) < 4 or head[0] != 0xFF:
            return None
        marker = head[1]
        if marker == 0xFF:  # a fill byte
            place += 1
        elif marker in _BARE:
            place += 2
        elif marker == _SOS:
            return size if size and all(size) and data.has(b"\xff\xd9", behind=place) else None
        else:
            if marker in _SOF and len(head) == 9:
                height, width = struct.unpack_from(">HH", head, 5)
                size = width, height
            place += 2 + struct.unpack_from(">H", head, 2)[0]
    return None
