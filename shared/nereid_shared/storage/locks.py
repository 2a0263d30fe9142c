# SPDX-License-Identifier: Apache-2.0
"""Who has a folder of the cache: the kernel's locks on the folders themselves, which go with their process.

A lock counts only while the folder still has its name: who waited for one may get it on a folder that is gone.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from nereid_shared.storage.patience import LOOK_EVERY_S, Patience


@contextlib.contextmanager
def owned(folder: Path, patience: Patience) -> Iterator[Path]:
    """Have a folder alone, made where it is not there; waits for whoever has it.

    Raises:
        Stopped: `patience` says so while waiting.
    """
    while (descriptor := _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB, make=True)) is None:
        patience.wait(LOOK_EVERY_S)
    try:
        yield folder
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def owned_now(folder: Path) -> Iterator[bool]:
    """Have a folder alone if nobody else has it; yields whether."""
    descriptor = _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def held(folder: Path) -> int | None:
    """Return a descriptor that holds a folder together with others until it is closed; None where there is none."""
    return _locked(folder, fcntl.LOCK_SH)


@contextlib.contextmanager
def guarded(root: Path, *, alone: bool) -> Iterator[None]:
    """Keep out those who guard the same cache, or only those who do it alone; for moments."""
    # Not the root itself: whoever made the cache may have a lock of its own on it.
    folder = root / "blobs"
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def _locked(folder: Path, how: int, *, make: bool = False) -> int | None:
    if make:
        folder.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, how)
        mine, named = os.fstat(descriptor), folder.lstat()
    except (BlockingIOError, FileNotFoundError):
        os.close(descriptor)
        return None
    if (mine.st_dev, mine.st_ino) != (named.st_dev, named.st_ino):
        os.close(descriptor)
        return None
    return descriptor
