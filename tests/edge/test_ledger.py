# SPDX-License-Identifier: Apache-2.0
"""The ledger of a node joins the worker's counts with the outbox's."""

from dataclasses import dataclass, field

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nereid_edge.ledger import WorkerSide, ended, joined
from nereid_edge.outbox import Outbox
from nereid_edge.rows import OutboxPolicy, Row, SampleKey, Stream
from nereid_shared.messages import Ledger
from nereid_shared.samples import Counts

DIGEST = b"d" * 32


def test_what_the_worker_dropped_itself_is_dropped_and_not_pending() -> None:
    side = WorkerSide()
    side.reported(Ledger(seen=5, easy=2, hard=3, dropped={"buffer-full": 2}))
    ledger = joined(Outbox(OutboxPolicy()), {}, {"stream": side})
    assert ledger.dropped == {"buffer-full": 2}
    assert ledger.pending == 1
    assert ledger.hard == ledger.answered + sum(ledger.dropped.values()) + ledger.pending


def test_an_older_report_changes_nothing() -> None:
    side = WorkerSide()
    newer = Ledger(seen=9, easy=5, hard=3, failed={"bad": 1}, skipped=4)
    assert side.reported(newer)
    assert not side.reported(Ledger(seen=7, easy=4, hard=3, skipped=2))
    assert (side.ledger, side.easy, side.hard) == (newer, 5, 3)


def test_a_sample_that_was_taken_is_hard_whatever_its_worker_counted() -> None:
    box = Outbox(OutboxPolicy())
    row = Row(key=SampleKey("s", 1), digest=DIGEST, label="7", score=0.5, size=9, born=0.0, deadline=1.0)
    box.accept(row)
    ledger = joined(box, {}, {"s": WorkerSide()})
    assert (ledger.hard, ledger.pending) == (1, 1)


def test_a_stream_that_begins_ends_the_one_before_it() -> None:
    box = Outbox(OutboxPolicy())
    for seq in (1, 2, 4):
        box.accept(Row(key=SampleKey("old", seq), digest=DIGEST, label="7", score=0.5, size=9, born=0.0, deadline=1.0))
    old = WorkerSide()
    old.reported(Ledger(seen=9, easy=2, hard=7, dropped={"buffer-full": 1}), accepted=3)
    sides = {"old": old}
    assert ended(box, sides) == {"old": 6}
    assert box.forget("old", 6) == 3
    sides["new"] = WorkerSide()
    assert ended(box, sides) == {}
    ledger = joined(box, {}, sides)
    assert (ledger.pending, ledger.dropped) == (3, {"forgotten": 3, "buffer-full": 1})


def test_what_was_forgotten_is_not_counted_again_as_dropped_by_its_worker() -> None:
    box = Outbox(OutboxPolicy())
    side = WorkerSide(hard=5)
    box.forget("old", 5)
    assert not side.reported(Ledger(seen=5, hard=5, dropped={"buffer-full": 2}), accepted=5)
    ledger = joined(box, {}, {"old": side})
    assert (ledger.hard, ledger.pending, ledger.dropped) == (5, 0, {"forgotten": 5})


@dataclass
class HonestWorker:
    """A worker's page: what it counted, and the hard samples that it numbered."""

    stream: str
    easy: int = 0
    hard: int = 0
    failed: int = 0
    full: int = 0
    accepted: int = 0
    samples: list[Counts] = field(default_factory=list)

    def counts(self) -> Counts:
        return Counts(seen=self.easy + self.hard + self.failed, easy=self.easy, hard=self.hard, failed=self.failed)

    def report(self) -> tuple[int, Ledger]:
        dropped = {"buffer-full": self.full} if self.full else {}
        failed = {"bad": self.failed} if self.failed else {}
        seen = self.easy + self.hard + self.failed
        return self.accepted, Ledger(seen=seen, easy=self.easy, hard=self.hard, failed=failed, dropped=dropped)


class Reports(RuleBasedStateMachine):
    """Any order of frames, samples, reports (late and repeated ones too), answers, restarts, and lost pages and disks.

    The worker's side of the LC is kept here as `nereid_edge.relay` keeps it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.workers = [HonestWorker("stream-0")]
        self.box = Outbox(OutboxPolicy(keep_for_s=20.0, max_samples=5))
        self.sides: dict[str, WorkerSide] = {}
        self.reports: list[tuple[str, int, Ledger]] = []
        self.shown = Ledger()
        self.now = 0.0

    @property
    def worker(self) -> HonestWorker:
        return self.workers[-1]

    def side(self, stream: str) -> WorkerSide:
        if stream not in self.sides:
            for former, last in ended(self.box, self.sides).items():
                self.box.forget(former, last)
            self.sides[stream] = WorkerSide()
        return self.sides[stream]

    @rule(easy=st.integers(0, 3), failed=st.integers(0, 1))
    def frames(self, easy: int, failed: int) -> None:
        self.worker.easy += easy
        self.worker.failed += failed

    @rule(has_room=st.booleans())
    def hard_frame(self, has_room: bool) -> None:
        self.worker.hard += 1
        if has_room:
            self.worker.samples.append(self.worker.counts())
        else:
            self.worker.full += 1

    @rule(data=st.data())
    def sample_comes(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(self.workers))
        if not worker.samples:
            return
        # A worker publishes above what it knows to be accepted, in order, and again.
        seq = data.draw(st.integers(min(worker.accepted + 1, len(worker.samples)), len(worker.samples)))
        key = SampleKey(worker.stream, seq)
        row = Row(key=key, digest=DIGEST, label="7", score=0.5, size=9, born=self.now, deadline=self.now + 1.0)
        if self.box.accept(row) is not None:
            sent = worker.samples[seq - 1]
            self.side(worker.stream).took(sent.easy, sent.hard)

    @rule()
    def accepted_is_told(self) -> None:
        accepted = min(self.box.contiguous(self.worker.stream), len(self.worker.samples))
        self.worker.accepted = max(self.worker.accepted, accepted)

    @rule()
    def report_is_made(self) -> None:
        self.reports.append((self.worker.stream, *self.worker.report()))

    @precondition(lambda self: bool(self.reports))
    @rule(data=st.data())
    def report_comes(self, data: st.DataObject) -> None:
        stream, accepted, counts = data.draw(st.sampled_from(self.reports))
        assert accepted + sum(counts.dropped.values()) <= counts.hard
        side = self.side(stream)
        if accepted > self.box.contiguous(stream):
            self.box.forget(stream, accepted)
        side.reported(counts, accepted=self.box.streams.get(stream, Stream()).accepted)

    @precondition(lambda self: bool(self.box.rows))
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.box.rows)))
        self.box.answer(key, DIGEST, self.now)

    @rule()
    def time_passes(self) -> None:
        self.now += 15.0
        self.box.tick(self.now)

    @rule()
    def controller_restarts(self) -> None:
        self.sides = {
            name: WorkerSide.load(easy=side.easy, hard=side.hard, dumped=side.dump())
            for name, side in self.sides.items()
        }

    @rule()
    def controller_forgets_its_disk(self) -> None:
        self.box, self.sides, self.shown = Outbox(self.box.policy), {}, Ledger()

    @rule()
    def page_is_lost(self) -> None:
        self.workers.append(HonestWorker(f"stream-{len(self.workers)}"))

    @invariant()
    def nothing_is_counted_twice_and_the_identities_hold(self) -> None:
        ledger = joined(self.box, {}, self.sides)
        assert ledger.hard == ledger.answered + sum(ledger.dropped.values()) + ledger.pending
        assert ledger.seen == ledger.easy + ledger.hard + sum(ledger.failed.values())
        assert ledger.pending >= 0
        assert ledger.easy <= sum(worker.easy for worker in self.workers)
        assert ledger.hard <= sum(worker.hard for worker in self.workers)
        assert ledger.failed.get("bad", 0) <= sum(worker.failed for worker in self.workers)
        for grows in ("seen", "easy", "hard", "answered"):
            assert getattr(ledger, grows) >= getattr(self.shown, grows)
        assert all(ledger.dropped.get(reason, 0) >= n for reason, n in self.shown.dropped.items())
        self.shown = ledger

    def teardown(self) -> None:
        """In the end, with all said of the last stream, nothing of it is missing either."""
        worker, side = self.worker, self.side(self.worker.stream)
        accepted = self.box.streams.get(worker.stream, Stream()).accepted
        # It is ended where an earlier stream was heard of after it: what was forgotten so may be more than it numbered.
        if accepted <= len(worker.samples):
            side.reported(worker.report()[1], accepted=accepted)
            assert (side.easy, side.hard) == (worker.easy, worker.hard)
        ledger = joined(self.box, {}, self.sides)
        assert ledger.hard == sum(one.hard for one in self.sides.values())


Reports.TestCase.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
TestReports = Reports.TestCase
