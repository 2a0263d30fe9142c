# SPDX-License-Identifier: Apache-2.0
import gc
import itertools
import tracemalloc

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nereid_edge.outbox import MAX_GAPS, RETRY_S, Outbox
from nereid_edge.rows import (
    EXPIRED,
    FORGOTTEN,
    FULL,
    OVER_BUDGET,
    POISON,
    OutboxPolicy,
    Row,
    SampleKey,
    Taken,
)
from nereid_edge.window import FIRST_COUNT
from nereid_shared.link import DELIVERED, NO_SUBSCRIBER
from nereid_shared.samples import UNDECODABLE

DIGEST = b"d" * 32


def sample(
    seq: int, *, now: float = 0.0, score: float = 0.5, size: int = 1000, stream: str = "s", left: float = 1.0
) -> Row:
    return Row(
        key=SampleKey(stream, seq), digest=DIGEST, label="7", score=score, size=size, born=now, deadline=now + left
    )


def filled(count: int, policy: OutboxPolicy | None = None, **more: float) -> Outbox:
    box = Outbox(policy or OutboxPolicy())
    for seq in range(1, count + 1):
        box.accept(sample(seq, **more))  # type: ignore[arg-type]
    return box


def taken(box: Outbox, now: float, count: int = 10_000) -> list[Row]:
    rows: list[Row] = []
    while len(rows) < count and (row := box.take(now)) is not None:
        rows.append(row)
    return rows


def deliver(box: Outbox, row: Row, now: float, code: int | None = DELIVERED) -> None:
    box.acked(row, row.flight, code, now)
    if code == DELIVERED:
        row.delivered(row.flight)


def answer_another(box: Outbox, now: float) -> None:
    """Show that the cloud works."""
    other = sample(1, now=now, stream=f"other-{now}")
    box.accept(other)
    box.answer(other.key, DIGEST, now)


def seqs(rows: list[Row]) -> list[int]:
    return [row.key.seq for row in rows]


def test_a_repeated_sample_is_accepted_once_before_and_after_its_answer() -> None:
    box = filled(1)
    assert box.accept(sample(1)) is None
    assert box.answer(SampleKey("s", 1), DIGEST, 0.1) is not None
    assert box.accept(sample(1)) is None
    assert (box.accepted, box.answered, len(box.rows)) == (1, 1, 0)


def test_contiguous_numbers_wait_for_the_missing_one() -> None:
    box = filled(2)
    box.accept(sample(4))
    assert box.streams["s"].contiguous == 2
    box.accept(sample(3))
    assert (box.streams["s"].contiguous, box.streams["s"].beyond) == (4, set())


def test_gaps_are_remembered_up_to_a_bound_and_what_fills_them_is_taken() -> None:
    box = Outbox(OutboxPolicy())
    first, end = 3, 3 + MAX_GAPS
    for seq in range(first, end):
        assert box.accept(sample(seq)) is not None
    assert box.accept(sample(end)) is None
    assert box.accept(sample(2)) is None
    assert (box.accepted, len(box.rows), len(box.streams["s"].beyond)) == (MAX_GAPS, MAX_GAPS, MAX_GAPS)
    for seq in (1, 2, end):
        assert box.accept(sample(seq)) is not None
    assert (box.streams["s"].contiguous, box.streams["s"].beyond) == (end, set())


def test_an_answer_with_no_row_or_another_payload_is_no_answer() -> None:
    box = filled(1)
    assert box.answer(SampleKey("s", 2), DIGEST, 0.0) is None
    assert box.answer(SampleKey("s", 1), b"e" * 32, 0.0) is None
    assert (box.answered, len(box.rows)) == (0, 1)


def test_the_window_bounds_what_is_in_flight_and_halves_once_per_time_out() -> None:
    box = filled(200)
    first = taken(box, 0.0)
    assert len(first) == 32
    for row in first:
        deliver(box, row, 0.0)
    box.tick(3.0)
    assert int(box.window.count) == 16
    assert len(taken(box, 3.0)) <= 16


def test_the_window_grows_with_answers() -> None:
    box = filled(200)
    for row in taken(box, 0.0):
        deliver(box, row, 0.0)
        box.answer(row.key, DIGEST, 0.01)
    assert int(box.window.count) == 64


def test_a_new_connection_begins_with_a_whole_window() -> None:
    box = filled(32)
    for row in taken(box, 0.0):
        deliver(box, row, 0.0)
    for now in (3.0, 9.0, 21.0):
        box.tick(now)
        for row in taken(box, now):
            deliver(box, row, now)
    assert int(box.window.count) < FIRST_COUNT // 2
    box.disconnected()
    for seq in range(101, 201):
        box.accept(sample(seq, now=21.0))
    assert len(taken(box, 21.0)) == FIRST_COUNT


def test_bytes_bound_what_is_in_flight_but_one_sample_always_goes() -> None:
    box = Outbox(OutboxPolicy())
    for seq in (1, 2):
        box.accept(sample(seq, size=5_000_000))
    assert seqs(taken(box, 0.0)) == [1]


def test_the_time_out_follows_the_round_trip() -> None:
    box = filled(400)
    now = 0.0
    for _ in range(200):
        row = box.take(now)
        assert row is not None
        deliver(box, row, now)
        now += 2.0
        box.answer(row.key, DIGEST, now)
    assert box.round_trip.smoothed_s == pytest.approx(2.0)
    assert 2.0 <= box.round_trip.timeout_s < 2.5


def test_the_round_trip_of_a_repeated_sample_is_not_measured() -> None:
    box = filled(1)
    for now in (0.0, 5.0):
        box.tick(now)
        row = box.take(now)
        assert row is not None
        deliver(box, row, now)
    box.answer(SampleKey("s", 1), DIGEST, 5.01)
    assert box.round_trip.smoothed_s is None


def test_a_failed_try_counts_once_and_the_next_one_waits() -> None:
    box = filled(1, OutboxPolicy(max_attempts=2))
    first = box.take(0.0)
    assert first is not None
    assert box.fail(first.key, DIGEST, 0.1)
    # The same try's failure again, as a repeated result: the sample is not in flight.
    assert box.fail(first.key, DIGEST, 0.1)
    assert (first.attempts, box.in_flight, box.take(0.2)) == (1, 0, None)
    assert box.take(0.1 + RETRY_S) is first
    assert not box.fail(first.key, b"other" * 8, 5.0)
    assert not box.fail(first.key, DIGEST, 5.0)
    assert box.refuse(first.key, DIGEST, POISON, 5.0) is first
    assert (box.rows, box.in_flight) == ({}, 0)


def test_a_sample_is_sent_again_with_back_off_and_given_up_as_poison() -> None:
    box = filled(1, OutboxPolicy(max_attempts=4))
    now, tries, drops = 0.0, [], []
    while box.rows:
        row = box.take(now)
        if row is not None:
            tries.append(now)
            deliver(box, row, now)
        now += 0.5
        answer_another(box, now)
        drops += box.tick(now)
    assert [(drop.row.key.seq, drop.reason) for drop in drops] == [(1, POISON)]
    first, second, third = (b - a for a, b in itertools.pairwise(tries))
    assert first < second < third
    assert third >= 2 * second


def test_a_cloud_that_answers_nothing_poisons_nothing() -> None:
    box = filled(1, OutboxPolicy(max_attempts=1))
    now = 0.0
    for _ in range(10):
        row = box.take(now)
        assert row is not None
        deliver(box, row, now)
        now = row.due_at
        assert box.tick(now) == []
    assert len(box.rows) == 1


def test_samples_that_are_never_answered_do_not_hold_up_the_others() -> None:
    box = filled(5, now=-50.0)
    never = taken(box, 0.0)
    assert seqs(never) == [1, 2, 3, 4]
    for row in never:
        deliver(box, row, 0.0)
    box.tick(never[0].due_at)
    assert box.in_flight == 0
    assert seqs(taken(box, never[0].due_at))[0] == 5


def test_tries_that_reached_no_subscriber_poison_nothing() -> None:
    box = filled(1, OutboxPolicy(max_attempts=1))
    now = 0.0
    for _ in range(10):
        row = box.take(now)
        assert row is not None
        deliver(box, row, now, NO_SUBSCRIBER)
        now += 10.0
        assert box.tick(now) == []
    assert box.dropped == {}


def test_no_subscriber_pauses_the_service_and_a_probe_resumes_it() -> None:
    box = filled(40)
    for row in taken(box, 0.0):
        deliver(box, row, 0.0, NO_SUBSCRIBER)
    assert box.paused
    assert taken(box, 0.1) == []
    probe = taken(box, 0.25)
    assert len(probe) == 1
    deliver(box, probe[0], 0.3, NO_SUBSCRIBER)
    assert taken(box, 0.6) == []
    probe = taken(box, 0.8)
    assert len(probe) == 1
    deliver(box, probe[0], 0.9)
    assert len(taken(box, 0.9)) > 1


def test_an_acknowledgement_of_an_earlier_try_changes_nothing() -> None:
    box = filled(1)
    row = box.take(0.0)
    assert row is not None
    first = row.flight
    box.disconnected()
    again = box.take(1.0)
    assert again is row
    box.acked(row, first, None, 1.0)
    assert box.in_flight == 1


def test_live_samples_go_before_stored_ones_which_keep_their_share() -> None:
    box = filled(32)
    for row in taken(box, 0.0):
        deliver(box, row, 0.0)
    box.disconnected()
    for seq in range(101, 131):
        box.accept(sample(seq, now=0.5))
    order = [row.key.seq > 100 for row in taken(box, 0.5)]
    assert order[0]
    assert 4 <= order.count(False) <= 7


def test_stored_samples_in_flight_stay_at_about_a_second_of_the_rate() -> None:
    box = filled(100, now=-50.0)
    assert len(taken(box, 0.0)) == 4


def test_expired_samples_go_by_their_age_alone() -> None:
    box = Outbox(OutboxPolicy(keep_for_s=60.0))
    box.accept(sample(1, now=0.0))
    box.accept(sample(2, now=30.0))
    assert box.tick(59.0) == []
    assert [(drop.row.key.seq, drop.reason) for drop in box.tick(61.0)] == [(1, EXPIRED)]


def test_when_full_the_surest_waiting_sample_goes() -> None:
    box = Outbox(OutboxPolicy(max_samples=3))
    for seq, score in ((1, 0.2), (2, 0.9), (3, 0.4)):
        box.accept(sample(seq, score=score))
    accepted = box.accept(sample(4, score=0.3))
    assert accepted is not None
    assert [(drop.row.key.seq, drop.reason) for drop in accepted.drops] == [(2, FULL)]
    accepted = box.accept(sample(5, score=0.95))
    assert accepted is not None
    assert accepted.row is None
    assert [drop.row.key.seq for drop in accepted.drops] == [5]


def test_when_full_what_is_in_flight_stays() -> None:
    box = Outbox(OutboxPolicy(max_samples=1))
    box.accept(sample(1, score=0.99))
    assert box.take(0.0) is not None
    accepted = box.accept(sample(2, score=0.1))
    assert accepted is not None
    assert [drop.row.key.seq for drop in accepted.drops] == [2]


def test_bytes_bound_the_outbox() -> None:
    box = Outbox(OutboxPolicy(max_bytes=2500))
    dropped = [drop for seq in range(1, 5) for drop in (box.accept(sample(seq)) or Taken(None, [])).drops]
    assert (len(box.rows), box.bytes, len(dropped)) == (2, 2000, 2)


def test_more_bytes_per_second_than_allowed_are_dropped() -> None:
    box = Outbox(OutboxPolicy(max_bytes_per_s=1000))
    for seq in range(1, 11):
        box.accept(sample(seq, now=0.0))
    assert box.dropped == {OVER_BUDGET: 8}
    accepted = box.accept(sample(11, now=1.0))
    assert accepted is not None
    assert accepted.row is not None


def test_a_sample_that_the_cloud_cannot_read_is_dropped() -> None:
    box = filled(1)
    assert box.refuse(SampleKey("s", 1), DIGEST, UNDECODABLE, 0.0) is not None
    assert (box.dropped, len(box.rows)) == ({UNDECODABLE: 1}, 0)


def test_what_an_earlier_disk_had_accepted_counts_as_forgotten() -> None:
    box = Outbox(OutboxPolicy())
    box.accept(sample(6))
    assert box.forget("s", 4) == 4
    box.accept(sample(5))
    assert (box.streams["s"].contiguous, box.accepted, box.dropped) == (6, 6, {FORGOTTEN: 4})


def test_what_waited_behind_a_forgotten_gap_is_contiguous_at_once() -> None:
    box = Outbox(OutboxPolicy())
    for seq in (3, 5, 6, 8):
        box.accept(sample(seq))
    assert box.forget("s", 4) == 3
    assert (box.contiguous("s"), box.streams["s"].beyond) == (6, {8})
    assert (box.accepted, box.streams["s"].accepted, box.dropped) == (7, 7, {FORGOTTEN: 3})


def test_a_beginning_that_never_comes_is_recognised_by_the_workers_repeats() -> None:
    box = Outbox(OutboxPolicy())
    box.accept(sample(6))
    for _ in range(3):
        assert box.stranger_gap("s") == 0
        assert box.accept(sample(6)) is None
    assert box.stranger_gap("s") == 5


def test_an_outbox_that_overflows_for_long_keeps_no_memory_of_what_went() -> None:
    box = Outbox(OutboxPolicy(max_samples=10))
    for seq in range(1, 5000):
        box.accept(sample(seq, score=seq % 97 / 97))
    assert len(box._live) + len(box._stored) + len(box._surest or ()) < 500


def test_a_waiting_sample_takes_half_a_kilobyte() -> None:
    count = 5_000
    box = Outbox(OutboxPolicy(max_samples=count))
    tracemalloc.start()
    try:
        for seq in range(1, count + 1):
            digest, score = seq.to_bytes(32, "big"), seq % 97 / 97
            row = sample(seq, now=seq / 7, score=score, size=1000 + seq % 1000)
            row.digest = digest
            box.accept(row)
        taken_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(box.rows) == count
    assert taken_bytes / count < 500


def test_tighter_bounds_are_taken_up_at_once() -> None:
    box = filled(10)
    drops = box.set_policy(OutboxPolicy(max_samples=4), 0.0)
    assert [drop.reason for drop in drops] == [FULL] * 6


class Schedules(RuleBasedStateMachine):
    """Any order of samples, repeats, tries, acknowledgements, answers, cuts, time and restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = OutboxPolicy(
            keep_for_s=50.0, max_bytes=20_000, max_samples=12, max_bytes_per_s=50_000, max_attempts=3
        )
        self.box = Outbox(self.policy)
        self.now = 0.0
        self.seq = 0
        self.flying: list[Row] = []
        self.gone: set[SampleKey] = set()

    @rule(score=st.floats(0, 1), size=st.integers(1, 9000), skip=st.integers(0, 1))
    def new_sample(self, score: float, size: int, skip: int) -> None:
        self.seq += 1 + skip
        self._accept(sample(self.seq, now=self.now, score=score, size=size))

    @precondition(lambda self: self.seq > 0)
    @rule(data=st.data())
    def old_sample(self, data: st.DataObject) -> None:
        self._accept(sample(data.draw(st.integers(1, self.seq)), now=self.now))

    @rule()
    def send(self) -> None:
        row = self.box.take(self.now)
        if row is not None:
            assert row.key not in self.gone
            self.flying.append(row)

    @precondition(lambda self: bool(self.flying))
    @rule(data=st.data(), code=st.sampled_from([DELIVERED, DELIVERED, NO_SUBSCRIBER, None]))
    def acknowledge(self, data: st.DataObject, code: int | None) -> None:
        row = data.draw(st.sampled_from(self.flying))
        deliver(self.box, row, self.now, code)

    @precondition(lambda self: bool(self.flying))
    @rule(data=st.data(), good=st.booleans())
    def answer(self, data: st.DataObject, good: bool) -> None:
        row = data.draw(st.sampled_from(self.flying))
        if good:
            done = self.box.answer(row.key, DIGEST, self.now)
        else:
            done = self.box.refuse(row.key, DIGEST, UNDECODABLE, self.now)
        assert (done is None) == (row.key in self.gone)
        self.gone.add(row.key)

    @precondition(lambda self: bool(self.flying))
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(self.flying))
        if not self.box.fail(row.key, DIGEST, self.now):
            assert (self.box.refuse(row.key, DIGEST, POISON, self.now) is None) == (row.key in self.gone)
            self.gone.add(row.key)

    @rule(seconds=st.sampled_from([0.01, 1.0, 5.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.gone |= {drop.row.key for drop in self.box.tick(self.now)}

    @rule()
    def cut(self) -> None:
        self.box.disconnected()

    @rule()
    def restart(self) -> None:
        old, self.box = self.box, Outbox(self.policy)
        self.box.accepted, self.box.answered = old.accepted, old.answered
        self.box.dropped, self.box.streams = dict(old.dropped), old.streams
        for row in old.rows.values():
            self.box.restore(row)
        self.flying.clear()

    def _accept(self, row: Row) -> None:
        known = row.key.stream in self.box.streams and self.box.streams[row.key.stream].knows(row.key.seq)
        accepted = self.box.accept(row)
        assert (accepted is None) == known
        if accepted is not None:
            self.gone |= {drop.row.key for drop in accepted.drops}

    @invariant()
    def accepted_is_answered_and_dropped_and_rows(self) -> None:
        box = self.box
        assert box.accepted == box.answered + sum(box.dropped.values()) + len(box.rows)
        assert box.accepted == box.streams["s"].accepted if "s" in box.streams else box.accepted == 0
        assert box.bytes == sum(row.size for row in box.rows.values()) <= self.policy.max_bytes
        assert len(box.rows) <= self.policy.max_samples
        assert set(box.rows).isdisjoint(self.gone)

    @invariant()
    def every_row_is_in_flight_or_in_a_queue(self) -> None:
        box = self.box
        waiting = {id(row) for row in (*box._live, *box._stored, *(entry[2] for entry in box._later))}
        assert all(row.key in box._flying or id(row) in waiting for row in box.rows.values())
        assert box._flying_bytes == sum(row.size for row in box._flying.values())


Schedules.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestSchedules = Schedules.TestCase


def test_answered_samples_leave_no_rows_behind() -> None:
    box = filled(2000)
    for now in range(100):
        for row in taken(box, float(now) / 1000):
            box.answer(row.key, DIGEST, float(now) / 1000)
    assert box.answered == 2000
    gc.collect()
    # What the queues still hold is bounded, however many samples an outage had gathered.
    assert sum(isinstance(one, Row) for one in gc.get_objects()) < 100
