# SPDX-License-Identifier: Apache-2.0
"""The page of counters: what was committed belongs together, whatever interrupts."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nereid_worker import page as page_module
from nereid_worker.page import Page, mark_of

COUNT_UNTIL_KILLED = """
import sys
from pathlib import Path
from nereid_worker.page import Page
page = Page(Path(sys.argv[1]), now_us=1)
while True:
    page.seen += 3
    page.easy += 1
    page.hard += 1
    page.failed["error"] += 1
    page.cursor += 3
    page.commit()
    if page.seen == 30000:
        print("counting", flush=True)
"""


def test_a_committed_record_is_there_after_reopening(tmp_path: Path) -> None:
    with Page(tmp_path / "p", now_us=7) as page:
        page.seen, page.easy, page.hard, page.seq, page.cursor = 5, 2, 3, 3, 5
        page.rule_state, page.source, page.last = 0.25, b"12345678", 2**64 - 1
        page.observe("edge", 0.001)
        page.commit()
        stream = page.stream
    with Page(tmp_path / "p", now_us=8) as page:
        assert (page.seen, page.easy, page.hard, page.seq, page.cursor) == (5, 2, 3, 3, 5)
        assert (page.stream, page.rule_state, page.source, page.started_us) == (stream, 0.25, b"12345678", 7)
        assert (page.last, page.damaged) == (2**64 - 1, None)
        assert sum(page.ledger().latency["edge"].values()) == 1


def test_what_was_not_committed_is_as_if_it_had_not_been(tmp_path: Path) -> None:
    with Page(tmp_path / "p", now_us=1) as page:
        page.seen = page.easy = 1
        page.commit()
        page.seen = 99
        assert page.ledger().seen == 1
    with Page(tmp_path / "p", now_us=1) as page:
        assert page.seen == 1


def test_two_pages_have_streams_of_their_own(tmp_path: Path) -> None:
    with Page(tmp_path / "a", now_us=1) as one, Page(tmp_path / "b", now_us=1) as other:
        assert one.stream != other.stream


@pytest.mark.parametrize("attempt", range(3))
def test_a_kill_leaves_counters_that_belong_together(tmp_path: Path, attempt: int) -> None:
    path = tmp_path / "p"
    with subprocess.Popen([sys.executable, "-c", COUNT_UNTIL_KILLED, str(path)], stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        os.kill(worker.pid, signal.SIGKILL)
    with Page(path, now_us=1) as page:
        ledger = page.ledger()
        assert ledger.seen >= 30000
        assert ledger.seen == ledger.easy + ledger.hard + sum(ledger.failed.values()) == page.cursor


Damage = Callable[[bytes], bytes]

DAMAGES: st.SearchStrategy[Damage] = st.one_of(
    st.integers(0, 8191).map(lambda length: lambda raw: raw[:length]),
    st.tuples(st.integers(0, 1023), st.integers(0, 7)).map(
        lambda bit: lambda raw: raw[: bit[0]] + bytes([raw[bit[0]] ^ 1 << bit[1]]) + raw[bit[0] + 1 :]
    ),
    st.tuples(st.integers(0, 8191), st.binary(min_size=1, max_size=600)).map(
        lambda patch: lambda raw: raw[: patch[0]] + patch[1] + raw[patch[0] + len(patch[1]) :]
    ),
    st.binary(max_size=9000).map(lambda other: lambda _: other),
    st.just(lambda raw: bytes(len(raw))),
)


@given(DAMAGES)
def test_a_damaged_page_gives_what_was_committed_or_begins_anew(damage: Damage) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "p")
        with Page(path, now_us=1) as page:
            stream = page.stream
            for count in range(1, 41):
                page.seen = page.easy = page.cursor = count
                page.observe("edge", 0.001)
                page.commit()
        raw = damage(path.read_bytes())
        path.write_bytes(raw)
        with Page(path, now_us=2) as page:
            if page.seen:
                assert (page.stream, page.easy, page.cursor, page.damaged) == (stream, page.seen, page.seen, None)
                assert page.seen in {39, 40}
            else:
                assert page.stream != stream
                kept = page.damaged.read_bytes().rstrip(b"\0") if page.damaged else b""
                assert kept == raw[:8192].rstrip(b"\0")
            page.ledger().encode()
            page.seen = page.easy = 41
            page.commit()
        with Page(path, now_us=3) as page:
            assert (page.seen, page.easy, page.damaged) == (41, 41, None)


def test_a_kill_between_any_two_stores_of_a_commit_leaves_the_last_record_or_the_new_one(tmp_path: Path) -> None:
    path, moments = tmp_path / "p", list[bytes]()

    def look(frame: FrameType, _event: str, _arg: Any) -> Any:
        if frame.f_code.co_filename != page_module.__file__:
            return None
        moments.append(path.read_bytes())
        return look

    with Page(path, now_us=1) as page:
        for count in (1, 2, 3):
            page.seen = page.easy = count
            page.commit()
        page.seen = page.easy = 4
        former = sys.gettrace()
        sys.settrace(look)
        try:
            page.commit()
        finally:
            sys.settrace(former)
    found = []
    for number, moment in enumerate(moments):
        (tmp_path / str(number)).write_bytes(moment)
        with Page(tmp_path / str(number), now_us=1) as page:
            found.append((page.seen, page.damaged))
    assert found == sorted(found)
    assert set(found) == {(3, None), (4, None)}
    assert len(set(moments)) > 2, "the record and its slot's number are stores of their own"


def test_a_torn_record_gives_way_to_the_one_before(tmp_path: Path) -> None:
    with Page(tmp_path / "p", now_us=1) as page:
        for count in (1, 2):
            page.seen = page.easy = count
            page.commit()
        stream = page.stream
    raw = bytearray((tmp_path / "p").read_bytes())
    raw[256] ^= 1  # the second commit is in the first slot again
    (tmp_path / "p").write_bytes(raw)
    with Page(tmp_path / "p", now_us=1) as page:
        assert (page.seen, page.stream, page.damaged) == (1, stream, None)


@pytest.mark.parametrize("size", [0, 8192])
def test_an_empty_page_or_one_of_zeros_is_damaged(tmp_path: Path, size: int) -> None:
    # What a power cut leaves; a new one would count all again without a word.
    (tmp_path / "p").write_bytes(bytes(size))
    with Page(tmp_path / "p", now_us=1) as page:
        assert (page.seen, page.damaged) == (0, tmp_path / "p.damaged-1")


@pytest.mark.parametrize("wrong", [{"seen": 4}, {"hard": 2, "easy": 0}, {"skipped": -1}])
def test_a_record_whose_counts_do_not_add_up_is_none(tmp_path: Path, wrong: dict[str, int]) -> None:
    with Page(tmp_path / "p", now_us=1) as page:
        page.seen = page.easy = 1
        page.commit()
        page.seen, page.easy, page.hard = 3, 2, 1
        vars(page).update(wrong)
        page.commit()
    with Page(tmp_path / "p", now_us=1) as page:
        assert (page.seen, page.easy, page.damaged) == (1, 1, None)


def test_damaged_pages_are_kept_for_who_looks_for_the_cause_but_not_without_end(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / "p").write_bytes(b"%d" % number * 100)
        Page(tmp_path / "p", now_us=1).close()
    assert {path.name: path.read_bytes()[:1] for path in tmp_path.glob("*.damaged-*")} == {
        "p.damaged-1": b"0", "p.damaged-2": b"1", "p.damaged-3": b"4",
    }  # fmt: skip


def test_latencies_that_cannot_be_are_forgotten(tmp_path: Path) -> None:
    with Page(tmp_path / "p", now_us=1) as page:
        page.seen = page.easy = 1
        page.commit()
    raw = bytearray((tmp_path / "p").read_bytes())
    raw[2000:2008] = b"\xff" * 8
    (tmp_path / "p").write_bytes(raw)
    with Page(tmp_path / "p", now_us=1) as page:
        assert (page.seen, page.ledger().latency) == (1, {"edge": {}, "cloud": {}})


@given(st.text(st.characters(), max_size=40), st.text(st.characters(), max_size=40))
def test_keys_have_marks_of_their_own(one: str, other: str) -> None:
    assert (mark_of(one) == mark_of(other)) == (one == other)
    assert 0 <= mark_of(one) < 2**64
