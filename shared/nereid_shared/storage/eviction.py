# SPDX-License-Identifier: Apache-2.0
"""What leaves a cache that has grown beyond its bound: what was not used for longest, and what nobody holds."""

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
    root.mkdir(parents=True, exist_ok=True)
    with guarded(root, alone=True):
        before = used = _bytes_below(root)
        _remove_left(root)
        if used > max_bytes:
            _remove_lone_blobs(root)
            used = _bytes_below(root)
        for folder in _least_recent_first(root):
            if used <= max_bytes:
                break
            if not kept(folder.name) and _removed(folder):
                _remove_lone_blobs(root)
                used = _bytes_below(root)
        if used < before:
            _forget(root)
            logger.info("cache shrunk", extra={"freed_bytes": before - used, "used_bytes": used})
    return before - used


def _removed(folder: Path) -> bool:
    with owned_now(folder) as mine:
        if not mine:
            return False
        leaving = folder.rename(folder.with_name(_LEAVING + folder.name))
        shutil.rmtree(leaving, ignore_errors=True)
    return True


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


def _remove_lone_blobs(root: Path) -> None:
    """Remove the blobs that belong to no set: of archives that are unpacked, and of sets that are gone."""
    for blob in _entries(root / "blobs" / "sha256"):
        if blob.stat(follow_symlinks=False).st_nlink == 1:
            Path(blob).unlink()


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
    sizes = dict[tuple[int, int], int]()
    for kind in ("blobs", "sets", "parts"):
        for folder, _, names in os.walk(root / kind):
            for name in names:
                try:
                    status = Path(folder, name).lstat()
                except FileNotFoundError:
                    continue
                sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except FileNotFoundError:
        return
