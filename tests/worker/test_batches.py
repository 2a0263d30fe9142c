# SPDX-License-Identifier: Apache-2.0
import asyncio
import threading

from nereid_shared.samples import Counts, Sample, digest_of
from nereid_worker.batches import Batches
from nereid_worker.cloud_batches import Job

LONG_S = 3600.0
"""A wait that a test which lives through it has not made."""


def job(seq: int, loop: asyncio.AbstractEventLoop) -> Job:
    sample = Sample(
        stream="s", seq=seq, digest=digest_of(b""), key="", captured_at=0.0, remaining_ms=0, label="", score=0.0,
        counts=Counts(seen=0, easy=0, hard=0, failed=0), encoding="png", payload=b"",
    )  # fmt: skip
    return Job(node="n", sample=sample, done=loop.create_future())


def numbers(batch: list[Job]) -> list[int]:
    return [one.sample.seq for one in batch]


async def test_an_idle_model_gets_a_lone_sample_at_once() -> None:
    batches, loop = Batches[Job](max_batch=8, max_wait_s=LONG_S), asyncio.get_running_loop()
    for seq in range(3):
        batches.put(job(seq, loop))
        assert numbers(batches.take()) == [seq]


async def test_a_batch_is_what_is_there_up_to_its_size() -> None:
    batches, loop = Batches[Job](max_batch=4, max_wait_s=0.0), asyncio.get_running_loop()
    for seq in range(6):
        batches.put(job(seq, loop))
    assert numbers(batches.take()) == [0, 1, 2, 3]
    assert numbers(batches.take()) == [4, 5]


async def test_under_load_a_batch_waits_for_as_many_as_the_last_had() -> None:
    batches, loop = Batches[Job](max_batch=4, max_wait_s=LONG_S), asyncio.get_running_loop()
    for seq in range(5):
        batches.put(job(seq, loop))
    assert len(batches.take()) == 4
    late = [job(seq, loop) for seq in range(5, 8)]

    def feed() -> None:
        for one in late:
            batches.put(one)

    feeder = threading.Thread(target=feed)
    feeder.start()
    assert numbers(batches.take()) == [4, 5, 6, 7]
    feeder.join()


async def test_under_load_a_batch_waits_no_longer_than_its_bound() -> None:
    batches, loop = Batches[Job](max_batch=4, max_wait_s=0.01), asyncio.get_running_loop()
    for seq in range(5):
        batches.put(job(seq, loop))
    assert len(batches.take()) == 4
    assert numbers(batches.take()) == [4]


async def test_after_stop_what_is_there_still_comes_and_then_nothing() -> None:
    batches, loop = Batches[Job](max_batch=1, max_wait_s=LONG_S), asyncio.get_running_loop()
    batches.put(job(1, loop))
    assert not batches.wait_stopped(0.0)
    batches.stop()
    assert batches.wait_stopped(LONG_S)
    assert numbers(batches.take()) == [1]
    assert batches.take() == []


def test_a_batch_is_counted_in_rows_and_a_large_job_comes_alone() -> None:
    batches = Batches[bytes](max_batch=4, max_wait_s=0.0, rows=len)
    for rows in (3, 1, 2, 9, 1):
        batches.put(b"r" * rows)
    assert batches.rows == 16
    assert [len(one) for one in batches.take()] == [3, 1]
    assert [len(one) for one in batches.take()] == [2]
    assert [len(one) for one in batches.take()] == [9]
    assert batches.rows == 1
