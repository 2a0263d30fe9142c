# SPDX-License-Identifier: Apache-2.0
"""A folder for what a process fetches for itself, gone with it; what a killed one left, the next one removes."""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

PREFIX: Final = "nereid-model-"
# No other process looks at a folder of this name, so that it can be locked before it has the real one.
_UNBORN: Final = "nereid-new-"


class Scratch:
    """A folder of this process alone: replicas on one machine must not fetch into the same.

    Its lock is the kernel's, on the folder itself: it goes with the process, however that ends.
    """

    def __init__(self, top: Path | None = None) -> None:
        self._top = Path(tempfile.gettempdir()) if top is None else top
        self._path: Path | None = None
        self._lock = -1

    @property
    def path(self) -> Path:
        """The folder, made on first use."""
        if self._path is None:
            remove_left(self._top)
            unborn = Path(tempfile.mkdtemp(prefix=_UNBORN, dir=self._top))
            self._lock = os.open(unborn, os.O_RDONLY)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            self._path = unborn.rename(unborn.with_name(PREFIX + unborn.name.removeprefix(_UNBORN)))
        return self._path

    def remove(self) -> None:
        """Remove the folder with all that is in it."""
        if self._path is not None:
            shutil.rmtree(self._path, ignore_errors=True)
            os.close(self._lock)
            self._path = None


def remove_left(top: Path) -> None:
    """Remove the folders whose processes are gone."""
    for folder in top.glob(f"{PREFIX}*"):
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(lock)
