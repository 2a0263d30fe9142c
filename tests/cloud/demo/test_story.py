# SPDX-License-Identifier: Apache-2.0
"""The demo waits for what comes, and reports what does not."""

import itertools

from nereid_cloud.demo.report import unsettled
from nereid_cloud.demo.story import watched

LEDGER = {"pending": 0, "late": 3, "corrected": 2, "undelivered": 1}


async def test_what_stands_still_is_not_waited_for() -> None:
    looks = itertools.count()

    async def look() -> int:
        return next(looks)

    view, is_reached = await watched(look, lambda _: False, moves=lambda view: min(view, 5), stall_s=0.05, every_s=0.01)
    assert not is_reached
    assert view >= 5, "each move gives it time anew"


async def test_what_is_reached_ends_the_wait() -> None:
    looks = itertools.count()

    async def look() -> int:
        return next(looks)

    assert await watched(look, lambda view: view == 7, moves=lambda view: view, stall_s=9, every_s=0) == (7, True)


def test_a_settled_ledger_has_nothing_missing() -> None:
    assert unsettled(LEDGER) == []


def test_a_worker_that_left_for_good_is_reported_by_its_answers() -> None:
    assert unsettled({**LEDGER, "undelivered": 0}) == ["1 of 3 late answers have not reached their worker"]
    assert unsettled({**LEDGER, "pending": 4}) == ["4 hard samples still wait for the cloud's answer"]
