# SPDX-License-Identifier: Apache-2.0
from typing import Any

import pytest

from nereid_cloud.gm.conditions import CRASH_LOOP, Problem, Verdict, WorkerObservation, judge
from nereid_cloud.gm.events import Recorder
from nereid_cloud.gm.telling import CALM_S, MISSING_GRACE_S, Telling

SERVICE = {"metadata": {"uid": "u", "name": "digits"}}
MISSING = [Problem(reason="ModelNotFound", message="Model 'm' does not exist")]


class Listener(Recorder):
    """Keeps what would be written."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    async def record(self, obj: Any, kind: Any, reason: str, message: str) -> None:
        self.told.append((kind, reason))


class Case:
    """A Telling with a clock that stands still by itself."""

    def __init__(self) -> None:
        self.now = 0.0
        self.listener = Listener()
        self.telling = Telling(self.listener, lambda: self.now)
        self._former: tuple[str, str, str] | None = None

    async def sees(self, verdict: Verdict) -> float | None:
        said = (verdict.ready, verdict.ready_reason, verdict.reason)
        changed, self._former = said != self._former, said
        return await self.telling.look(SERVICE, verdict, changed=changed)

    @property
    def told(self) -> list[tuple[str, str]]:
        return self.listener.told


def worker(state: Any, reason: str = "", *, is_edge: bool = True) -> WorkerObservation:
    return WorkerObservation(place="edge-0", is_edge=is_edge, state=state, reason=reason)


RUNS = judge([worker("running"), worker("running", is_edge=False)], [])
STARTS = judge([worker("pending", "PodNotReady")], [])
CRASHES = judge([worker("failed", CRASH_LOOP)], [])


@pytest.fixture
def case() -> Case:
    return Case()


async def test_what_comes_within_the_grace_is_not_warned_of(case: Case) -> None:
    assert await case.sees(judge([], MISSING)) == MISSING_GRACE_S
    case.now = MISSING_GRACE_S - 0.1
    await case.sees(STARTS)
    case.now = MISSING_GRACE_S + 1
    await case.sees(STARTS)
    assert case.told == [("Normal", "PodNotReady")]


async def test_what_stays_missing_is_warned_of_once(case: Case) -> None:
    await case.sees(judge([], MISSING))
    for now in (MISSING_GRACE_S, 2 * MISSING_GRACE_S):
        case.now = now
        await case.sees(judge([], MISSING))
    assert case.told == [("Warning", "ModelNotFound")]


async def test_one_event_per_episode_of_a_container_that_ends_again_and_again(case: Case) -> None:
    for round_ in range(5):
        case.now = round_ * 40.0
        await case.sees(CRASHES)
        await case.sees(STARTS)
        assert await case.sees(RUNS) == CALM_S
    assert case.told == [("Warning", CRASH_LOOP)]
    case.now += CALM_S
    await case.sees(RUNS)
    assert case.told[1:] == [("Normal", "Running")]
    await case.sees(CRASHES)
    assert case.told[2:] == [("Warning", CRASH_LOOP)]


async def test_another_fault_is_told_also_between_two_ends(case: Case) -> None:
    await case.sees(CRASHES)
    await case.sees(judge([worker("failed", "ModelCorrupt")], []))
    assert case.told == [("Warning", CRASH_LOOP), ("Warning", "ModelCorrupt")]


async def test_a_broker_that_is_down_is_no_routine(case: Case) -> None:
    await case.sees(judge([worker("pending", "EdgeBrokerDown")], []))
    assert case.told == [("Warning", "EdgeBrokerDown")]


async def test_an_end_of_all_sources_is_told_as_such(case: Case) -> None:
    await case.sees(RUNS)
    await case.sees(judge([worker("running", "SourceFinished"), worker("running", is_edge=False)], []))
    assert case.told == [("Normal", "Running"), ("Normal", "SourceFinished")]
