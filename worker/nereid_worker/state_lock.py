# SPDX-License-Identifier: Apache-2.0
"""Who has a service's state folder: one process at a time, for two on one page would lose counts and samples."""

import fcntl
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from nereid_shared import environment
from nereid_shared.errors import UserError

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 0.1
PATIENCE_S: Final = 1.0
"""A process that was killed or is about to end lets go within this; only then the waiting is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds the folder, as it wrote itself: a worker's name, "" where that cannot be read, and its pid."""

    worker: str = ""
    pid: int = 0

    def __str__(self) -> str:
        return f"worker {self.worker} (pid {self.pid})" if self.worker else "another process"


class StateLock:
    """The lock of a state folder, as a file in it. The kernel lets it go with the process, however that ends.

    Args:
        folder: the state folder; made where it is not there.
        worker: the name to be known by while holding it.

    Raises:
        UserError: the folder cannot be made or written.
    """

    def __init__(self, folder: Path, *, worker: str) -> None:
        self._folder, self._worker = folder, worker
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise UserError(
                f"the state folder cannot be used: {error.strerror}", where=str(folder),
                mend=f"Let {environment.STATE} name a folder that the worker may write.",
            ) from error  # fmt: skip

    def take(self, *, on_wait: Callable[[Holder], None]) -> None:
        """Return when this process holds the folder.

        Args:
            on_wait: called once where another process holds it for longer than it takes to end.
        """
        told = time.monotonic() + PATIENCE_S
        while not self._try():
            if time.monotonic() >= told:
                told = float("inf")
                holder = self.holder()
                logger.warning("another worker holds the state folder", extra={
                    "folder": str(self._folder), "holder": holder.worker, "pid": holder.pid,
                })  # fmt: skip
                on_wait(holder)
            # Looked at again and again: a blocking lock would not tell who has it by now.
            time.sleep(LOOK_EVERY_S)
        name = json.dumps({"worker": self._worker, "pid": os.getpid()}).encode()
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, name, 0)

    def holder(self) -> Holder:
        """Return who wrote itself into the file last."""
        try:
            said = json.loads(os.pread(self._file, 4096, 0))
            return Holder(worker=str(said["worker"]), pid=int(said["pid"]))
        except (ValueError, TypeError, KeyError):
            return Holder()

    def _try(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._file)
