# SPDX-License-Identifier: Apache-2.0
"""The desired state on disk: one SQLite transaction per document, in a file apart from the outbox's."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from nereid_edge.desired import Applied
from nereid_shared.errors import MessageInvalid, TemporaryError, UserError
from nereid_shared.messages import Desired, TaskRow
from nereid_shared.topics import MIB

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS applied (
    one INTEGER PRIMARY KEY CHECK (one = 1), cluster TEXT NOT NULL, epoch INTEGER NOT NULL, rev INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS tasks (uid TEXT PRIMARY KEY, row BLOB NOT NULL);
"""
_MAX_ROW_BYTES: Final = MIB


class DesiredStore:
    """The file ``desired.db``. Documents are rare, so each call has a connection of its own.

    Raises:
        UserError: the file is damaged; `load` and `apply` too.
        TemporaryError: the disk is full or does not answer, or the file is locked; `load` and `apply` too.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._translated(), closing(self._connect()) as connection:
            connection.executescript(_SCHEMA)

    def load(self) -> Applied:
        """Return what was applied last."""
        with self._translated():
            with closing(self._connect()) as connection:
                head = connection.execute("SELECT cluster, epoch, rev FROM applied").fetchone()
                rows = connection.execute("SELECT uid, row FROM tasks").fetchall()
            if head is None:
                return Applied()
            tasks = {uid: TaskRow.decode(row, max_bytes=_MAX_ROW_BYTES) for uid, row in rows}
            return Applied(cluster=head[0], epoch=head[1], rev=head[2], tasks=tasks)

    def apply(self, document: Desired) -> None:
        """Replace what is stored by a document, whole or not at all; on disk when it returns."""
        with self._translated():
            self._replace(document)

    def _replace(self, document: Desired) -> None:
        rows = [(uid, row.encode()) for uid, row in document.tasks.items()]
        with closing(self._connect()) as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("DELETE FROM tasks")
            connection.executemany("INSERT INTO tasks VALUES (?, ?)", rows)
            connection.execute(
                "INSERT OR REPLACE INTO applied VALUES (1, ?, ?, ?)", (document.cluster, document.epoch, document.rev)
            )

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA cache_size = -256")
        except sqlite3.DatabaseError:
            connection.close()
            raise
        return connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise TemporaryError(f"{self._path}: {error}") from error
        except (sqlite3.DatabaseError, MessageInvalid) as error:
            raise UserError(
                f"cannot be read: {error}",
                where=str(self._path),
                mend="Move it away: the GlobalManager sends the desired state again",
            ) from error
