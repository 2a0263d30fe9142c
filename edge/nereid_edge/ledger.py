# SPDX-License-Identifier: Apache-2.0
"""One service's ledger at a node: the worker's own counts joined with the outbox's, so that the identities hold.

Each count only grows, whatever order the worker's reports, its samples and the restarts of either side come in: what is
reported of a stream is the largest that was heard of it, and sums are made of those.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from nereid_edge.outbox import Outbox
from nereid_shared import histogram
from nereid_shared.errors import MessageInvalid
from nereid_shared.messages import Ledger
from nereid_shared.topics import WORKER_INFO

DROPPED: Final = "dropped."
CLOUD: Final = "cloud."
_OUR_COUNTS: Final = (
    "sent", "resent", "late", "changed", "corrected", "undelivered", "bytes_up", "bytes_down",
)  # fmt: skip


@dataclass(slots=True)
class WorkerSide:
    """What the worker said of one stream: by its samples (`easy`, `hard`) and by its info (`ledger`)."""

    easy: int = 0
    hard: int = 0
    ledger: Ledger = field(default_factory=Ledger)

    def took(self, easy: int, hard: int) -> None:
        """Take in the counts that a sample carried."""
        self.easy, self.hard = max(self.easy, easy), max(self.hard, hard)

    @property
    def numbered(self) -> int:
        """How many samples the worker gave a number, as far as is known: the hard ones but for those it dropped."""
        return self.hard - sum(self.ledger.dropped.values())

    def reported(self, ledger: Ledger, *, accepted: int = 0) -> bool:
        """Take in a report; tells whether something changed.

        Nothing does where it is older than the last one, or where it says that samples were dropped which are among
        the `accepted` of the stream: those were forgotten before the worker's word came, and count once.
        """
        if ledger.seen < self.ledger.seen or ledger == self.ledger:
            return False
        if max(ledger.hard, self.hard) - sum(ledger.dropped.values()) < accepted:
            return False
        self.ledger = ledger
        self.took(ledger.easy, ledger.hard)
        return True

    def dump(self) -> str:
        """Return the ledger for the disk."""
        return self.ledger.encode().decode()

    @classmethod
    def load(cls, *, easy: int, hard: int, dumped: str) -> "WorkerSide":
        """Return what was stored; a ledger that this version cannot read comes again with the worker's next info."""
        try:
            ledger = Ledger.decode(dumped.encode(), max_bytes=WORKER_INFO.max_bytes) if dumped else Ledger()
        except (MessageInvalid, json.JSONDecodeError):
            ledger = Ledger()
        return cls(easy, hard, ledger)


def ended(box: Outbox, sides: Mapping[str, WorkerSide]) -> dict[str, int]:
    """Return the streams with samples that will never come, each with the last one's number, once another one begins.

    The node has one page for the service's workers. A worker that begins a stream has lost the page before, and with it
    what was never accepted of the stream that it named.
    """
    return {name: side.numbered for name, side in sides.items() if side.numbered > box.contiguous(name)}


def joined(box: Outbox, counts: dict[str, int], sides: dict[str, WorkerSide]) -> Ledger:
    """Return a service's ledger."""
    easy = sum(side.easy for side in sides.values())
    taken = {name: stream.accepted for name, stream in box.streams.items()}
    hard = sum(max(sides[n].hard if n in sides else 0, taken.get(n, 0)) for n in {*sides, *taken})
    failed: dict[str, int] = {}
    dropped = dict(box.dropped)
    edge: histogram.Buckets = {}
    for side in sides.values():
        _add(failed, side.ledger.failed)
        _add(dropped, side.ledger.dropped)
        histogram.add(edge, side.ledger.latency.get("edge", {}))
    cloud = {int(name.removeprefix(CLOUD)): n for name, n in counts.items() if name.startswith(CLOUD)}
    ours: dict[str, Any] = {name: counts.get(name, 0) for name in _OUR_COUNTS}
    return Ledger(
        seen=easy + hard + sum(failed.values()),
        easy=easy,
        hard=hard,
        failed=failed,
        skipped=sum(side.ledger.skipped for side in sides.values()),
        degraded=sum(side.ledger.degraded for side in sides.values()),
        answered=box.answered,
        # Of those the LC has not accepted, the worker may have dropped some itself.
        pending=len(box.rows) + hard - box.accepted - (sum(dropped.values()) - sum(box.dropped.values())),
        dropped=dropped,
        latency={"edge": edge, "cloud": cloud},
        **ours,
    )


def _add(totals: dict[str, int], more: dict[str, int]) -> None:
    for reason, number in more.items():
        totals[reason] = totals.get(reason, 0) + number
