# SPDX-License-Identifier: Apache-2.0
"""A thread's rest until something changes in folders, as inotify tells it, or until it is called.

inotify is a help and no more: it says nothing of what other machines write to a network share, is missing where the
extra ``edge`` was not installed, and the kernel has so many watches and no more. Who waits here looks now and then for
himself, and more often where `follow` said that not all is watched.
"""

import logging
import os
import select
import threading
from collections.abc import Collection
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from inotify_simple import INotify

logger = logging.getLogger(__name__)

MAX_FOLDERS: Final = 4096
"""Half of what a kernel of old grants a user."""


class FolderWatch:
    """The folders that one thread waits for; all but `call` belong to that thread.

    Args:
        max_folders: how many are watched; 0 for none.
    """

    def __init__(self, *, max_folders: int = MAX_FOLDERS) -> None:
        self._max_folders = max_folders
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._inotify: INotify | None = None
        self._is_open, self._is_closed, self._closing = False, False, threading.Lock()
        self._numbers: dict[str, int] = {}
        self._folders: dict[int, str] = {}
        self._poll = select.poll()
        self._poll.register(self._reader, select.POLLIN)

    def call(self) -> None:
        """End `wait`, or the next one; from any thread."""
        with self._closing, suppress(BlockingIOError):  # full: somebody has called
            if not self._is_closed:
                os.write(self._writer, b"!")

    def follow(self, folders: Collection[str]) -> tuple[bool, frozenset[str]]:
        """Watch these folders and no others.

        Returns:
            Whether each of them is watched, and those that are since now: what changed in them before, nobody told.
        """
        if not self._is_open:
            self._open()
        inotify = self._inotify
        if inotify is None:
            return False, frozenset()
        for folder in self._numbers.keys() - folders:
            number = self._numbers.pop(folder)
            self._folders.pop(number, None)
            with suppress(OSError):  # a folder that is gone has no watch any more
                inotify.rm_watch(number)
        new = sorted(set(folders) - self._numbers.keys())
        room = self._max_folders - len(self._numbers)
        added = frozenset(folder for folder in new[:room] if self._add(inotify, folder))
        return self._numbers.keys() >= set(folders), added

    def wait(self, timeout_s: float | None, *, gather_s: float = 0.0) -> frozenset[str]:
        """Wait for a call or a change; return the folders in which something has changed, as far as that is known.

        Args:
            timeout_s: how long; None for ever.
            gather_s: how long after a change others are waited for: what is written in many pieces is one change.
        """
        ready = self._poll.poll(None if timeout_s is None else max(0, round(timeout_s * 1000)))
        if ready and all(file != self._reader for file, _ in ready):
            select.select([self._reader], [], [], gather_s)
        with suppress(BlockingIOError):
            while os.read(self._reader, 4096):
                pass
        return frozenset() if self._inotify is None else self._changes(self._inotify)

    def close(self) -> None:
        """Give the watches back."""
        with self._closing:
            if self._is_closed:
                return
            self._is_closed = True
            os.close(self._reader)
            os.close(self._writer)
        if self._inotify is not None:
            self._inotify.close()

    def _open(self) -> None:
        self._is_open = True
        try:
            from inotify_simple import INotify  # noqa: PLC0415 - optional: the extra [edge]

            self._inotify = INotify()
        except (ImportError, OSError) as error:
            logger.info("datasets are polled", extra={"problem": str(error)})
            return
        self._poll.register(self._inotify.fileno(), select.POLLIN)

    def _add(self, inotify: "INotify", folder: str) -> bool:
        from inotify_simple import flags  # noqa: PLC0415 - optional: the extra [edge]

        mask = flags.CREATE | flags.DELETE | flags.MOVED_FROM | flags.MOVED_TO | flags.MODIFY | flags.CLOSE_WRITE
        try:
            number = inotify.add_watch(folder, mask | flags.DELETE_SELF | flags.MOVE_SELF | flags.ONLYDIR)
        except OSError as error:
            logger.debug("folder not watched", extra={"folder": folder, "problem": error.strerror})
            return False
        self._numbers[folder], self._folders[number] = number, folder
        return True

    def _changes(self, inotify: "INotify") -> frozenset[str]:
        from inotify_simple import flags  # noqa: PLC0415 - optional: the extra [edge]

        changed = set[str]()
        for event in inotify.read(timeout=0):
            if event.mask & flags.Q_OVERFLOW:
                changed.update(self._numbers)
            elif (folder := self._folders.get(event.wd)) is not None:
                changed.add(folder)
                if event.mask & (flags.IGNORED | flags.MOVE_SELF):
                    self._forget(inotify, folder, event.wd)
        return frozenset(changed)

    def _forget(self, inotify: "INotify", folder: str, number: int) -> None:
        """Take a folder that is not where it was off, so that the one that comes there is watched anew."""
        self._numbers.pop(folder, None)
        self._folders.pop(number, None)
        with suppress(OSError):
            inotify.rm_watch(number)
