# SPDX-License-Identifier: Apache-2.0
"""The LocalCluster's file: objects and the log of their changes, in SQLite.

It knows nothing of Kubernetes' rules: a transaction reads and writes whole objects, gives each write the next
resourceVersion, and logs it for the watches. Several processes may use one file at once.
"""

import fcntl
import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from nereid_cloud.cluster.port import Kind, Object
from nereid_shared.errors import Unavailable, UserError

BUSY_TIMEOUT_S: Final = 30.0  # a writer holds the file for well below a millisecond; only a stopped machine waits long
_FORMAT: Final = 1
_PRUNE_EVERY: Final = 256  # revisions
_TABLES: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('revision', 0), ('pruned', 0);
CREATE TABLE objects (
    resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, uid TEXT NOT NULL UNIQUE,
    body TEXT NOT NULL, applied TEXT NOT NULL, written REAL NOT NULL, PRIMARY KEY (resource, namespace, name)
);
CREATE TABLE owners (owner TEXT NOT NULL, dependent TEXT NOT NULL, PRIMARY KEY (owner, dependent)) WITHOUT ROWID;
CREATE INDEX owners_of ON owners (dependent);
CREATE TABLE changes (
    revision INTEGER PRIMARY KEY, resource TEXT NOT NULL, namespace TEXT NOT NULL,
    type TEXT NOT NULL, body TEXT NOT NULL, before TEXT
);
CREATE INDEX changes_of ON changes (resource, revision);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An object as it lies in the file.

    Attributes:
        applied: what each manager applied last: field paths by manager.
    """

    object: Object
    applied: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One line of the log.

    Attributes:
        object: the object after the change; where it was deleted, its last state with the deletion's version.
        before: the object before it, where it was modified.
    """

    type: str
    object: Object
    before: Object | None


class Transaction:
    """Reads and writes at one moment of the file."""

    def __init__(self, connection: sqlite3.Connection, *, history: int) -> None:
        self._connection, self._history = connection, history

    def revision(self) -> int:
        """The last resourceVersion given out."""
        return self._meta("revision")

    def pruned(self) -> int:
        """The last resourceVersion that the log of changes no longer holds."""
        return self._meta("pruned")

    def _meta(self, key: str) -> int:
        (value,) = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return int(value)

    def find(self, kind: Kind, namespace: str, name: str) -> Stored | None:
        """Return one object."""
        row = self._connection.execute(
            "SELECT body, applied FROM objects WHERE resource = ? AND namespace = ? AND name = ?",
            (kind.resource, namespace, name),
        ).fetchone()
        return _stored(row) if row else None

    def with_uid(self, uid: str) -> Stored | None:
        """Return the object of that uid."""
        row = self._connection.execute("SELECT body, applied FROM objects WHERE uid = ?", (uid,)).fetchone()
        return _stored(row) if row else None

    def objects(self, kind: Kind, namespace: str | None, name: str | None = None) -> Iterator[Object]:
        """Yield the objects of a kind by namespace and name; namespace None means all of them."""
        query, values = "SELECT body FROM objects WHERE resource = ?", [kind.resource]
        for column, value in (("namespace", namespace), ("name", name)):
            if value is not None:
                query += f" AND {column} = ?"
                values.append(value)
        for (body,) in self._connection.execute(f"{query} ORDER BY namespace, name", values):
            yield json.loads(body)

    def written_before(self, kind: Kind, at: float) -> list[Object]:
        """Return the objects of a kind that nobody has written since a time, in seconds of the epoch."""
        rows = self._connection.execute(
            "SELECT body FROM objects WHERE resource = ? AND written < ?", (kind.resource, at)
        ).fetchall()
        return [json.loads(body) for (body,) in rows]

    def in_namespace(self, namespace: str) -> list[Object]:
        """Return everything that lives in a namespace."""
        rows = self._connection.execute("SELECT body FROM objects WHERE namespace = ?", (namespace,)).fetchall()
        return [json.loads(body) for (body,) in rows]

    def dependents(self, uid: str) -> list[Object]:
        """Return the objects whose owner references name that uid."""
        rows = self._connection.execute(
            "SELECT body FROM owners JOIN objects ON objects.uid = owners.dependent WHERE owner = ?", (uid,)
        ).fetchall()
        return [json.loads(body) for (body,) in rows]

    def put(self, kind: Kind, obj: Object, *, before: Object | None, applied: Mapping[str, Any]) -> Object:
        """Write an object under the next resourceVersion, which it then carries, and return it."""
        metadata = obj["metadata"]
        metadata["resourceVersion"] = str(self._next_revision())
        body, place = _dumps(obj), (kind.resource, metadata.get("namespace", ""))
        if before is None:
            self._connection.execute(
                "INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*place, metadata["name"], metadata["uid"], body, _dumps(applied), time.time()),
            )
        else:
            self._connection.execute(
                "UPDATE objects SET body = ?, applied = ?, written = ? WHERE uid = ?",
                (body, _dumps(applied), time.time(), metadata["uid"]),
            )
        if metadata.get("ownerReferences") != ((before or {}).get("metadata") or {}).get("ownerReferences"):
            self._own(metadata)
        self._log(kind, Change(type="MODIFIED" if before else "ADDED", object=obj, before=before))
        return obj

    def set_applied(self, uid: str, applied: Mapping[str, Any]) -> None:
        """Record what each manager applied, where the object itself stays as it is."""
        self._connection.execute("UPDATE objects SET applied = ? WHERE uid = ?", (_dumps(applied), uid))

    def _own(self, metadata: Mapping[str, Any]) -> None:
        self._connection.execute("DELETE FROM owners WHERE dependent = ?", (metadata["uid"],))
        self._connection.executemany(
            "INSERT OR IGNORE INTO owners VALUES (?, ?)",
            [(owner["uid"], metadata["uid"]) for owner in metadata.get("ownerReferences") or ()],
        )

    def remove(self, kind: Kind, obj: Object) -> None:
        """Delete an object; the log keeps its last state."""
        uid = obj["metadata"]["uid"]
        self._connection.execute("DELETE FROM objects WHERE uid = ?", (uid,))
        self._connection.execute("DELETE FROM owners WHERE dependent = ?", (uid,))
        last = obj | {"metadata": obj["metadata"] | {"resourceVersion": str(self._next_revision())}}
        self._log(kind, Change(type="DELETED", object=last, before=None))

    def _next_revision(self) -> int:
        (revision,) = self._connection.execute(
            "UPDATE meta SET value = value + 1 WHERE key = 'revision' RETURNING value"
        ).fetchone()
        return int(revision)

    def _log(self, kind: Kind, change: Change) -> None:
        metadata = change.object["metadata"]
        revision = int(metadata["resourceVersion"])
        before = None if change.before is None else _dumps(change.before)
        self._connection.execute(
            "INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?)",
            (revision, kind.resource, metadata.get("namespace", ""), change.type, _dumps(change.object), before),
        )
        if revision % _PRUNE_EVERY == 0 and revision > self._history:
            last = revision - self._history
            self._connection.execute("DELETE FROM changes WHERE revision <= ?", (last,))
            self._connection.execute("UPDATE meta SET value = ? WHERE key = 'pruned'", (last,))

    def changes(self, kind: Kind, namespace: str | None, *, after: int, limit: int) -> list[Change]:
        """Return the oldest changes of a kind after a resourceVersion."""
        query, values = (
            "SELECT type, body, before FROM changes WHERE resource = ? AND revision > ?",
            [
                kind.resource,
                after,
            ],
        )
        if namespace is not None:
            query += " AND namespace = ?"
            values.append(namespace)
        rows = self._connection.execute(f"{query} ORDER BY revision LIMIT {limit:d}", values)
        return [
            Change(type=kind_of_change, object=json.loads(body), before=json.loads(before) if before else None)
            for kind_of_change, body, before in rows
        ]


def _stored(row: tuple[str, str]) -> Stored:
    return Stored(object=json.loads(row[0]), applied=json.loads(row[1]))


def _dumps(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


class Store:
    """The file, and this process's connections to it."""

    def __init__(self, path: Path, *, history: int) -> None:
        """Open the file; make it where it is absent.

        Args:
            path: the database; its folder is made.
            history: changes that are kept for watches, at least.

        Raises:
            UserError: the file is of another format, or no database at all.
        """
        self._path, self._history = path, history
        self._free: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        # SQLite lets its writers poll; within this process they may as well queue.
        self._writing = threading.Lock()
        self._closed = False
        path.parent.mkdir(parents=True, exist_ok=True)
        self._prepare()

    def _prepare(self) -> None:
        # The change to WAL and the tables are made by one process while the others wait: SQLite alone answers
        # "locked" at once to two that change the journal mode together.
        with (
            self._path.with_name(self._path.name + ".lock").open("w") as lock,
            closing(sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None)) as connection,
        ):
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                (found,) = connection.execute("PRAGMA user_version").fetchone()
                if found == 0:
                    connection.execute("PRAGMA journal_mode = WAL")
                    connection.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {_FORMAT}; COMMIT;")
            except sqlite3.DatabaseError as error:
                raise UserError(
                    f"this is not a cluster's database ({error})",
                    where=str(self._path),
                    mend="Choose another state folder, or remove this file.",
                ) from error
            if found not in (0, _FORMAT):
                raise UserError(
                    f"the file is of format {found}, this version reads format {_FORMAT}",
                    where=str(self._path),
                    mend="Choose another state folder, or use the version that wrote it.",
                )

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection that nobody else uses meanwhile."""
        connection = self._lend()
        try:
            yield connection
        finally:
            self._take_back(connection)

    def _lend(self) -> sqlite3.Connection:
        with self._lock:
            if self._closed:
                raise Unavailable("the cluster is closed")
            return self._free.pop() if self._free else self._open()

    def _take_back(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            self._free.append(connection)
            if self._closed:
                self._close_free()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        # In WAL mode NORMAL survives kill -9 whole; only a power cut may take the last commits, never the file.
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """Open a transaction that sees one moment of the file."""
        with self._transaction("BEGIN", commit=True) as transaction:
            yield transaction

    @contextmanager
    def write(self, *, dry_run: bool = False) -> Iterator[Transaction]:
        """Open a transaction that no other writer overlaps; it is undone after an error and in a dry run."""
        with self._writing, self._transaction("BEGIN IMMEDIATE", commit=not dry_run) as transaction:
            yield transaction

    @contextmanager
    def _transaction(self, begin: str, *, commit: bool) -> Iterator[Transaction]:
        with self.connection() as connection:
            try:
                connection.execute(begin)
                try:
                    yield Transaction(connection, history=self._history)
                    connection.execute("COMMIT" if commit else "ROLLBACK")
                finally:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
            except sqlite3.OperationalError as error:
                raise Unavailable(f"{self._path}: {error}") from error
            except sqlite3.DatabaseError as error:
                raise UserError(
                    f"the file is damaged ({error})",
                    where=str(self._path),
                    mend="Begin anew with another state folder; what the nodes run goes on meanwhile.",
                ) from error

    def close(self) -> None:
        """Close the connections that are not lent; those that are close on their return."""
        with self._lock:
            self._closed = True
            self._close_free()

    def _close_free(self) -> None:
        while self._free:
            self._free.pop().close()


def check(path: Path) -> None:
    """Read the whole file once and refuse one that is damaged; it stays as it is.

    Raises:
        UserError: its pages do not hang together.
    """
    if not path.exists():
        return
    problem = ""
    try:
        # Read-only: a closing writer would carry the log into a file of which somebody may save more as it is.
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_S)) as found:
            (problem,) = found.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        raise UserError(f"cannot be read ({error})", where=str(path), mend="Look at its rights and its disk") from error
    except sqlite3.DatabaseError as error:
        problem = str(error)
    if problem != "ok":
        raise UserError(
            f"the cluster's database is damaged ({problem.splitlines()[-1]}); nothing was changed",
            where=str(path),
            mend="Put a copy in its place, or begin anew: nereid up --state ANOTHER, and apply your manifests",
        )


def new_uid() -> str:
    """Return a fresh uid."""
    return str(uuid.uuid4())
