# SPDX-License-Identifier: Apache-2.0
"""What one service's hard samples wait for at the edge, which goes next and which is given up. No I/O.

`Outbox` holds no payloads: rows of figures alone. At every step ``accepted = answered + sum(dropped) + len(rows)``.
Time is the LC's own clock: seconds that it was up, continued over restarts, so that no jump of the wall clock expires
anything.
"""

import heapq
from collections import deque
from collections.abc import Iterator
from typing import Final

from nereid_edge.rows import (
    EXPIRED,
    FORGOTTEN,
    FULL,
    OVER_BUDGET,
    POISON,
    Drop,
    OutboxPolicy,
    Row,
    SampleKey,
    Stage,
    Stream,
    Taken,
)
from nereid_edge.window import PAUSE_LIMIT_S, Budget, Rate, RoundTrip, Window
from nereid_shared.link import DELIVERED

MAX_GAPS: Final = 4096
LIVE_PER_STORED: Final = 4
STORED_FLOOR: Final = 4
PROBE_S: Final = (0.25, 5.0)
STRANGER_REPEATS: Final = 3
# After a try that failed in the cloud; doubled with each.
RETRY_S: Final = 0.5
# Live samples keep half of the byte budget to themselves while stored ones drain.
STORED_LEAVES: Final = 0.5


class Outbox:
    """One service's outbox."""

    def __init__(self, policy: OutboxPolicy) -> None:
        self.policy = policy
        self.rows: dict[SampleKey, Row] = {}
        self.streams: dict[str, Stream] = {}
        self.accepted = 0
        self.answered = 0
        self.dropped: dict[str, int] = {}
        self.bytes = 0
        self.paused = False
        self.round_trip, self.window = RoundTrip(), Window()
        self._flying: dict[SampleKey, Row] = {}
        self._flying_bytes = 0
        self._flying_stored = 0
        self._live: deque[Row] = deque()
        self._stored: deque[Row] = deque()
        # Made when the outbox is full for the first time: it would be a third of what a row costs.
        self._surest: list[tuple[float, int, Row]] | None = None
        self._later: list[tuple[float, int, Row]] = []
        self._order = 0
        self._since_stored = 0
        self._rate = Rate()
        self._budget = Budget(policy.max_bytes_per_s)
        self._answered_at = float("-inf")
        self._probe_at = 0.0
        self._probe_s = PROBE_S[0]

    @property
    def in_flight(self) -> int:
        """Samples that were published and have no answer yet."""
        return len(self._flying)

    def contiguous(self, stream: str) -> int:
        """Return the number of the sample up to which all of a stream were accepted, 0 where none was."""
        known = self.streams.get(stream)
        return known.contiguous if known else 0

    def restore(self, row: Row) -> None:
        """Take a row from disk, the oldest first; the counters and streams are set by the caller."""
        self._insert(row, Stage.STORED)

    def set_policy(self, policy: OutboxPolicy, now: float) -> list[Drop]:
        """Change the bounds; what no longer fits is dropped."""
        if policy.max_bytes_per_s != self.policy.max_bytes_per_s:
            self._budget = Budget(policy.max_bytes_per_s)
        self.policy = policy
        return [*self._expired(now), *self._shrunk()]

    def accept(self, row: Row) -> Taken | None:
        """Take a sample that came; None for one that was accepted before, or that leaves too many gaps to remember."""
        stream = self.streams.setdefault(row.key.stream, Stream())
        seq = row.key.seq
        if stream.knows(seq):
            self._repeated(stream, seq)
            return None
        if len(stream.beyond) >= MAX_GAPS and seq != stream.contiguous + 1:
            return None
        stream.add(seq)
        self.accepted += 1
        if not self._budget.take(row.size, row.born):
            return Taken(None, [self._drop_unstored(row, OVER_BUDGET)])
        if row.size > self.policy.max_bytes:
            return Taken(None, [self._drop_unstored(row, FULL)])
        self._insert(row, Stage.LIVE)
        drops = self._shrunk()
        return Taken(row if row.key in self.rows else None, drops)

    def forget(self, stream_id: str, seq: int) -> int:
        """Count samples up to `seq` as lost, since they will not come; returns how many those were.

        Another LC's disk had accepted them, or the worker has lost them.
        """
        stream = self.streams.setdefault(stream_id, Stream())
        if seq <= stream.contiguous:
            return 0
        known = sum(1 for one in stream.beyond if one <= seq)
        lost = seq - stream.contiguous - known
        stream.contiguous = seq
        stream.beyond = {one for one in stream.beyond if one > seq}
        stream.absorb()
        stream.accepted += lost
        self.accepted += lost
        if lost:
            self.dropped[FORGOTTEN] = self.dropped.get(FORGOTTEN, 0) + lost
        return lost

    def stranger_gap(self, stream_id: str) -> int:
        """Return the number up to which a stream's beginning never comes, 0 where nothing says so.

        A worker repeats its oldest unaccepted sample first. One that keeps doing so above a gap, in a stream that this
        disk never saw the beginning of, has the gap's samples no longer: an earlier disk of this node took them.
        """
        stream = self.streams[stream_id]
        unheard = stream.contiguous == 0 and stream.repeats >= STRANGER_REPEATS and bool(stream.beyond)
        return min(stream.beyond) - 1 if unheard else 0

    def take(self, now: float) -> Row | None:
        """Return the sample to publish now, counted as in flight, or None."""
        if self.paused and (now < self._probe_at or self._flying):
            return None
        row = self._next(now)
        if row is None:
            return None
        row.was_stored = row.stage is Stage.STORED
        row.stage, row.flown_at, row.flight = Stage.FLYING, now, row.flight + 1
        row.due_at = now + self.round_trip.timeout_s
        self._flying[row.key] = row
        self._flying_bytes += row.size
        self._flying_stored += row.was_stored
        return row

    def acked(self, row: Row, flight: int, code: int | None, now: float) -> None:
        """Note the PUBACK's reason; None where the connection was lost before it."""
        if row.key not in self._flying or row.flight != flight:
            return
        if code == DELIVERED:
            self._resume()
            return
        self._land(row)
        if code is not None:
            self._pause(now)

    def answer(self, key: SampleKey, digest: bytes, now: float) -> Row | None:
        """Take an answer; None where no row waits for it."""
        row = self._done(key, digest, now)
        if row is not None:
            self.answered += 1
        return row

    def refuse(self, key: SampleKey, digest: bytes, reason: str, now: float) -> Row | None:
        """Take the cloud's word that a sample will have no answer; None where no row waits for one."""
        row = self._done(key, digest, now)
        if row is not None:
            self.dropped[reason] = self.dropped.get(reason, 0) + 1
        return row

    def fail(self, key: SampleKey, digest: bytes, now: float) -> bool:
        """Take the cloud's word that a try failed; False where there is no other: `refuse` it then."""
        row = self.rows.get(key)
        if row is None or row.digest != digest:
            return False
        self._resume()
        if key not in self._flying:
            # An earlier try's failure, which was counted when it timed out.
            return True
        row.attempts += 1
        if row.attempts >= self.policy.max_attempts:
            return False
        self._unfly(row)
        self._retry_later(row, now + min(RETRY_S * 2 ** min(row.attempts - 1, 10), PAUSE_LIMIT_S))
        return True

    def disconnected(self) -> None:
        """Put what was in flight back: whether it arrived is unknown."""
        for row in list(self._flying.values()):
            self._land(row)
        self.window = Window()
        self._resume()

    def tick(self, now: float) -> list[Drop]:
        """Expire, time out, give up; returns what was dropped."""
        drops = self._expired(now)
        for row in [row for row in self._flying.values() if row.due_at <= now]:
            if self.window.timed_out(now, self.round_trip.timeout_s):
                self.round_trip.backed_off()
            self._unfly(row)
            row.attempts += row.counted == row.flight and self._answered_at >= row.flown_at
            if row.attempts >= self.policy.max_attempts:
                drops.append(self._drop(row, POISON))
            else:
                self._retry_later(row, now + self.round_trip.pause_s(row.attempts))
        return drops

    def _next(self, now: float) -> Row | None:
        live = _head(self._live, Stage.LIVE)
        while live is not None and live.deadline <= now:
            self._live.popleft()
            self._store(live)
            live = _head(self._live, Stage.LIVE)
        while self._later and self._later[0][0] <= now:
            rested = heapq.heappop(self._later)[2]
            if rested.stage is Stage.LATER:
                self._store(rested)
        stored = _head(self._stored, Stage.STORED)
        if stored is not None and (live is None or self._since_stored >= LIVE_PER_STORED):
            row = self._fitting(stored, now)
            if row is not None:
                self._since_stored = 0
                self._stored.popleft()
                return row
        if live is None or not self._has_room(live):
            return None
        self._since_stored += stored is not None
        return self._live.popleft()

    def _fitting(self, row: Row, now: float) -> Row | None:
        if not self._has_room(row) or self._flying_stored >= max(STORED_FLOOR, self._rate.at(now)):
            return None
        return row if self._budget.take(row.size, now, keep=STORED_LEAVES) else None

    def _has_room(self, row: Row) -> bool:
        return self.window.has_room(len(self._flying), self._flying_bytes, row.size)

    def _insert(self, row: Row, stage: Stage) -> None:
        row.stage = stage
        self.rows[row.key] = row
        self.bytes += row.size
        (self._live if stage is Stage.LIVE else self._stored).append(row)
        if self._surest is not None:
            self._order += 1
            heapq.heappush(self._surest, (-row.score, self._order, row))
        self._sweep()

    def _sweep(self) -> None:
        """Forget what the queues still hold of rows that are gone, once that is most of what they hold."""
        held = len(self._surest or ()) + len(self._live) + len(self._stored) + len(self._later)
        if held <= 6 * len(self.rows) + 64:
            return
        # Made anew should the outbox be full again.
        self._surest = None
        self._later = [entry for entry in self._later if entry[2].stage is Stage.LATER]
        heapq.heapify(self._later)
        self._live = deque(row for row in self._live if row.stage is Stage.LIVE)
        self._stored = deque(row for row in self._stored if row.stage is Stage.STORED)

    def _land(self, row: Row) -> None:
        self._unfly(row)
        self._store(row)

    def _retry_later(self, row: Row, at: float) -> None:
        """Let a row wait outside the window: one that is never answered must not hold up the others."""
        row.stage = Stage.LATER
        self._order += 1
        heapq.heappush(self._later, (at, self._order, row))

    def _store(self, row: Row) -> None:
        row.stage = Stage.STORED
        self._stored.append(row)

    def _unfly(self, row: Row) -> None:
        if self._flying.pop(row.key, None) is not None:
            self._flying_bytes -= row.size
            self._flying_stored -= row.was_stored

    def _done(self, key: SampleKey, digest: bytes, now: float) -> Row | None:
        row = self.rows.get(key)
        if row is None or row.digest != digest:
            return None
        if row.key in self._flying:
            # Karn's rule: of a repeated sample nobody knows which try was answered.
            if row.flight == 1:
                self.round_trip.measured(now - row.flown_at)
            self.window.succeeded(row.size)
        self._rate.counted(now)
        self._answered_at = now
        self._remove(row)
        self._resume()
        return row

    def _remove(self, row: Row) -> None:
        self._unfly(row)
        del self.rows[row.key]
        self.bytes -= row.size
        # What the queues still hold of it is skipped by its stage.
        row.stage = Stage.FLYING
        self._sweep()

    def _drop(self, row: Row, reason: str) -> Drop:
        self._remove(row)
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
        return Drop(row, reason)

    def _drop_unstored(self, row: Row, reason: str) -> Drop:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
        return Drop(row, reason)

    def _expired(self, now: float) -> list[Drop]:
        old = []
        for row in self.rows.values():
            if now - row.born <= self.policy.keep_for_s:
                break
            old.append(row)
        return [self._drop(row, EXPIRED) for row in old]

    def _shrunk(self) -> list[Drop]:
        return list(self._shrink())

    def _shrink(self) -> Iterator[Drop]:
        while self.bytes > self.policy.max_bytes or len(self.rows) > self.policy.max_samples:
            victim = self._least_informative()
            if victim is None:
                return
            yield self._drop(victim, FULL)

    def _least_informative(self) -> Row | None:
        """Return the waiting row whose edge answer is surest; None where all are in flight."""
        if self._surest is None:
            self._surest = [(-row.score, order, row) for order, row in enumerate(self.rows.values())]
            self._order = max(self._order, len(self._surest))
            heapq.heapify(self._surest)
        aside = []
        victim = None
        while self._surest and victim is None:
            entry = heapq.heappop(self._surest)
            row = entry[2]
            if self.rows.get(row.key) is not row:
                continue
            if row.stage is Stage.FLYING:
                aside.append(entry)
            else:
                victim = row
        for entry in aside:
            heapq.heappush(self._surest, entry)
        return victim

    def _repeated(self, stream: Stream, seq: int) -> None:
        if stream.contiguous == 0 and seq == min(stream.beyond, default=0):
            stream.repeats += 1

    def _pause(self, now: float) -> None:
        if self.paused and now < self._probe_at:
            return
        self._probe_s = min(self._probe_s * 2, PROBE_S[1]) if self.paused else PROBE_S[0]
        self.paused, self._probe_at = True, now + self._probe_s

    def _resume(self) -> None:
        self.paused, self._probe_s = False, PROBE_S[0]


def _head(queue: deque[Row], stage: Stage) -> Row | None:
    """Return the first row that still waits there."""
    while queue and queue[0].stage is not stage:
        queue.popleft()
    return queue[0] if queue else None
