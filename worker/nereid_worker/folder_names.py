# SPDX-License-Identifier: Apache-2.0
"""The order in which a folder's images were first seen, so that a number means the same image after any change.

By name alone, an image whose name sorts before those read already would shift all numbers, and never be read. The file
has the names in their order, each ended by a zero byte, behind the source's identity and the number of names that it
no longer has because their images are gone.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

GONE_AT_LEAST: Final = 1000
"""So many names of images that are gone, and half of all, before the file is written anew without them."""


class FolderNames:
    """Names by number. In memory until `keep_in` names a file."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._known: set[str] = set()
        self._forgotten = 0
        self._found: list[str] = []
        self._file: Path | None = None
        self._identity = ""

    def keep_in(self, file: Path, *, identity: str) -> None:
        """Go on with the order in `file`, if it is that of the same source, and keep it there from now on."""
        if self._file is not None:
            return
        self._file, self._identity = file, identity
        try:
            said, forgotten, *names, torn = file.read_bytes().split(b"\0")
            if said.decode() == identity:
                self._forgotten, self._names = int(forgotten), [os.fsdecode(name) for name in names]
                self._known = set(self._names)
            if said.decode() != identity or torn:
                self._write()
        except (OSError, ValueError):
            # None yet, or none that can be read: the images are in the order of their names then.
            self._write()

    def take(self, found: list[str]) -> Iterator[tuple[int, str]]:
        """Put new names behind all others; yield each name that is known with its number."""
        self._found = found
        new = [name for name in found if name not in self._known]
        if new:
            self._names += new
            self._known.update(new)
            self._append(new)
        yield from enumerate(self._names, self._forgotten)

    def forget_gone(self, cursor: int) -> None:
        """Forget names before `cursor` whose images are gone, where they are many. No number behind it changes."""
        # The one read last stays: its mark tells whether a cursor fits.
        read = cursor - 1 - self._forgotten
        there = set(self._found)
        kept = [name for name in self._names[:read] if name in there]
        gone = read - len(kept)
        if gone >= GONE_AT_LEAST and gone * 2 >= len(self._names):
            self._names[:read] = kept
            self._known = set(self._names)
            self._forgotten += gone
            self._write()

    def _append(self, names: list[str]) -> None:
        if self._file is None:
            return
        try:
            with self._file.open("ab") as file:
                file.write(_zeroed(names))
        except OSError as error:
            self._warn(error)

    def _write(self) -> None:
        if self._file is None:
            return
        new = self._file.with_name(f"{self._file.name}.new")
        try:
            new.write_bytes(_zeroed([self._identity, str(self._forgotten), *self._names]))
            new.replace(self._file)
        except OSError as error:
            self._warn(error)

    def _warn(self, error: OSError) -> None:
        logger.warning("the order of a folder's images is not kept", extra={"problem": error.strerror})


def _zeroed(names: list[str]) -> bytes:
    return b"".join(os.fsencode(name) + b"\0" for name in names)
