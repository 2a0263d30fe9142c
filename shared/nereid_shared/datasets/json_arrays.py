# SPDX-License-Identifier: Apache-2.0
"""The elements of arrays in one large JSON object, one after the other: a file of gigabytes is never held whole."""

import re
from collections.abc import Collection, Iterator
from typing import BinaryIO, Final

from nereid_shared.datasets.source import CHUNK
from nereid_shared.errors import UserError

MAX_ELEMENT: Final = 8 * 1024 * 1024
_SPACE: Final = b" \t\r\n"
# A string, a bracket, or a quote that begins a string whose end has not been read yet.
_TOKEN: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]]|"', re.DOTALL)
_SCALAR: Final = re.compile(rb"[^,}\]]*")


class Broken(ValueError):
    """The text is no JSON object of this kind."""


def elements(stream: BinaryIO, keys: Collection[str], *, where: str) -> Iterator[tuple[str, bytes]]:
    """Yield the objects in the top-level arrays of these names, each with its array's name, in the file's order.

    An element's own JSON is the caller's to decode; here only its end is looked for.

    Raises:
        UserError: the file is no such object, or ends before it does.
    """
    text = _Text(stream)
    try:
        yield from _object(text, frozenset(keys))
    except Broken as error:
        raise UserError(
            f"no whole JSON at byte {text.place}: {error}", where=where, reason="DatasetInvalid",
            mend="Write the file again, under another name, and rename it.",
        ) from error  # fmt: skip


def _object(text: "_Text", keys: frozenset[str]) -> Iterator[tuple[str, bytes]]:
    text.expect(b"{")
    if text.next() == b"}":
        return
    while True:
        key = text.string()
        text.expect(b":")
        if key in keys and text.next() == b"[":
            text.expect(b"[")
            for element in _array(text):
                yield key, element
        else:
            text.skip_value()
        if text.next() != b",":
            text.expect(b"}")
            return
        text.expect(b",")


def _array(text: "_Text") -> Iterator[bytes]:
    if text.next() == b"]":
        text.expect(b"]")
        return
    while True:
        yield text.element()
        if text.next() != b",":
            text.expect(b"]")
            return
        text.expect(b",")


class _Text:
    """The part of the file that is in memory, and the place in it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._data, self._at, self._gone = b"", 0, 0

    @property
    def place(self) -> int:
        """The place in the file."""
        return self._gone + self._at

    def next(self) -> bytes:
        """Return the next byte that is no white space, without going behind it.

        Raises:
            Broken: there is none.
        """
        while True:
            data, at = self._data, self._at
            while at < len(data) and data[at] in _SPACE:
                at += 1
            self._at = at
            if at < len(data):
                return data[at : at + 1]
            if not self._more():
                raise Broken("it ends too early")

    def expect(self, mark: bytes) -> None:
        """Go behind a mark."""
        if (found := self.next()) != mark:
            raise Broken(f"{mark.decode()} is wanted, not {found.decode('latin-1')}")
        self._at += 1

    def string(self) -> str:
        """Return the next string as it stands, and go behind it."""
        if self.next() != b'"':
            raise Broken("a name is wanted")
        while (found := _TOKEN.match(self._data, self._at)) is None or found[0] == b'"':
            self._require_more(self._at)
        self._at = found.end()
        return found[0][1:-1].decode(errors="replace")

    def element(self) -> bytes:
        """Return the next object's text, and go behind it."""
        if self.next() != b"{":
            raise Broken("an object is wanted")
        # Most have neither objects in them nor brackets in texts: then the first closing bracket is the end.
        end = self._data.find(b"}", self._at) + 1
        piece = self._data[self._at : end] if end else b""
        if piece and piece.count(b"{") == 1 and not piece.count(b'"') % 2 and b"\\" not in piece:
            self._at = end
            return piece
        begin = self.place
        self._skip_nested(keep=True)
        return self._data[begin - self._gone : self._at]

    def skip_value(self) -> None:
        """Go behind the next value, which may be of any size."""
        if (first := self.next()) == b'"':
            self.string()
        elif first in {b"{", b"["}:
            self._skip_nested(keep=False)
        else:
            while (end := _SCALAR.match(self._data, self._at).end()) == len(self._data):  # type: ignore[union-attr]
                self._require_more(self._at)
            self._at = end

    def _skip_nested(self, *, keep: bool) -> None:
        """Go behind an object or array, keeping its beginning in memory or not."""
        begin, at, depth = self._at, self._at, 0
        while True:
            for token in _TOKEN.finditer(self._data, at):
                word = token[0]
                if word == b'"':
                    at = token.start()
                    break
                at = token.end()
                if word in b"{[":
                    depth += 1
                elif word in b"}]":
                    depth -= 1
                    if not depth:
                        self._at = at
                        return
            else:
                at = len(self._data)
            at -= self._require_more(begin if keep else at)
            begin = self._at

    def _require_more(self, begin: int) -> int:
        """Read on, keeping what is behind `begin`; return by how much places have moved."""
        if len(self._data) - begin > MAX_ELEMENT:
            raise Broken(f"a value of more than {MAX_ELEMENT} bytes")
        self._at, gone = begin, self._gone
        if not self._more():
            raise Broken("it ends too early")
        return self._gone - gone

    def _more(self) -> bool:
        chunk = self._stream.read(CHUNK)
        self._gone += self._at
        self._data, self._at = self._data[self._at :] + chunk, 0
        return bool(chunk)
