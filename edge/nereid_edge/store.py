# SPDX-License-Identifier: Apache-2.0
"""The outbox on disk: samples, counters and streams in SQLite, written by one thread in group commits.

The loop gathers `Change`s for a moment and goes on; the thread takes all that has queued, commits it with one fsync
(``synchronous=FULL``), and calls back on the loop. Each change is whole: the row with its counters and its stream, so
that after a crash the disk holds a state through which the process passed.
"""

import asyncio
import json
import logging
import queue
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from nereid_edge.records import AnswerRecord, Change, Loaded, StreamRecord
from nereid_edge.rows import Row, SampleKey
from nereid_shared.errors import TemporaryError, UserError

logger = logging.getLogger(__name__)

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS samples (
    service TEXT NOT NULL, stream TEXT NOT NULL, seq INTEGER NOT NULL, digest BLOB NOT NULL, label TEXT NOT NULL,
    score REAL NOT NULL, size INTEGER NOT NULL, born REAL NOT NULL, deadline REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, sent INTEGER NOT NULL DEFAULT 0, body BLOB NOT NULL,
    PRIMARY KEY (service, stream, seq)
);
CREATE TABLE IF NOT EXISTS counters (
    service TEXT NOT NULL, name TEXT NOT NULL, value INTEGER NOT NULL, PRIMARY KEY (service, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS streams (
    service TEXT NOT NULL, stream TEXT NOT NULL, contiguous INTEGER NOT NULL, beyond TEXT NOT NULL,
    accepted INTEGER NOT NULL, easy INTEGER NOT NULL, hard INTEGER NOT NULL, worker TEXT NOT NULL,
    PRIMARY KEY (service, stream)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS answers (
    service TEXT NOT NULL, stream TEXT NOT NULL, seq INTEGER NOT NULL, late INTEGER NOT NULL, body BLOB NOT NULL,
    since REAL NOT NULL DEFAULT 0, deadline REAL NOT NULL DEFAULT 9e999, PRIMARY KEY (service, stream, seq)
);
CREATE TABLE IF NOT EXISTS deleted (service TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS clock (one INTEGER PRIMARY KEY CHECK (one = 1), seconds REAL NOT NULL);
"""
# For a file that was made before answers had an age, and a deadline: then what was not late is never late.
_ADDED: Final = {
    "since": "ALTER TABLE answers ADD COLUMN since REAL NOT NULL DEFAULT 0",
    "deadline": """
        ALTER TABLE answers ADD COLUMN deadline REAL NOT NULL DEFAULT 9e999;
        UPDATE answers SET deadline = since - 1 WHERE late;
    """,
}
_COUNT: Final = (
    "INSERT INTO counters VALUES (?, ?, ?) ON CONFLICT (service, name) DO UPDATE SET value = value + excluded.value"
)
_STREAM: Final = "INSERT OR REPLACE INTO streams VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_CLOCK: Final = "INSERT OR REPLACE INTO clock VALUES (1, ?)"
_BODY: Final = "SELECT body FROM samples WHERE service = ? AND stream = ? AND seq = ?"

_FORGET: Final = tuple(
    f"DELETE FROM {table} WHERE service = ?"  # noqa: S608 - our own names
    for table in ("samples", "counters", "streams", "answers", "deleted")
)

RETRY_S: Final = 1.0
# A live sample is answered within a few milliseconds: its commit then does not compete with its round trip for the
# interpreter, and row and answer share one fsync.
GATHER_S: Final = 0.004


class OutboxStore:
    """The file ``outbox.db`` and its writer thread; use it as an async context manager.

    Attributes:
        failing: why the last commit failed, "" while all is well; it is tried again until it succeeds.
        full: the disk's being full is why.

    Raises:
        UserError: the file is damaged.
        TemporaryError: the disk is full or does not answer, or the file is locked.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.failing, self.full = "", False
        self._queue: queue.SimpleQueue[list[Change] | None] = queue.SimpleQueue()
        self._gathered: list[Change] = []
        self._gathering: asyncio.TimerHandle | None = None
        self._closing = threading.Event()
        self._died: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._write, name="outbox", daemon=True)
        with self._translated(), closing(self._connect()) as connection:
            connection.executescript(_SCHEMA)
            present = {name for _, name, *_ in connection.execute("PRAGMA table_info(answers)").fetchall()}
            for name, script in _ADDED.items():
                if name not in present:
                    connection.executescript(script)
        self._reader: sqlite3.Connection | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._died = self._loop.create_future()
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()
        self._closing.set()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        if self._reader is not None:
            self._reader.close()

    def load(self) -> Loaded:
        """Return what is stored."""
        with self._translated(), closing(self._connect()) as reader:
            samples = reader.execute(
                "SELECT service, stream, seq, digest, label, score, size, born, deadline, attempts, sent"
                " FROM samples ORDER BY born, rowid"
            )
            rows = [(sys.intern(row[0]), _row(row[1:])) for row in samples]
            counters = reader.execute("SELECT service, name, value FROM counters").fetchall()
            streams = reader.execute("SELECT * FROM streams").fetchall()
            answers = reader.execute(
                "SELECT service, stream, seq, since, deadline, body FROM answers ORDER BY rowid"
            ).fetchall()
            deleted = dict(reader.execute("SELECT service, until FROM deleted").fetchall())
            clock = reader.execute("SELECT seconds FROM clock").fetchone()
        by_service: dict[str, dict[str, int]] = {}
        for service, name, value in counters:
            by_service.setdefault(service, {})[name] = value
        return Loaded(
            rows=rows,
            counters=by_service,
            streams=[
                StreamRecord(service, stream, contiguous, tuple(json.loads(beyond)), *rest)
                for service, stream, contiguous, beyond, *rest in streams
            ],
            answers=[AnswerRecord(service, SampleKey(stream, seq), *rest) for service, stream, seq, *rest in answers],
            deleted=deleted,
            clock=clock[0] if clock else 0.0,
        )

    def put(self, change: Change) -> None:
        """Hand a change to the writer; it will be committed in the order of the calls."""
        self._gathered.append(change)
        if self._gathering is None and self._loop is not None:
            self._gathering = self._loop.call_later(GATHER_S, self.flush)

    def put_lazily(self, change: Change) -> None:
        """As `put`, with the next one: for what may be lost in a crash as long as it is lost whole."""
        self._gathered.append(change)

    def flush(self) -> None:
        """Hand over what was gathered."""
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        if self._gathered:
            gathered, self._gathered = self._gathered, []
            self._queue.put(gathered)

    async def committed(self) -> None:
        """Return when all that was put before is on disk."""
        done = asyncio.Event()
        self.put(Change(done=done.set))
        self.flush()
        await done.wait()

    def body(self, service: str, key: SampleKey) -> bytes | None:
        """Return a committed sample's body."""
        if self._reader is None:
            # Not before it is needed: a connection costs memory, and live samples never need it.
            self._reader = self._connect()
        found = self._reader.execute(_BODY, (service, key.stream, key.seq)).fetchone()
        return found[0] if found else None

    async def watch(self) -> None:
        """Never return; raise what ended the writer, since nothing is accepted without it."""
        assert self._died is not None  # noqa: S101 - set on entering
        await self._died

    def _connect(self) -> sqlite3.Connection:
        with self._translated():
            connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA cache_size = -128")
            connection.execute("PRAGMA journal_size_limit = 4194304")
            return connection

    def _write(self) -> None:
        try:
            with closing(self._connect()) as connection:
                more = True
                while more:
                    batch, more = self._next_batch()
                    if batch:
                        self._commit_in_the_end(connection, batch)
        except Exception as error:  # handed to `watch`, which ends the process with it
            logger.exception("the outbox's writer ended")
            if self._loop is not None and self._died is not None:
                self._loop.call_soon_threadsafe(self._died.set_exception, error)

    def _next_batch(self) -> tuple[list[Change], bool]:
        """Return all that waits, and whether more may come."""
        batch: list[Change] = []
        changes = self._queue.get()
        while changes is not None:
            batch += changes
            try:
                changes = self._queue.get_nowait()
            except queue.Empty:
                return batch, True
        return batch, False

    def _commit_in_the_end(self, connection: sqlite3.Connection, batch: list[Change]) -> None:
        while True:
            try:
                self._commit(connection, batch)
            except sqlite3.OperationalError as error:
                # A full disk is somebody's to empty: what was not committed is not accepted, and the workers hold it.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                if not self.failing:
                    logger.error("the outbox cannot be written", extra={"problem": str(error)})
                self.failing, self.full = str(error), error.sqlite_errorcode == sqlite3.SQLITE_FULL
                if self._closing.wait(RETRY_S):
                    return
                if self.full:
                    self._make_room(connection, batch)
                continue
            if self.failing:
                logger.info("the outbox can be written again")
                self.failing, self.full = "", False
            self._call_back([change.done for change in batch if change.done is not None])
            return

    def _make_room(self, connection: sqlite3.Connection, batch: list[Change]) -> None:
        """Take what has queued into the batch, and remove first what is to be forgotten: its pages are free then."""
        with suppress(queue.Empty):
            while (changes := self._queue.get_nowait()) is not None:
                batch += changes
            self._queue.put(None)
        forgotten = [change.forget for change in batch if change.forget is not None]
        if forgotten:
            with suppress(sqlite3.OperationalError), connection:
                connection.execute("BEGIN IMMEDIATE")
                for service in forgotten:
                    _forget(connection, service)

    def _commit(self, connection: sqlite3.Connection, batch: Iterable[Change]) -> None:
        counts: dict[tuple[str, str], int] = {}
        streams: dict[tuple[str, str], StreamRecord] = {}
        clock: float | None = None
        execute = connection.execute
        execute("BEGIN IMMEDIATE")
        for change in batch:
            for sql, values in change.statements:
                execute(sql, values)
            for service, name, value in change.counts:
                counts[service, name] = counts.get((service, name), 0) + value
            if change.stream is not None:
                streams[change.stream[:2]] = change.stream
            if change.forget is not None:
                _forget(connection, change.forget)
                counts = {key: value for key, value in counts.items() if key[0] != change.forget}
                streams = {key: value for key, value in streams.items() if key[0] != change.forget}
            clock = change.clock if change.clock is not None else clock
        connection.executemany(_COUNT, [(*key, value) for key, value in counts.items()])
        connection.executemany(_STREAM, [_stored(record) for record in streams.values()])
        if clock is not None:
            execute(_CLOCK, (clock,))
        execute("COMMIT")

    def _call_back(self, callbacks: list[Callable[[], None]]) -> None:
        loop = self._loop
        if callbacks and loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(_call_all, callbacks)

    def _translated(self) -> "_Translated":
        return _Translated(self._path)


class _Translated:
    """A context in which a damaged file is the user's to mend, and a full disk or a locked file is for a while."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, sqlite3.OperationalError):
            raise TemporaryError(f"{self._path}: {error}") from error
        if isinstance(error, sqlite3.DatabaseError):
            raise UserError(
                f"cannot be read: {error}",
                where=str(self._path),
                mend="Move it away: the samples that wait in it, and the counts of all services, go with it",
            ) from error


def _call_all(callbacks: list[Callable[[], None]]) -> None:
    for callback in callbacks:
        callback()


def _forget(connection: sqlite3.Connection, service: str) -> None:
    for sql in _FORGET:
        connection.execute(sql, (service,))


def _stored(record: StreamRecord) -> tuple[object, ...]:
    return (*record[:3], json.dumps(record.beyond), *record[4:])


def _row(values: Sequence[Any]) -> Row:
    stream, seq, digest, label, score, size, born, deadline, attempts, sent = values
    return Row(
        key=SampleKey(sys.intern(stream), seq), digest=digest, label=sys.intern(label), score=score, size=size,
        born=born, deadline=deadline, attempts=attempts, sent=bool(sent),
    )  # fmt: skip
