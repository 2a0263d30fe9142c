# SPDX-License-Identifier: Apache-2.0
"""What is kept in the outbox's file: its records, and the changes that are committed whole. No I/O."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from nereid_edge.rows import Row, SampleKey

_INSERT: Final = "INSERT OR IGNORE INTO samples VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_DELETE: Final = "DELETE FROM samples WHERE service = ? AND stream = ? AND seq = ?"
_TRIED: Final = "UPDATE samples SET attempts = ?, sent = ? WHERE service = ? AND stream = ? AND seq = ?"
_KEEP_ANSWER: Final = "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)"
_DROP_ANSWER: Final = "DELETE FROM answers WHERE service = ? AND stream = ? AND seq = ?"
_MARK_DELETED: Final = "INSERT OR REPLACE INTO deleted VALUES (?, ?)"
_UNMARK_DELETED: Final = "DELETE FROM deleted WHERE service = ?"

Statement = tuple[str, Sequence[Any]]


class StreamRecord(NamedTuple):
    """A stream as it is stored.

    `easy` and `hard` are the worker's, as of its last sample; `worker` is its ledger in JSON, "" before the first.
    """

    service: str
    stream: str
    contiguous: int
    beyond: tuple[int, ...]
    accepted: int
    easy: int
    hard: int
    worker: str


class AnswerRecord(NamedTuple):
    """An answer that no worker has taken yet.

    `since` is when it came, `deadline` when the caller stops waiting for it; both in the LC's time. What the cloud said
    instead of an answer is never late: its deadline is infinite.
    """

    service: str
    key: SampleKey
    since: float
    deadline: float
    body: bytes

    @property
    def came_late(self) -> bool:
        """Whether it came after its deadline, and was counted as late then."""
        return self.since > self.deadline


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What belongs together.

    Attributes:
        counts: increments by (service, name).
        stream: the stream as it is after this change.
        forget: a service of which nothing is kept, what came before in the same commit included.
        clock: the LC's time.
        done: called on the loop after the commit.
    """

    statements: Sequence[Statement] = ()
    counts: Sequence[tuple[str, str, int]] = ()
    stream: StreamRecord | None = None
    forget: str | None = None
    clock: float | None = None
    done: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What the disk held at the start.

    Attributes:
        rows: by service, the oldest first.
        counters: by service and name.
        deleted: until when what is left of a deleted service is kept, in the LC's time.
        clock: the LC's time.
    """

    rows: list[tuple[str, Row]] = field(default_factory=list)
    counters: dict[str, dict[str, int]] = field(default_factory=dict)
    streams: list[StreamRecord] = field(default_factory=list)
    answers: list[AnswerRecord] = field(default_factory=list)
    deleted: dict[str, float] = field(default_factory=dict)
    clock: float = 0.0

    @property
    def services(self) -> set[str]:
        """All services of which something is stored."""
        return {*self.counters, *(one.service for one in self.streams), *self.deleted}


def insert(service: str, row: Row, body: bytes) -> Statement:
    """Return the statement that stores a sample."""
    k = row.key
    return _INSERT, (
        service, k.stream, k.seq, row.digest, row.label, row.score, row.size, row.born, row.deadline, row.attempts,
        row.sent, body,
    )  # fmt: skip


def delete(service: str, key: SampleKey) -> Statement:
    """Return the statement that removes a sample."""
    return _DELETE, (service, key.stream, key.seq)


def tried(service: str, row: Row) -> Statement:
    """Return the statement that stores a sample's tries."""
    return _TRIED, (row.attempts, row.sent, service, row.key.stream, row.key.seq)


def keep_answer(answer: AnswerRecord) -> Statement:
    """Return the statement that stores an answer until a worker takes it."""
    key = answer.key
    return _KEEP_ANSWER, (
        answer.service, key.stream, key.seq, answer.came_late, answer.body, answer.since, answer.deadline,
    )  # fmt: skip


def drop_answer(service: str, key: SampleKey) -> Statement:
    """Return the statement that removes a delivered answer."""
    return _DROP_ANSWER, (service, key.stream, key.seq)


def mark_deleted(service: str, until: float) -> Statement:
    """Return the statement that keeps what is left of a deleted service until a time of the LC."""
    return _MARK_DELETED, (service, until)


def unmark_deleted(service: str) -> Statement:
    """Return the statement that makes a deleted service one like the others again."""
    return _UNMARK_DELETED, (service,)
