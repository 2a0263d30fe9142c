# SPDX-License-Identifier: Apache-2.0
"""What was read of files before, kept on disk, so that only changed ones are read again, also after a restart.

A cache: what cannot be read or written is read from the files instead.
"""

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

logger = logging.getLogger(__name__)

# A file system's clock ticks every few ms, and two changes within one tick look the same.
TICK_NS: Final = 50_000_000
_COMMIT_EVERY: Final = 1000
_SLACK: Final = 1000
_SCHEMA: Final = (
    "create table if not exists known (dataset text, file blob, changed_ns integer, size integer, said blob,"
    " primary key (dataset, file)) without rowid"
)
_VERSION: Final = 1
"""Another one wherever what is said of a file changes."""

Stamp = tuple[int, int]


def stamp_of(stat: os.stat_result) -> Stamp:
    """Return what tells one state of a file from another."""
    return stat.st_mtime_ns, stat.st_size


def is_settled(stamp: Stamp, *, now_ns: int) -> bool:
    """Whether a file that changes now would have another stamp."""
    return abs(now_ns - stamp[0]) > TICK_NS


class Known:
    """What is known of a dataset's files. Belongs to one thread.

    Args:
        file: the database; made where there is none, and anew where it is damaged.
        clock: the time of day in nanoseconds.
    """

    def __init__(self, file: Path, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._file, self._clock = file, clock
        self._dataset, self._asked, self._asked_ns, self._written = "", 0, 0, 0
        self._database: sqlite3.Connection | None = None

    def begin(self, dataset: str) -> None:
        """Speak of this dataset from now on, which is gone through from its beginning."""
        self._dataset, self._asked = dataset, 0
        if self._database is None:
            self._open()

    def get(self, name: str, stamp: Stamp) -> bytes | None:
        """Return what was said of a file in this state."""
        self._asked += 1
        self._asked_ns = self._clock()
        rows = self._run(
            "select said from known where dataset = ? and file = ? and changed_ns = ? and size = ?",
            (self._dataset, os.fsencode(name), *stamp),
        )
        return bytes(rows[0][0]) if rows else None

    def put(self, name: str, stamp: Stamp, said: bytes) -> None:
        """Keep what is said of the file that `get` was asked for, unless it may have changed unseen since then."""
        if not is_settled(stamp, now_ns=self._asked_ns):
            return
        self._run(
            "insert or replace into known values (?, ?, ?, ?, ?)", (self._dataset, os.fsencode(name), *stamp, said)
        )
        self._written += 1
        if self._written % _COMMIT_EVERY == 0:
            self._run("commit")
            self._run("begin")

    def end(self) -> None:
        """It was gone through to its end: make that durable, and forget what is mostly of files that are gone."""
        rows = self._run("select count(*) from known where dataset = ?", (self._dataset,))
        if rows and rows[0][0] > 2 * self._asked + _SLACK:
            self._run("delete from known where dataset = ?", (self._dataset,))
        self._run("commit")
        self._run("begin")

    def keep(self, datasets: set[str]) -> None:
        """Forget all datasets but these."""
        if self._database is None:
            return
        for (dataset,) in self._run("select distinct dataset from known"):
            if dataset not in datasets:
                self._run("delete from known where dataset = ?", (dataset,))

    def close(self) -> None:
        """Close the database."""
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                self._database.commit()
            self._database.close()
            self._database = None

    def _open(self) -> None:
        for attempt in range(2):
            try:
                self._database = database = sqlite3.connect(self._file, isolation_level=None)
                # Nothing is lost with it but time.
                for statement in ("pragma journal_mode = memory", "pragma synchronous = off"):
                    database.execute(statement)
                (version,) = database.execute("pragma user_version").fetchone()
                if version not in {0, _VERSION}:
                    database.execute("drop table if exists known")
                database.execute(f"pragma user_version = {_VERSION}")
                database.execute(_SCHEMA)
                database.execute("begin")
            except sqlite3.Error as error:
                logger.warning("what is known of datasets is not kept", extra={"problem": str(error)})
                self.close()
                if attempt == 0:
                    with contextlib.suppress(OSError):
                        self._file.unlink(missing_ok=True)
            else:
                return

    def _run(self, statement: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        if self._database is None:
            return []
        try:
            return self._database.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            logger.warning("what is known of datasets is lost", extra={"problem": str(error)})
            self.close()
            with contextlib.suppress(OSError):
                self._file.unlink(missing_ok=True)
            return []
