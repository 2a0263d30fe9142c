# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
from typing import Any, Literal

import pytest

from nereid_cloud.gm.workers import EdgeEvidence, edge_worker
from nereid_shared.messages import TaskRow, TaskState, TaskStatus

ROW = TaskRow(kind="JointInferenceService", namespace="n", name="d", generation=2, hash="h", spec={})


def pod(container: Any = None, *, ready: bool = True) -> dict[str, Any]:
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": str(ready)}]}
    return {"metadata": {"name": "p"}, "status": status | {"containerStatuses": [container] if container else []}}


def said(status: str, **more: Any) -> TaskStatus:
    return TaskStatus(phase="inference", status=status, generation=2, **more)


WELL = EdgeEvidence(
    node="edge-0", node_ready=True, absence="", row=ROW, pod=pod(), applied=True, trouble="", state=None,
    status=said("running"),
)  # fmt: skip


def test_a_worker_that_says_so_runs() -> None:
    assert edge_worker(WELL).state == "running"


@pytest.mark.parametrize(
    "seen",
    [
        replace(WELL, status=said("completed")),
        replace(WELL, status=None, state=TaskState(generation=2, condition="Completed")),
    ],
)
def test_a_worker_whose_source_is_finished_runs_and_says_why_it_is_idle(seen: EdgeEvidence) -> None:
    worker = edge_worker(seen)
    assert (worker.state, worker.reason) == ("running", "SourceFinished")


@pytest.mark.parametrize("condition", ["Running", "Completed"])
def test_a_state_of_a_former_spec_says_nothing_of_this_one(condition: Literal["Running", "Completed"]) -> None:
    worker = edge_worker(replace(WELL, status=None, state=TaskState(generation=1, condition=condition)))
    assert (worker.state, worker.reason) == ("pending", "WorkerStarting")


@pytest.mark.parametrize("status", ["running", "completed", "failed"])
def test_a_word_on_a_former_spec_says_nothing_of_this_one(status: str) -> None:
    worker = edge_worker(replace(WELL, status=TaskStatus(phase="inference", status=status, generation=1)))
    assert (worker.state, worker.reason) == ("pending", "WorkerStarting")


@pytest.mark.parametrize(
    ("state", "status", "expected"),
    [
        ({"running": {}}, said("running"), ("running", "")),
        ({"running": {}}, said("starting", reason="LoadingModel"), ("pending", "LoadingModel")),
        ({"terminated": {"exitCode": 0}}, said("running"), ("pending", "PodNotReady")),
    ],
)
def test_a_worker_in_a_container_that_runs_says_itself_how_it_is_sooner_than_a_probe(
    state: Any, status: TaskStatus, expected: tuple[str, str]
) -> None:
    worker = edge_worker(replace(WELL, pod=pod({"state": state}, ready=False), status=status))
    assert (worker.state, worker.reason) == expected


def test_absence_is_told_as_it_was_found() -> None:
    worker = edge_worker(replace(WELL, absence="its LocalController is silent since noon"))
    assert (worker.state, worker.reason, worker.message) == (
        "offline", "NodeOffline", "its LocalController is silent since noon",
    )  # fmt: skip


def test_a_node_without_its_broker_is_not_ready_for_that_reason() -> None:
    worker = edge_worker(replace(WELL, status=said("offline", reason="EdgeBrokerDown", message="m")))
    assert (worker.state, worker.reason) == ("pending", "EdgeBrokerDown")


@pytest.mark.parametrize(
    ("ended", "told"),
    [
        ({}, "the container ends again and again"),
        ({"exitCode": 1, "reason": "Error"}, "the container ends again and again, last with exit code 1"),
        (
            {"exitCode": 1, "reason": "Error", "message": "Traceback\nNameError: x is not defined\n\n"},
            "the container ends again and again, last with exit code 1: NameError: x is not defined",
        ),
        (
            {"exitCode": 137, "reason": "OOMKilled"},
            "the container ends again and again, last with OOMKilled, exit code 137",
        ),
        ({"exitCode": 0, "reason": "Completed"}, "the container ends again and again, last with exit code 0"),
        ({"exitCode": 137, "signal": 9}, "the container ends again and again, last with signal 9"),
    ],
)
def test_a_crash_is_told_by_its_end_and_not_by_the_length_of_the_back_off(ended: Any, told: str) -> None:
    waiting = {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting failed container"}
    container = {"state": {"waiting": waiting}, "lastState": {"terminated": ended} if ended else {}}
    worker = edge_worker(replace(WELL, pod=pod(container, ready=False)))
    assert (worker.state, worker.reason, worker.message) == ("failed", "CrashLoopBackOff", told)


def test_a_mount_that_fails_is_what_its_service_says() -> None:
    waiting = {"reason": "FailedMount", "message": "hostPath type check failed: /srv/scripts is not a directory"}
    worker = edge_worker(replace(WELL, pod=pod({"state": {"waiting": waiting}}, ready=False), status=None))
    assert (worker.state, worker.reason, worker.message) == ("pending", "FailedMount", waiting["message"])
