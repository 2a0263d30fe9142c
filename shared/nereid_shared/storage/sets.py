# SPDX-License-Identifier: Apache-2.0
"""The cache's folders by key, each whole from its first moment on, and which of them this process holds."""

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from nereid_shared.storage.blobs import Blobs
from nereid_shared.storage.checks import sync_folder
from nereid_shared.storage.locks import held


class Sets:
    """The folder ``sets`` of a cache. What is held, no process evicts; usable from several threads."""

    def __init__(self, root: Path, blobs: Blobs) -> None:
        self._folder, self._blobs = root / "sets", blobs
        self._holds: dict[str, int] = {}
        self._fresh: set[str] = set()
        self._mutex = threading.Lock()

    def path(self, key: str) -> Path:
        """Return where the set of a key stands, or would stand."""
        return self._folder / key

    def hold(self, key: str) -> bool:
        """Hold a set and count it as used now; returns whether there is one."""
        descriptor = held(self.path(key))
        if descriptor is None:
            return False
        self._keep(key, descriptor)
        return True

    def let_go(self, kept: Callable[[str], bool]) -> None:
        """Hold no set but those of which `kept` says so, and those that were not held at the last call."""
        with self._mutex:
            for key in [key for key in self._holds if key not in self._fresh and not kept(key)]:
                os.close(self._holds.pop(key))
            self._fresh.clear()

    def close(self) -> None:
        """Hold nothing."""
        with self._mutex:
            while self._holds:
                os.close(self._holds.popitem()[1])

    def is_whole(self, key: str, files: Mapping[str, str]) -> bool:
        """Return whether the set has its files, with the digests that they should have."""
        return all(self._is_right(self.path(key) / name, digest) for name, digest in files.items())

    def settle(self, tree: Path, key: str, files: Mapping[str, str]) -> None:
        """Make a gathered folder the set of its key, held; where there is one, mend what is damaged of it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        target = self.path(key)
        while not self.hold(key):
            if self._place(tree, target, files):
                return
        for name, digest in files.items():
            if not self._is_right(target / name, digest):
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                (tree / name).replace(target / name)

    def _place(self, tree: Path, target: Path, files: Iterable[str]) -> bool:
        """Give a gathered folder its name; returns False where another of the same content has it meanwhile."""
        for folder in {tree, *((tree / name).parent for name in files)}:
            sync_folder(folder)
        # Held before it has its name, so that nobody can evict it in between.
        descriptor = held(tree)
        assert descriptor is not None  # noqa: S101 - nobody else has it
        try:
            tree.rename(target)
        except OSError as error:
            os.close(descriptor)
            if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
                return False
            raise
        self._keep(target.name, descriptor)
        sync_folder(self._folder)
        return True

    def _keep(self, key: str, descriptor: int) -> None:
        with contextlib.suppress(PermissionError):  # a reader's cache may be another's
            os.utime(descriptor)
        with self._mutex:
            former, self._holds[key] = self._holds.get(key), descriptor
            self._fresh.add(key)
        if former is not None:
            os.close(former)

    def _is_right(self, file: Path, digest: str) -> bool:
        try:
            return self._blobs.digest_of(file) == digest
        except FileNotFoundError:
            return False
