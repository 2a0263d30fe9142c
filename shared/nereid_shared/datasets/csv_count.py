# SPDX-License-Identifier: Apache-2.0
"""How many records a CSV file has, at several times the speed of `csv.reader`, and always its number.

Large pieces of the file are split at their quotes: what lies between the second and the third, the fourth and the
fifth and so on is outside of quotes, and its line ends end records. That holds as long as quotes open where a field
begins and close where one ends; a piece in which one does not is given to `csv.reader` itself.
"""

import csv
from collections.abc import Iterator
from typing import Final

from nereid_shared.datasets.source import CHUNK, Source
from nereid_shared.errors import UserError

_QUOTE: Final = b'"'
_STRETCH: Final = 64 * 1024
# What a byte is to quotes: one of them, what may stand beside one (a comma, a line's end), or anything else.
_ROLES: Final = bytes(byte if byte == ord('"') else ord(",") if byte in b",\r\n" else ord("x") for byte in range(256))


def count_records(source: Source, *, chunk_bytes: int = CHUNK) -> int:
    """Return the number of records that are not blank lines, the header among them.

    Args:
        source: the file.
        chunk_bytes: how much of it is read at a time.

    Raises:
        UserError: a line or a field is longer than any text's.
    """
    source.skip_bom()
    count = _Count(source.where)
    rest = b""
    while chunk := source.stream.read(chunk_bytes):
        data = rest + chunk if rest else chunk
        # A carriage return at the very end may be half of a line's end.
        end = max(data.rfind(b"\n"), data.rfind(b"\r", 0, len(data) - 1)) + 1
        rest = data[end:]
        if end:
            count.take(data[:end])
    if rest:
        count.take(rest)
    return count.records + count.is_inside


class _Count:
    """Records in what was taken so far: whole lines, of which the last may end inside of quotes.

    Attributes:
        records: those that have ended.
        is_inside: whether the place reached is inside of quotes.
    """

    def __init__(self, where: str) -> None:
        self.records, self.is_inside = 0, False
        self._where = where
        self._open_bytes = 0

    def take(self, data: bytes) -> None:
        begin = self.is_inside
        if not begin and _QUOTE not in data:
            if _has_stretch(data, b"\n"):
                self._read(data)
            else:
                lines = data.splitlines()
                self.records += len(lines) - lines.count(b"")
            return
        parts = data.split(_QUOTE)
        self._check_open(parts, begin=begin)
        end = begin ^ (len(parts) % 2 == 0)
        # Each stretch inside of quotes is one quote here, also one that is not at its end yet.
        outside = _QUOTE * begin + _QUOTE.join(parts[begin::2]) + _QUOTE * end
        roles = outside.translate(_ROLES)
        if b'x"' in roles or b'"x' in roles or _has_stretch(data, b"\n") or _has_stretch(data, _QUOTE, parts):
            self._read(data)
            return
        lines = outside.splitlines()
        self.records += len(lines) - lines.count(b"") - end
        self.is_inside = end

    def _check_open(self, parts: list[bytes], *, begin: bool) -> None:
        if begin:
            self._open_bytes += len(parts[0])
            if self._open_bytes > csv.field_size_limit():
                raise _too_long(self._where, f"field larger than field limit ({csv.field_size_limit()})")
        if len(parts) > 1 or not begin:
            self._open_bytes = len(parts[-1])

    def _read(self, data: bytes) -> None:
        """Let `csv.reader` count."""
        text = ('"' if self.is_inside else "") + data.decode("latin-1")
        lines = _Lines(text)
        self.is_inside = False
        try:
            for record in csv.reader(lines):
                # A record for which more lines were wanted than there are goes on in the next piece.
                self.is_inside = lines.ended
                self.records += bool(record) and not lines.ended
        except csv.Error as error:
            raise _too_long(self._where, str(error)) from error


class _Lines:
    """A text's lines, their ends included.

    Attributes:
        ended: whether one more than there are was asked for.
    """

    def __init__(self, text: str) -> None:
        self.ended = False
        # As bytes: a text's own `splitlines` knows more line ends than a CSV.
        self._lines = iter(text.encode("latin-1").splitlines(keepends=True))

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        for line in self._lines:
            return line.decode("latin-1")
        self.ended = True
        raise StopIteration


def _has_stretch(data: bytes, mark: bytes, parts: list[bytes] | None = None) -> bool:
    """Whether there may be a field above the `csv` module's limit, since nothing ends it for so long."""
    if len(data) <= csv.field_size_limit():
        return False
    lone = any(data.find(mark, begin, begin + _STRETCH) < 0 for begin in range(0, len(data) - _STRETCH + 1, _STRETCH))
    if lone and parts is not None:
        return max(map(len, parts)) > csv.field_size_limit()
    return lone


def _too_long(where: str, problem: str) -> UserError:
    return UserError(problem, where=where, reason="DatasetInvalid", mend="Look for a quote that nothing closes.")
