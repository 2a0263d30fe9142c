# SPDX-License-Identifier: Apache-2.0
import asyncio
import math
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from nereid_edge.desired_store import DesiredStore
from nereid_edge.records import AnswerRecord, Change, StreamRecord, delete, drop_answer, insert, keep_answer, tried
from nereid_edge.rows import Row, SampleKey
from nereid_edge.store import OutboxStore
from nereid_shared.errors import TemporaryError, UserError


def row(seq: int, *, born: float = 0.0) -> Row:
    return Row(key=SampleKey("s", seq), digest=b"d" * 32, label="7", score=0.5, size=4, born=born, deadline=born + 1.0)


def accepted(seq: int, *, born: float = 0.0) -> Change:
    return Change(
        statements=[insert("svc", row(seq, born=born), b"body")],
        counts=[("svc", "accepted", 1)],
        stream=StreamRecord("svc", "s", seq, (), seq, 3, seq, ""),
        clock=born,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


async def test_rows_counters_streams_and_clock_come_back_after_a_restart(path: Path) -> None:
    async with OutboxStore(path) as store:
        for seq in (1, 2, 3):
            store.put(accepted(seq, born=float(seq)))
        store.put(Change(statements=[delete("svc", SampleKey("s", 2))], counts=[("svc", "answered", 1)]))
        await store.committed()
        assert store.body("svc", SampleKey("s", 1)) == b"body"
        assert store.body("svc", SampleKey("s", 2)) is None
    loaded = OutboxStore(path).load()
    assert [one.key.seq for _, one in loaded.rows] == [1, 3]
    assert loaded.counters == {"svc": {"accepted": 3, "answered": 1}}
    assert loaded.streams == [StreamRecord("svc", "s", 3, (), 3, 3, 3, "")]
    assert loaded.clock == 3.0


def test_what_is_committed_is_on_the_disk_and_not_on_its_way_there(path: Path) -> None:
    # 2 is FULL: an fsync at each commit, without which a power cut takes back what was told as accepted.
    for store in (OutboxStore(path), DesiredStore(path.with_name("desired.db"))):
        with closing(store._connect()) as connection:
            assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


async def test_what_is_put_off_is_committed_with_the_next_change(path: Path) -> None:
    async with OutboxStore(path) as store:
        store.put(accepted(1))
        one = row(1)
        one.attempts, one.sent = 2, True
        store.put_lazily(Change(statements=[tried("svc", one)], counts=[("svc", "sent", 1)]))
        await store.committed()
        loaded = OutboxStore(path).load()
    assert (loaded.rows[0][1].attempts, loaded.rows[0][1].sent) == (2, True)
    assert loaded.counters["svc"]["sent"] == 1


async def test_what_is_put_off_is_committed_at_the_end(path: Path) -> None:
    async with OutboxStore(path) as store:
        store.put_lazily(Change(counts=[("svc", "sent", 1)]))
    assert OutboxStore(path).load().counters == {"svc": {"sent": 1}}


async def test_the_callback_comes_after_the_commit(path: Path) -> None:
    seen: list[bytes | None] = []
    done = asyncio.Event()
    async with OutboxStore(path) as store:

        def look() -> None:
            seen.append(store.body("svc", SampleKey("s", 1)))
            done.set()

        store.put(Change(statements=[insert("svc", row(1), b"body")], done=look))
        async with asyncio.timeout(30):
            await done.wait()
    assert seen == [b"body"]


async def test_nothing_is_left_of_a_forgotten_service_even_in_the_same_commit(path: Path) -> None:
    async with OutboxStore(path) as store:
        for seq in range(1, 50):
            store.put(accepted(seq))
        store.put(Change(forget="svc"))
    loaded = OutboxStore(path).load()
    assert (loaded.rows, loaded.counters, loaded.streams) == ([], {}, [])


async def test_answers_wait_on_disk_until_they_are_dropped(path: Path) -> None:
    answer = AnswerRecord("svc", SampleKey("s", 1), 7.0, 6.0, b"answer")
    async with OutboxStore(path) as store:
        store.put(Change(statements=[keep_answer(answer)]))
        await store.committed()
        assert OutboxStore(path).load().answers == [answer]
        store.put(Change(statements=[drop_answer("svc", answer.key)]))
    assert OutboxStore(path).load().answers == []


async def test_answers_of_a_file_without_their_age_are_taken_over(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE answers (service TEXT, stream TEXT, seq INTEGER, late INTEGER, body BLOB)")
        connection.execute("INSERT INTO answers VALUES ('svc', 's', 1, 1, ?), ('svc', 's', 2, 0, ?)", (b"late", b"not"))
    late, not_late = OutboxStore(path).load().answers
    assert late.came_late
    assert (late.key.seq, late.since, late.body) == (1, 0.0, b"late")
    assert not_late == AnswerRecord("svc", SampleKey("s", 2), 0.0, math.inf, b"not")
    assert OutboxStore(path).load().answers == [late, not_late]


async def test_a_file_that_cannot_be_written_is_tried_again_until_it_can(path: Path) -> None:
    async with OutboxStore(path) as store:
        blocker = sqlite3.connect(path, isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        committed = asyncio.create_task(store.committed())
        store.put(accepted(1))
        async with asyncio.timeout(30):
            while not store.failing:
                await asyncio.sleep(0.05)
            assert not committed.done()
            blocker.execute("ROLLBACK")
            blocker.close()
            await committed
            await store.committed()
        assert store.failing == ""
        assert len(OutboxStore(path).load().rows) == 1


async def test_on_a_full_disk_what_is_to_be_forgotten_makes_room_for_what_came_before_it(path: Path) -> None:
    body = b"b" * 300_000
    async with OutboxStore(path) as store:
        store.put(Change(statements=[insert("old", row(1), body)], counts=[("old", "accepted", 1)]))
        await store.committed()
        store.put(Change(statements=[("PRAGMA max_page_count = 1", ())]))  # no more pages than there are
        await store.committed()
        store.put(Change(statements=[insert("new", row(2), body)], counts=[("new", "accepted", 1)]))
        stored = asyncio.create_task(store.committed())
        async with asyncio.timeout(30):
            while not store.full:
                await asyncio.sleep(0.05)
            store.put(Change(forget="old"))
            await stored
        assert (store.full, store.failing) == (False, "")
    loaded = OutboxStore(path).load()
    assert ([service for service, _ in loaded.rows], loaded.services) == (["new"], {"new"})


async def test_a_change_that_can_never_be_written_ends_the_watch(path: Path) -> None:
    async with asyncio.timeout(30), OutboxStore(path) as store:
        store.put(Change(statements=[("INSERT INTO clock VALUES (2, 0)", ())]))
        with pytest.raises(sqlite3.IntegrityError):
            await store.watch()


def test_a_damaged_file_is_named(path: Path) -> None:
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(UserError, match=r"outbox\.db.*Move it away"):
        OutboxStore(path)


def test_a_file_that_cannot_be_opened_is_not_called_damaged(path: Path) -> None:
    OutboxStore(path)
    (path.parent / "outbox.db-wal").mkdir()
    with pytest.raises(TemporaryError):
        OutboxStore(path)
