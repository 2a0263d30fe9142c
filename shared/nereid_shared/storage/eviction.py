# SPDX-License-Identifier: Apache-2.0
"""What leaves a cache that has grown beyond its bound: what was not used for longest, and what nobody holds."""

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from nereid_shared.storage.checks import UNFINISHED
from nereid_shared.storage.locks import guarded, owned_now

logger = logging.getLogger(__name__)

# No lookup finds a folder of this name, so that it can be removed at leisure; a killed process leaves it to the next.
_LEAVING: Final = ".leaving-"


def evict(root: Path, *, max_bytes: int, kept: Callable[[str], bool]) -> int:
    """Bring the cache at `root` down to its bound; returns the bytes freed.

    Args:
        root: the cache's folder.
        max_bytes: the bound.
        kept: says of a set's key that it must stay.
    """
    freed = 0
    with guarded(root, alone=True):
        _remove_left(root)
        excess = _bytes_below(root) - max_bytes
        if excess > 0:
            freed += _remove_lone_blobs(root)
        for folder in _least_recent_first(root):
            if freed >= excess:
                break
            if not kept(folder.name):
                freed += _remove(folder) + _remove_lone_blobs(root)
        if freed:
            _forget(root)
            logger.info("cache shrunk", extra={"freed_bytes": freed})
    return freed


def _remove(folder: Path) -> int:
    """Remove a folder that nobody has or holds; returns the bytes that had no other name."""
    with owned_now(folder) as mine:
        if not mine:
            return 0
        leaving = folder.rename(folder.with_name(_LEAVING + folder.name))
        freed = sum(status.st_size for status in _files_below(leaving) if status.st_nlink == 1)
        shutil.rmtree(leaving, ignore_errors=True)
    return freed


def _least_recent_first(root: Path) -> list[Path]:
    used_at = dict[Path, float]()
    for kind in ("sets", "parts"):
        for folder in _entries(root / kind):
            try:
                used_at[Path(folder)] = folder.stat(follow_symlinks=False).st_mtime
            except FileNotFoundError:
                continue
    return sorted(used_at, key=used_at.__getitem__)


def _remove_left(root: Path) -> None:
    """Remove what a killed process left half removed or half written."""
    for kind in ("sets", "parts"):
        for folder in (root / kind).glob(f"{_LEAVING}*"):
            shutil.rmtree(folder, ignore_errors=True)
    for kind in ("urls", "known"):
        for record in (root / kind).glob(f"{UNFINISHED}*"):
            record.unlink(missing_ok=True)


def _remove_lone_blobs(root: Path) -> int:
    """Remove the blobs that belong to no set: of archives that are unpacked, and of sets that are gone."""
    freed = 0
    for blob in _entries(root / "blobs" / "sha256"):
        status = blob.stat(follow_symlinks=False)
        if status.st_nlink == 1:
            Path(blob).unlink()
            freed += status.st_size
    return freed


def _forget(root: Path) -> None:
    """Remove what is remembered of files and sets that are gone."""
    sets = {folder.name for folder in _entries(root / "sets")}
    digests = {key.partition("-")[0] for key in sets} | {blob.name for blob in _entries(root / "blobs" / "sha256")}
    for folder, field, there in (("urls", "digest", digests), ("known", "key", sets)):
        for record in (root / folder).glob("*.json"):
            try:
                stale = json.loads(record.read_text())[field] not in there
            except (OSError, ValueError, TypeError, KeyError):
                stale = True
            if stale:
                record.unlink(missing_ok=True)


def _bytes_below(root: Path) -> int:
    """Return the size of all files, each counted once, however many names it has."""
    found = (status for kind in ("blobs", "sets", "parts") for status in _files_below(root / kind))
    return sum({(status.st_dev, status.st_ino): status.st_size for status in found}.values())


def _files_below(folder: Path) -> Iterator[os.stat_result]:
    for inside, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                yield Path(inside, name).lstat()


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except FileNotFoundError:
        return
