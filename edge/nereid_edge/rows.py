# SPDX-License-Identifier: Apache-2.0
"""A sample that waits at the edge, its stream, and the bounds it waits under: the outbox's nouns. No I/O."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple

from nereid_shared.defaults import OUTBOX_KEEP_FOR, OUTBOX_MAX_ATTEMPTS, OUTBOX_MAX_BYTES, OUTBOX_MAX_SAMPLES
from nereid_shared.quantities import duration_s, size_bytes

EXPIRED: Final = "expired"
OVER_BUDGET: Final = "over-budget"
FULL: Final = "full"
POISON: Final = "poison"
FORGOTTEN: Final = "forgotten"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxPolicy:
    """A service's bounds (``edgeWorker.outbox`` of its spec)."""

    keep_for_s: float = duration_s(OUTBOX_KEEP_FOR)
    max_bytes: int = size_bytes(OUTBOX_MAX_BYTES)
    max_samples: int = OUTBOX_MAX_SAMPLES
    max_bytes_per_s: int | None = None
    max_attempts: int = OUTBOX_MAX_ATTEMPTS


class SampleKey(NamedTuple):
    """A sample within its service."""

    stream: str
    seq: int


class Stage(Enum):
    """Where a row is."""

    LIVE = "live"
    STORED = "stored"
    FLYING = "flying"
    LATER = "later"


@dataclass(slots=True, kw_only=True, eq=False)
class Row:
    """One sample that waits for its answer.

    Attributes:
        born: when it was accepted, `deadline` when its caller stops waiting; both in the LC's time.
        attempts: tries that failed in the cloud, or that reached a subscriber and timed out while the service
            answered other samples: a cloud that answers nothing is no fault of the sample's.
        sent: whether it was ever handed to one; further tries are resends.
        flight: number of the current try, so that a late PUBACK of an earlier one changes nothing.
        counted: the last flight that was noted as delivered.
    """

    key: SampleKey
    digest: bytes
    label: str
    score: float
    size: int
    born: float
    deadline: float
    attempts: int = 0
    sent: bool = False
    stage: Stage = Stage.STORED
    was_stored: bool = False
    flight: int = 0
    counted: int = 0
    flown_at: float = 0.0
    due_at: float = 0.0

    def delivered(self, flight: int) -> str | None:
        """Note that a try reached a subscriber; returns the ledger's name for it, None where it was noted before."""
        if flight <= self.counted:
            return None
        self.counted = flight
        first, self.sent = not self.sent, True
        return "sent" if first else "resent"


@dataclass(slots=True, kw_only=True)
class Stream:
    """What of a stream has been accepted: all up to `contiguous`, and `beyond`."""

    contiguous: int = 0
    beyond: set[int] = field(default_factory=set)
    accepted: int = 0
    repeats: int = 0

    def knows(self, seq: int) -> bool:
        """Whether this sample was accepted before."""
        return seq <= self.contiguous or seq in self.beyond

    def add(self, seq: int) -> None:
        """Note a sample as accepted."""
        self.beyond.add(seq)
        self.accepted += 1
        self.absorb()

    def absorb(self) -> None:
        """Move what has become contiguous."""
        while self.contiguous + 1 in self.beyond:
            self.contiguous += 1
            self.beyond.discard(self.contiguous)


class Drop(NamedTuple):
    """A row that was given up, and the ledger's name for why."""

    row: Row
    reason: str


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a sample: its row where it waits now, None where it was dropped at once."""

    row: Row | None
    drops: list[Drop]
