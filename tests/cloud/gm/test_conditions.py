# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nereid_cloud.gm.conditions import (
    MAX_TROUBLED,
    PHASES,
    Phase,
    Problem,
    WorkerObservation,
    conditions_of,
    is_same,
    judge,
    nodes_summary,
    phase_shown,
)

WORKERS = st.lists(
    st.builds(
        WorkerObservation,
        place=st.sampled_from(["edge-0", "edge-1", "cloud"]),
        is_edge=st.booleans(),
        state=st.sampled_from(["pending", "running", "failed", "offline"]),
        reason=st.sampled_from(["", "ModelCorrupt"]),
    ),
    max_size=5,
)
PROBLEMS = st.lists(st.just(Problem(reason="ModelNotFound", message="Model 'm' does not exist")), max_size=2)


def worker(state: str, *, is_edge: bool = True, reason: str = "") -> WorkerObservation:
    return WorkerObservation(place="p", is_edge=is_edge, state=state, reason=reason)  # type: ignore[arg-type]


@given(WORKERS, PROBLEMS, st.sampled_from(PHASES))
def test_exactly_one_phase_is_not_false_and_stands_last(
    workers: list[WorkerObservation], problems: list[Problem], former: Phase
) -> None:
    conditions = conditions_of(judge(workers, problems, former=former), [], generation=1, now="t")
    assert conditions[0]["type"] == "Ready"
    assert sorted(c["type"] for c in conditions[1:]) == sorted(PHASES)
    not_false = [c for c in conditions[1:] if c["status"] != "False"]
    assert not_false == [conditions[-1]]
    assert conditions[-1]["status"] == "True" or conditions[-1]["reason"] == "NodeOffline"
    assert all(c["reason"] for c in conditions)


@given(WORKERS, PROBLEMS)
def test_ready_is_true_only_when_all_run_and_nothing_is_missing(
    workers: list[WorkerObservation], problems: list[Problem]
) -> None:
    verdict = judge(workers, problems)
    assert (verdict.ready == "True") == (not problems and all(w.state == "running" for w in workers))


def test_a_single_node_that_is_offline_keeps_its_phase_as_unknown() -> None:
    verdict = judge([worker("offline"), worker("running", is_edge=False)], [], former="Running")
    assert (verdict.phase, verdict.status, verdict.reason) == ("Running", "Unknown", "NodeOffline")
    assert verdict.ready == "Unknown"


def test_one_of_many_nodes_that_is_offline_leaves_the_service_running_but_not_ready() -> None:
    verdict = judge([worker("offline"), worker("running"), worker("running", is_edge=False)], [])
    assert (verdict.phase, verdict.status, verdict.ready) == ("Running", "True", "Unknown")


def test_one_of_many_nodes_that_failed_leaves_the_service_running_but_not_ready() -> None:
    workers = [worker("failed", reason="ModelCorrupt"), worker("running"), worker("running", is_edge=False)]
    verdict = judge(workers, [])
    assert (verdict.phase, verdict.ready, verdict.ready_reason) == ("Running", "False", "ModelCorrupt")


def test_a_failed_cloud_side_makes_the_service_failed() -> None:
    verdict = judge([worker("running"), worker("failed", is_edge=False, reason="CrashLoopBackOff")], [])
    assert (verdict.phase, verdict.reason, verdict.ready) == ("Failed", "CrashLoopBackOff", "False")


def finished(state: str = "running", reason: str = "SourceFinished") -> WorkerObservation:
    return worker(state, reason=reason)


CLOUD = worker("running", is_edge=False)


@pytest.mark.parametrize(
    ("workers", "reasons"),
    [
        ([finished(), finished(), CLOUD], ("SourceFinished", "SourceFinished")),
        ([finished(), worker("running"), CLOUD], ("WorkersRunning", "AllWorkersRunning")),
        ([CLOUD], ("WorkersRunning", "AllWorkersRunning")),
    ],
)
def test_a_service_is_finished_when_every_edge_is(workers: list[WorkerObservation], reasons: tuple[str, str]) -> None:
    verdict = judge(workers, [])
    assert (verdict.phase, verdict.ready, verdict.reason, verdict.ready_reason) == ("Running", "True", *reasons)
    assert verdict.message.startswith("every source is finished; ") == (reasons[0] == "SourceFinished")


def test_a_finished_service_that_lacks_something_says_what() -> None:
    problems = [Problem(reason="ModelNotFound", message="m")]
    verdict = judge([finished(), CLOUD], problems)
    assert (verdict.reason, verdict.ready, verdict.ready_reason) == ("SourceFinished", "False", "ModelNotFound")


def test_a_model_that_vanishes_does_not_stop_what_runs_but_ready_says_it() -> None:
    problems = [Problem(reason="ModelNotFound", message="m")]
    verdict = judge([worker("running"), worker("running", is_edge=False)], problems)
    assert (verdict.phase, verdict.ready, verdict.ready_reason) == ("Running", "False", "ModelNotFound")


def test_what_is_missing_is_the_reason_for_waiting() -> None:
    problems = [Problem(reason="ModelNotFound", message="m")]
    verdict = judge([worker("pending", reason="NotPlanned")], problems)
    assert (verdict.phase, verdict.reason, verdict.ready_reason) == ("Pending", "ModelNotFound", "ModelNotFound")


def test_transition_times_are_kept_while_the_status_stays() -> None:
    pending = judge([worker("pending", reason="WorkerStarting")], [])
    first = conditions_of(pending, [], generation=1, now="t1")
    again = conditions_of(judge([worker("pending", reason="Other")], []), first, generation=1, now="t2")
    assert {c["lastTransitionTime"] for c in again} == {"t1"}
    assert {c["lastHeartbeatTime"] for c in again} == {"t2"}
    assert not is_same(first, again)
    running = conditions_of(judge([worker("running")], []), again, generation=2, now="t3")
    assert [c["lastTransitionTime"] for c in running if c["type"] != "Failed"] == ["t3", "t3", "t3"]
    assert phase_shown(running) == "Running"
    assert {c["observedGeneration"] for c in running} == {2}


def test_the_summary_names_at_most_twenty_troubled_nodes() -> None:
    workers = [
        WorkerObservation(place=f"n{i:02}", is_edge=True, state="offline", reason="NodeOffline") for i in range(30)
    ]
    summary = nodes_summary([*workers, worker("running"), worker("running", is_edge=False)])
    assert (summary["desired"], summary["ready"], summary["offline"]) == (31, 1, 30)
    assert [n["name"] for n in summary["troubled"]] == [f"n{i:02}" for i in range(MAX_TROUBLED)]
