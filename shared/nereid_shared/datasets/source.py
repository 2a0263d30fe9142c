# SPDX-License-Identifier: Apache-2.0
"""One reading of a file, in bounded memory: what passes is hashed, and a line without end is refused."""

import errno
import hashlib
import io
import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from nereid_shared.errors import UserError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CHUNK: Final = 256 * 1024
MAX_LINE: Final = 1024 * 1024
"""Longer ones are no text, and would be held in memory whole. Above `CHUNK`, so that no line begins and ends in one."""

BOM: Final = b"\xef\xbb\xbf"


class Source:
    """An open file.

    Args:
        path: the file.
        where: its name in messages.
        max_line: the longest line that is read; None where lines mean nothing.
        is_hashed: whether `digest` will be asked for.
        progress: called with the bytes of each read; what it raises ends the reading.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(
        self, path: Path, *, where: str, max_line: int | None = MAX_LINE, is_hashed: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> None:  # fmt: skip
        self.path, self.where = path, where
        self._sha256 = hashlib.sha256() if is_hashed else None
        self._raw = _Passing(path, where=where, max_line=max_line, sha256=self._sha256, progress=progress)
        self.stream: Final = io.BufferedReader(self._raw, CHUNK)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.stream.close()

    def digest(self) -> str:
        """Return the sha256 of the whole file, in hex; what nobody has read so far is read now.

        Raises:
            ValueError: it was not opened for that.
        """
        if self._sha256 is None:
            raise ValueError("not hashed")
        self._raw.max_line = None
        while self.stream.read(CHUNK):
            pass
        return self._sha256.hexdigest()

    @property
    def is_ascii(self) -> bool:
        """Whether nothing but ASCII has passed so far."""
        return self._raw.is_ascii

    def skip_bom(self) -> None:
        """Go behind a byte order mark, if there is one."""
        if self.stream.peek(len(BOM))[: len(BOM)] == BOM:
            self.stream.read(len(BOM))

    def text(self) -> io.TextIOWrapper:
        """Return the rest as text of one character a byte: nothing is wrong as that, and it takes no time to decode.

        What of it matters is decoded by `utf8`.
        """
        self.skip_bom()
        # Kept, since it closes the file when it goes.
        self._text = io.TextIOWrapper(self.stream, encoding="latin-1", newline="")
        return self._text


class _Passing(io.RawIOBase):
    def __init__(
        self, path: Path, *, where: str, max_line: int | None, sha256: "hashlib._Hash | None",
        progress: Callable[[int], None] | None,
    ) -> None:  # fmt: skip
        # A pipe or a terminal would be waited for without end, by the thread that reads all datasets of a node.
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            os.close(self._file)
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        self._where, self.max_line, self._progress = where, max_line, progress
        self._sha256 = sha256
        self._run = 0
        self.is_ascii = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer)
        data = os.read(self._file, len(view))
        view[: len(data)] = data
        if self._sha256 is not None:
            self._sha256.update(data)
        self.is_ascii = self.is_ascii and data.isascii()
        if self._progress is not None:
            self._progress(len(data))
        if self.max_line is not None:
            self._follow_line(data, self.max_line)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            os.close(self._file)
        super().close()

    def _follow_line(self, data: bytes, limit: int) -> None:
        first = _end(data.find(b"\n"), data.find(b"\r"), len(data))
        if self._run + first > limit:
            raise UserError(
                f"a line is longer than {limit} bytes", where=self._where, reason="DatasetInvalid",
                mend="Mend the file, or the Dataset's format.",
            )  # fmt: skip
        last = max(data.rfind(b"\n"), data.rfind(b"\r"))
        self._run = self._run + len(data) if last < 0 else len(data) - last - 1


def _end(one: int, other: int, none: int) -> int:
    """Return the first of two places that `find` has found, or `none`."""
    return min((place for place in (one, other) if place >= 0), default=none)


def shown(name: str) -> str:
    """Return a file's name as text that can be sent and printed: a name on a disk may be of any bytes."""
    return name if name.isascii() else os.fsencode(name).decode(errors="replace")


def utf8(text: str) -> str:
    """Return what bytes read as latin-1 say in UTF-8.

    Raises:
        UnicodeDecodeError: they are none.
    """
    return text if text.isascii() else text.encode("latin-1").decode()
