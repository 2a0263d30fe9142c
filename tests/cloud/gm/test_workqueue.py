# SPDX-License-Identifier: Apache-2.0
import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nereid_cloud.gm.workqueue import WorkQueue

WAIT_S = 30.0


async def test_a_key_added_twice_is_handed_out_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    queue.add("b")
    queue.add("a")
    assert [await queue.get(), await queue.get()] == ["a", "b"]
    assert len(queue) == 0


async def test_a_key_added_during_its_work_comes_again_afterwards_and_not_before() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    key = await queue.get()
    queue.add("a")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(), 0.05)
    queue.done(key)
    assert await asyncio.wait_for(queue.get(), WAIT_S) == "a"


async def test_getting_waits_for_a_key() -> None:
    queue: WorkQueue[str] = WorkQueue()
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    assert await asyncio.wait_for(waiting, WAIT_S) == "a"


async def test_the_earliest_delay_counts() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 0.01)
    queue.add_after("a", 60)
    assert await asyncio.wait_for(queue.get(), WAIT_S) == "a"
    queue.done("a")
    queue.add_after("a", 60)
    queue.add_after("a", 0.01)
    assert await asyncio.wait_for(queue.get(), WAIT_S) == "a"
    queue.close()


async def test_retries_grow_rare_until_forgotten() -> None:
    queue: WorkQueue[str] = WorkQueue(first_retry_s=1.0, last_retry_s=8.0)
    delays = [queue.retry("a") for _ in range(6)]
    assert 0.8 <= delays[0] <= 1.2
    assert 1.6 <= delays[1] <= 2.4
    assert delays[-1] <= 9.6
    queue.forget("a")
    assert queue.retry("a") <= 1.2
    assert queue.retry("a", delay_s=5.0) == 5.0
    queue.close()


@given(st.lists(st.tuples(st.sampled_from(["add", "get", "done"]), st.sampled_from("abc")), max_size=40))
def test_no_key_is_worked_on_twice_at_once_and_none_is_lost(steps: list[tuple[str, str]]) -> None:
    async def play() -> None:
        queue: WorkQueue[str] = WorkQueue()
        working: list[str] = []
        owed: set[str] = set()
        for step, key in steps:
            if step == "add":
                queue.add(key)
                owed.add(key)
            elif step == "done" and working:
                queue.done(working.pop(0))
            elif step == "get" and owed - set(working):
                got = await asyncio.wait_for(queue.get(), WAIT_S)
                assert got not in working
                working.append(got)
                owed.discard(got)
        for key in working:
            queue.done(key)
        assert {await asyncio.wait_for(queue.get(), WAIT_S) for _ in range(len(owed))} == owed

    asyncio.run(play())
