# SPDX-License-Identifier: Apache-2.0
"""Hard samples between the spool and their answer: who waits, until when, and what became of it.

Bookkeeping alone: no clock, no thread, no I/O.
"""

import heapq
import math
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from nereid_worker.answers import Answer

REMEMBERED: Final = 4096
"""Edge answers kept for results after the deadline; older ones become corrections without an edge side."""

DONE_REMEMBERED: Final = 16384
"""Numbers of answered samples kept, since a result that was redelivered must not become a correction."""


class Inbox:
    """Where one caller's answers arrive, to be handed out as they come or in the order of their samples.

    Attributes:
        awaited: answers of the cloud that are still to come.
        arrived: what was put and not yet looked at.
    """

    def __init__(self, *, ordered: bool = False) -> None:
        self.awaited = 0
        self._ordered = ordered
        self.arrived: deque[Answer] = deque()
        self._order: deque[int] = deque()
        self._held: dict[int, Answer] = {}

    def expect(self, answer: Answer) -> None:
        """Note a sample that was taken: its answer will be put here."""
        if self._ordered:
            self._order.append(answer.index)

    def put(self, answer: Answer) -> None:
        """Deliver an answer."""
        self.arrived.append(answer)

    def take(self) -> Iterator[Answer]:
        """Yield the answers whose turn it is."""
        while self.arrived:
            answer = self.arrived.popleft()
            if not self._ordered:
                yield answer
                continue
            self._held[answer.index] = answer
            while self._order and self._order[0] in self._held:
                yield self._held.pop(self._order.popleft())

    def left(self) -> Iterator[Answer]:
        """Yield what nobody took, in any order."""
        yield from self.arrived
        yield from self._held.values()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One hard sample: the edge's answer, when it was captured and until when its caller waits (monotonic seconds)."""

    answer: Answer
    captured_s: float
    deadline_s: float
    inbox: Inbox


Stage = Literal["waiting", "late", "unknown", "repeated"]


class Waiting:
    """The hard samples of one stream, by number.

    Attributes:
        due: no deadline is nearer than this; infinite where nobody waits.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, Asked] = {}
        self.due = math.inf
        self._deadlines: list[tuple[float, int]] = []
        self._late: OrderedDict[int, Asked] = OrderedDict()
        self._done: OrderedDict[int, None] = OrderedDict()

    def ask(self, seq: int, asked: Asked) -> None:
        """Note that a sample is on its way."""
        asked.inbox.awaited += 1
        self._waiting[seq] = asked
        heapq.heappush(self._deadlines, (asked.deadline_s, seq))
        self._set_due()

    def settle(self, seq: int) -> tuple[Stage, Asked | None]:
        """Note a result, and return whose it is.

        ``waiting``: the caller waits for it; ``late``: it had the edge's answer already; ``unknown``: asked by an
        earlier process, or forgotten; ``repeated``: it was settled before.
        """
        if seq in self._done:
            return "repeated", None
        self._done[seq] = None
        if len(self._done) > DONE_REMEMBERED:
            self._done.popitem(last=False)
        if (asked := self._waiting.pop(seq, None)) is not None:
            asked.inbox.awaited -= 1
            return "waiting", asked
        if (asked := self._late.pop(seq, None)) is not None:
            return "late", asked
        return "unknown", None

    def expired(self, now: float) -> Iterator[Asked]:
        """Yield those whose deadline has passed, as late from now on."""
        while self.due <= now:
            _, seq = heapq.heappop(self._deadlines)
            self._set_due()
            if (asked := self._waiting.pop(seq, None)) is not None:
                asked.inbox.awaited -= 1
                self._remember(seq, asked)
                yield asked

    def abandon(self, inbox: Inbox) -> None:
        """Nobody reads this inbox any more: what would have come there becomes late."""
        for seq in [seq for seq, asked in self._waiting.items() if asked.inbox is inbox]:
            self._remember(seq, self._waiting.pop(seq))
        inbox.awaited = 0

    def next_deadline(self) -> float | None:
        """Return the nearest deadline of a sample that is waited for; at the latest then somebody has to look."""
        while self._deadlines and self._deadlines[0][1] not in self._waiting:
            heapq.heappop(self._deadlines)
        self._set_due()
        return self._deadlines[0][0] if self._deadlines else None

    def _set_due(self) -> None:
        self.due = self._deadlines[0][0] if self._deadlines else math.inf

    def _remember(self, seq: int, asked: Asked) -> None:
        self._late[seq] = asked
        if len(self._late) > REMEMBERED:
            self._late.popitem(last=False)
