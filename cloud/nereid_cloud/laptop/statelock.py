# SPDX-License-Identifier: Apache-2.0
"""Who runs on a state folder: one system at a time, told by a lock that ends with its process."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from nereid_shared.errors import UserError

_LOCK: Final = "lock"
_OWNER: Final = "owner"
_PATIENCE_S: Final = 0.5
"""Whoever only asks holds the lock for a moment."""


@contextmanager
def held(state: Path) -> Iterator[None]:
    """Hold a state folder.

    Raises:
        UserError: on entering: somebody else does.
    """
    with (state / _LOCK).open("a+") as lock:
        end = time.monotonic() + _PATIENCE_S
        while not _try(lock.fileno(), fcntl.LOCK_EX):
            if time.monotonic() > end:
                raise _taken(state)
            time.sleep(0.01)
        (state / _OWNER).write_text(f"{os.getpid()}\n")
        try:
            yield
        finally:
            (state / _OWNER).unlink(missing_ok=True)


def is_held(state: Path) -> bool:
    """Whether a system runs on a state folder."""
    if not (state / _OWNER).exists():
        return False
    try:
        with (state / _LOCK).open() as lock:
            return not _try(lock.fileno(), fcntl.LOCK_SH)
    except OSError:
        return False


def check_free(state: Path) -> None:
    """Refuse a state folder on which a system runs.

    Raises:
        UserError.
    """
    if is_held(state):
        raise _taken(state)


def owner(state: Path) -> int:
    """Return the process that holds a state folder, or did so last; 0 where none is known."""
    try:
        return int((state / _OWNER).read_text())
    except (OSError, ValueError):
        return 0


def _taken(state: Path) -> UserError:
    return UserError(
        f"a system runs there already (process {owner(state)})",
        where=str(state),
        mend="Stop it with nereid down, or choose another --state",
    )


def _try(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
