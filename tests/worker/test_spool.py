# SPDX-License-Identifier: Apache-2.0
"""The ring of samples that were not accepted yet: first in, first out, over any number of reopenings."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nereid_worker.spool import Spool

CAPACITY = 1000


def test_a_sample_that_does_not_fit_waits_until_others_are_released(tmp_path: Path) -> None:
    with Spool(tmp_path / "s", capacity_bytes=CAPACITY) as spool:
        assert spool.append(1, b"a" * 600)
        assert not spool.append(2, b"b" * 600)
        assert spool.release(1) == 1
        assert spool.append(2, b"b" * 600)
        assert spool.after(1) == (2, b"b" * 600)


def test_samples_written_but_never_counted_are_forgotten(tmp_path: Path) -> None:
    with Spool(tmp_path / "s", capacity_bytes=CAPACITY) as spool:
        for seq in (1, 2, 3):
            spool.append(seq, b"x")
        spool.drop_after(2)
    with Spool(tmp_path / "s", capacity_bytes=CAPACITY) as spool:
        assert (spool.after(1), spool.after(2), len(spool)) == ((2, b"x"), None, 2)


def test_a_torn_ring_gives_what_is_whole(tmp_path: Path) -> None:
    with Spool(tmp_path / "s", capacity_bytes=CAPACITY) as spool:
        spool.append(1, b"whole")
        spool.append(2, b"torn")
    raw = bytearray((tmp_path / "s").read_bytes())
    second = raw.index(b"torn") - 4
    raw[second : second + 4] = b"\xff\xff\xff\xff"
    (tmp_path / "s").write_bytes(raw)
    with Spool(tmp_path / "s", capacity_bytes=CAPACITY) as spool:
        assert (spool.after(0), spool.after(1)) == ((1, b"whole"), None)
        assert spool.append(2, b"again")


def test_a_file_that_is_no_ring_starts_empty(tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(b"\x01" * 5000)
    with Spool(tmp_path / "s", capacity_bytes=CAPACITY) as spool:
        assert len(spool) == 0


class SpoolIsAQueue(RuleBasedStateMachine):
    """A ring behaves as a plain queue does, wherever it wraps and however often it is opened again."""

    folder: Path
    number = 0

    def __init__(self) -> None:
        super().__init__()
        SpoolIsAQueue.number += 1
        self.path = self.folder / str(SpoolIsAQueue.number)
        self.spool = Spool(self.path, capacity_bytes=CAPACITY)
        self.model: list[tuple[int, bytes]] = []
        self.seq = 0

    @rule(body=st.binary(max_size=400))
    def append(self, body: bytes) -> None:
        if self.spool.append(self.seq + 1, body):
            self.seq += 1
            self.model.append((self.seq, body))
        else:
            assert sum(len(kept) + 16 for _, kept in self.model) + len(body) + 16 > CAPACITY

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        upto = data.draw(st.sampled_from([seq for seq, _ in self.model]))
        before = len(self.model)
        self.model = [record for record in self.model if record[0] > upto]
        assert self.spool.release(upto) == before - len(self.model)

    @rule()
    def reopen(self) -> None:
        self.spool.close()
        self.spool = Spool(self.path, capacity_bytes=CAPACITY)

    @invariant()
    def same(self) -> None:
        found, at = [], 0
        while (record := self.spool.after(at)) is not None:
            found.append(record)
            at = record[0]
        assert found == self.model

    def teardown(self) -> None:
        self.spool.close()


def test_a_ring_is_a_queue(tmp_path: Path) -> None:
    SpoolIsAQueue.folder = tmp_path
    run = SpoolIsAQueue.TestCase
    run.settings = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    run().runTest()


def test_an_empty_ring_goes_on_at_its_beginning(tmp_path: Path) -> None:
    with Spool(tmp_path / "s", capacity_bytes=CAPACITY) as spool:
        for seq in range(1, 50):
            assert spool.append(seq, b"%d" % seq * 40)
            assert spool.after(seq - 1) == (seq, b"%d" % seq * 40)
            spool.release(seq)
    touched = (tmp_path / "s").read_bytes()[64:].rstrip(b"\0")
    assert len(touched) < CAPACITY // 4


@pytest.mark.parametrize("kept", [0, 1, 5])
def test_what_an_earlier_lap_left_is_no_record(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "s"
    with Spool(path, capacity_bytes=CAPACITY) as spool:
        for seq in range(1, 9):
            spool.append(seq, b"x" * 40)
        spool.release(8)
        for seq in range(9, 9 + kept):
            spool.append(seq, b"y" * 40)
    raw = bytearray(path.read_bytes())
    # As after a kill between the two ends: `next` names room in which only the earlier lap's records lie.
    raw[24:32] = (int.from_bytes(raw[24:32], "little") + 112).to_bytes(8, "little")
    path.write_bytes(raw)
    with Spool(path, capacity_bytes=CAPACITY) as spool:
        assert len(spool) == kept


def test_the_places_of_one_stream_are_not_given_to_the_next(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with Spool(path, capacity_bytes=CAPACITY) as spool:
        for seq in range(1, 9):
            spool.append(seq, b"x" * 40)
        spool.release(8)
        spool.append(1, b"y" * 40)  # a new page begins a new stream, with numbers that the earlier lap had too
    raw = bytearray(path.read_bytes())
    raw[24:32] = (int.from_bytes(raw[24:32], "little") + 112).to_bytes(8, "little")  # as above
    path.write_bytes(raw)
    with Spool(path, capacity_bytes=CAPACITY) as spool:
        assert (spool.after(0), spool.after(1), spool.damaged) == ((1, b"y" * 40), None, None)


def test_numbers_that_do_not_grow_end_the_ring(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with Spool(path, capacity_bytes=CAPACITY) as spool:
        for seq in (1, 2, 3):
            spool.append(seq, b"x" * 40)
        following = path.read_bytes()[24:32]
        spool.drop_after(0)  # the page was lost: a new stream takes the places of the old one's samples
        for seq in (1, 2):
            spool.append(seq, b"y" * 12)
    raw = bytearray(path.read_bytes())
    raw[24:32] = following  # as after a power cut that kept the records and not the header
    path.write_bytes(raw)
    with Spool(path, capacity_bytes=CAPACITY) as spool:
        assert (spool.after(0), spool.after(1), spool.after(2)) == ((1, b"y" * 12), (2, b"y" * 12), None)
        assert spool.cut_bytes == 2 * 56
        assert spool.append(3, b"z")
        assert spool.after(2) == (3, b"z")


def test_a_header_with_ends_that_no_ring_can_have_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "s"
    Spool(path, capacity_bytes=CAPACITY).close()
    raw = bytearray(path.read_bytes())
    raw[16:32] = b"\xff" * 16  # oldest and next: an empty ring, but for where
    path.write_bytes(raw)
    with Spool(path, capacity_bytes=CAPACITY) as spool:
        assert spool.damaged == tmp_path / "s.damaged-1"
        assert spool.append(1, b"x")
        assert spool.after(0) == (1, b"x")


@pytest.mark.parametrize("size", [0, 1, CAPACITY - 16])
def test_any_size_up_to_the_capacity_fits(tmp_path: Path, size: int) -> None:
    with Spool(tmp_path / "s", capacity_bytes=CAPACITY) as spool:
        assert spool.append(1, b"z" * size)
        assert spool.after(0) == (1, b"z" * size)


Damage = Callable[[bytes], bytes]

DAMAGES: st.SearchStrategy[Damage] = st.one_of(
    st.integers(0, CAPACITY + 63).map(lambda length: lambda raw: raw[:length]),
    st.tuples(st.integers(0, CAPACITY + 63), st.integers(0, 7)).map(
        lambda bit: lambda raw: raw[: bit[0]] + bytes([raw[bit[0]] ^ 1 << bit[1]]) + raw[bit[0] + 1 :]
    ),
    st.tuples(st.integers(0, CAPACITY + 63), st.binary(min_size=1, max_size=200)).map(
        lambda patch: lambda raw: raw[: patch[0]] + patch[1] + raw[patch[0] + len(patch[1]) :]
    ),
    st.tuples(st.integers(0, 40), st.binary(min_size=1, max_size=24)).map(
        lambda patch: lambda raw: raw[: patch[0]] + patch[1] + raw[patch[0] + len(patch[1]) :]
    ),
    st.binary(max_size=2000).map(lambda other: lambda _: other),
    st.just(lambda raw: bytes(len(raw))),
)


@settings(max_examples=300)
@given(DAMAGES)
def test_a_damaged_ring_gives_whole_records_in_order_and_goes_on(damage: Damage) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "s")
        with Spool(path, capacity_bytes=CAPACITY) as spool:
            for seq in range(1, 21):
                spool.append(seq, b"%d" % seq * 40)
                spool.release(seq - 5)
        path.write_bytes(damage(path.read_bytes()))
        with Spool(path, capacity_bytes=CAPACITY) as spool:
            found, at = [], 0
            while (record := spool.after(at)) is not None:
                found.append(at := record[0])
            assert found == list(range(16, 16 + len(found)))
            spool.release(20)
            assert spool.append(21, b"more")
        with Spool(path, capacity_bytes=CAPACITY) as spool:
            assert (spool.after(20), spool.damaged, spool.cut_bytes) == ((21, b"more"), None, 0)


def test_a_ring_with_a_damaged_header_is_kept_for_who_looks_for_the_cause(tmp_path: Path) -> None:
    with Spool(tmp_path / "s", capacity_bytes=CAPACITY) as spool:
        spool.append(1, b"lost")
    raw = bytearray((tmp_path / "s").read_bytes())
    raw[8] ^= 1  # the capacity, which nothing else would contradict
    (tmp_path / "s").write_bytes(raw)
    with Spool(tmp_path / "s", capacity_bytes=CAPACITY) as spool:
        assert (len(spool), spool.damaged) == (0, tmp_path / "s.damaged-1")
    assert (tmp_path / "s.damaged-1").read_bytes() == raw


def test_a_gap_in_the_numbers_hides_no_sample(tmp_path: Path) -> None:
    with Spool(tmp_path / "s", capacity_bytes=CAPACITY) as spool:
        for seq in (3, 4, 9, 10):
            spool.append(seq, b"%d" % seq)
        assert [spool.after(seq) for seq in range(2, 11)] == [
            (3, b"3"), (4, b"4"), (9, b"9"), (9, b"9"), (9, b"9"), (9, b"9"), (9, b"9"), (10, b"10"), None,
        ]  # fmt: skip


def test_a_ring_for_which_the_disk_has_no_room_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"samples\.spool"):
        Spool(tmp_path / "samples.spool", capacity_bytes=1 << 60)
    assert not (tmp_path / "samples.spool").stat().st_size


def test_a_ring_has_its_place_on_the_disk(tmp_path: Path) -> None:
    with Spool(tmp_path / "samples.spool", capacity_bytes=1 << 20):
        assert (tmp_path / "samples.spool").stat().st_blocks * 512 >= 1 << 20
