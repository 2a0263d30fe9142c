# SPDX-License-Identifier: Apache-2.0
"""What an InferenceModel's status says of what was seen."""

from typing import Any

import pytest
from tests.cloud.gm.peers import node

from nereid_cloud.cluster.port import Object
from nereid_cloud.gm.conditions import Problem, Verdict, WorkerObservation
from nereid_cloud.gm.inferencemodel_status import (
    Replica,
    failure_of,
    in_pod,
    is_rolled_out,
    judge,
    on_node,
    versions_served,
)
from nereid_shared.messages import TaskStatus, WorkerInfo

MISSING = Problem(reason="VersionNotFound", message="targetVersion '9' is not in the manifest")


def good(version: str = "4", place: str = "a") -> Replica:
    return Replica(place=place, state="running", version=version, is_wanted=True)


def former(reason: str = "", message: str = "", place: str = "b") -> Replica:
    return Replica(place=place, state="running", version="3", reason=reason, message=message)


def said(verdict: Verdict) -> tuple[str, str, str, str]:
    return verdict.ready, verdict.ready_reason, verdict.phase, verdict.status


def verdict(*replicas: Replica, problems: tuple[Problem, ...] = (), desired: int = 1, whole: bool = True) -> Verdict:
    return judge(replicas, problems, desired=desired, is_whole=whole)


def worker(state: Any = "running", reason: str = "", message: str = "") -> WorkerObservation:
    return WorkerObservation(place="edge-0", is_edge=True, state=state, reason=reason, message=message)


def status(version: str = "4", reason: str = "", message: str = "", word: Any = "running") -> TaskStatus:
    return TaskStatus(phase="serving", status=word, serving_version=version, reason=reason, message=message)


def pod(*, ready: bool = True, version: str = "4", on: str = "cloud", **more: Any) -> Object:
    conditions = [{"type": "Ready", "status": str(ready)}]
    return {
        "metadata": {"name": "pod", "labels": {"nereid.io/model-version": version}},
        "spec": {"nodeName": on},
        "status": {"phase": "Running" if ready else "Pending", "conditions": conditions, **more},
    }


def waiting(reason: str, message: str = "") -> list[Object]:
    return [{"name": "server", "state": {"waiting": {"reason": reason, "message": message}}}]


def seen(obj: Object, *, info: WorkerInfo | None = None, there: bool = True, current: bool = True) -> Replica:
    return in_pod(obj, node=node("cloud", ready=there), info=info, is_current=current)


def info(word: Any, reason: str, message: str = "") -> WorkerInfo:
    return WorkerInfo(
        name="pod", namespace="default", owner_name="digits", owner_kind="inferencemodel", kind="serving", status=word,
        reason=reason, message=message,
    )  # fmt: skip


def test_all_that_is_wanted_serves() -> None:
    found = verdict(good(place="a"), good(place="b"), desired=2)
    assert said(found) == ("True", "Serving", "Running", "True")
    assert found.ready_message == "2 of 2 serve version 4"


def test_a_rollout_is_not_ready_before_all_have_changed() -> None:
    assert said(verdict(good(), former(), desired=2)) == ("False", "Updating", "Running", "True")
    assert said(verdict(good(), desired=1, whole=False)) == ("False", "Updating", "Running", "True")
    assert said(verdict(good(), former(), desired=1, whole=False)) == ("False", "Updating", "Running", "True")


def test_a_version_that_fails_leaves_the_former_serving_and_says_so() -> None:
    found = verdict(former("DigestMismatch", "its sha256 is another", "edge-0"))
    assert said(found) == ("False", "DigestMismatch", "Running", "True")
    assert found.ready_message == "0 of 1 serve, 1 still 3; edge-0: its sha256 is another"


def test_nothing_that_serves_and_a_failure_is_failed() -> None:
    broken = Replica(place="edge-0", state="failed", reason="SelfTestFailed", message="not finite")
    assert said(verdict(broken)) == ("False", "SelfTestFailed", "Failed", "True")


def test_a_start_is_pending() -> None:
    starts = Replica(place="edge-0", state="pending", reason="LoadingModel")
    assert said(verdict(starts)) == ("False", "LoadingModel", "Pending", "True")
    assert said(verdict(whole=False)) == ("False", "WorkersStarting", "Pending", "True")


def test_a_problem_is_said_first_whatever_serves() -> None:
    assert said(verdict(former(), problems=(MISSING,))) == ("False", "VersionNotFound", "Running", "True")
    assert said(verdict(problems=(MISSING,))) == ("False", "VersionNotFound", "Pending", "True")


def test_a_node_that_cannot_be_seen_is_unknown() -> None:
    away = Replica(place="edge-0", state="offline", reason="NodeOffline", message="silent")
    assert said(verdict(away)) == ("Unknown", "NodeOffline", "Pending", "Unknown")
    assert said(judge([away], (), desired=1, is_whole=True, former="Running"))[2:] == ("Running", "Unknown")
    assert said(verdict(good(), away, desired=2)) == ("Unknown", "NodeOffline", "Running", "True")


def test_no_replicas_serve_nothing() -> None:
    assert said(verdict(desired=0)) == ("False", "NoReplicas", "Pending", "True")


def test_our_worker_on_a_node_is_judged_by_the_version_that_it_answers_with() -> None:
    assert on_node(worker(), status(), target="4").is_wanted
    other = on_node(worker(), status("3", "DigestMismatch", "no"), target="4")
    assert (other.state, other.version, other.is_trouble) == ("running", "3", True)
    comes = on_node(worker(), status("3", "LoadingModel"), target="4")
    assert (comes.is_wanted, comes.is_trouble) == (False, False)


def test_a_file_that_replaces_one_of_the_same_version_is_awaited() -> None:
    assert not on_node(worker(), status("4", "LoadingModel"), target="4").is_wanted


def test_a_worker_that_changes_its_task_goes_on_serving() -> None:
    found = on_node(worker("pending", "WorkerUpdating"), status("3", word="starting"), target="4")
    assert (found.state, found.version, found.reason) == ("running", "3", "Updating")


def test_a_worker_whose_next_version_cannot_be_had_goes_on_serving() -> None:
    away = status("3", "ModelUnavailable", "version 4 cannot be had", word="failed")
    found = on_node(worker("failed", "ModelUnavailable", "version 4 cannot be had"), away, target="4")
    assert (found.state, found.version, found.reason, found.is_trouble) == ("running", "3", "FetchFailed", True)


def test_nothing_is_known_of_a_version_on_a_node_that_cannot_be_seen() -> None:
    assert on_node(worker("offline", "NodeOffline"), status(), target="4").version == ""


@pytest.mark.parametrize(
    ("word", "reason"), [("ModelUnavailable", "FetchFailed"), ("GoldenMismatch", "SelfTestFailed"), ("Own", "Own")]
)
def test_workers_reasons_are_told_in_the_models_words(word: str, reason: str) -> None:
    assert on_node(worker("failed", word), status("", word, word="failed"), target="4").reason == reason
    assert seen(pod(ready=False), info=info("failed", word)).reason == reason


def test_a_pod_serves_what_its_label_says_once_it_is_ready() -> None:
    assert seen(pod()) == Replica(place="pod", state="running", version="4", is_wanted=True)
    assert not seen(pod(), current=False).is_wanted
    assert seen(pod(ready=False)).state == "pending"


def test_a_pod_on_a_lost_node_is_hearsay() -> None:
    assert seen(pod(), there=False).state == "offline"


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName"])
def test_an_image_that_cannot_be_had_is_one_reason(reason: str) -> None:
    found = seen(pod(ready=False, containerStatuses=waiting(reason, "no such image")))
    assert (found.state, found.reason, found.message) == ("failed", "ImagePullFailed", "no such image")


def test_what_kept_an_archive_from_a_server_of_others_is_its_pods_reason() -> None:
    ended = {"exitCode": 1, "message": "downloading\nDigestMismatch: https://host/4.tar.gz: its sha256 is another\n"}
    steps = [{"name": "files", "state": waiting("CrashLoopBackOff")[0]["state"], "lastState": {"terminated": ended}}]
    found = seen(pod(ready=False, initContainerStatuses=steps))
    assert (found.state, found.reason) == ("failed", "DigestMismatch")
    assert found.message == "https://host/4.tar.gz: its sha256 is another"


def test_a_pod_that_no_node_takes_says_why() -> None:
    unbound = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}]
    obj = pod(ready=False, on="")
    obj["status"]["conditions"] += unbound
    found = seen(obj)
    assert (found.reason, found.message, found.is_trouble) == ("Unschedulable", "0/1 nodes", True)


def test_what_becomes_of_former_pods_is_no_trouble() -> None:
    assert not seen(pod(ready=False, containerStatuses=waiting("ErrImagePull")), current=False).is_trouble


def test_the_versions_that_answer_are_named_the_most_frequent_first() -> None:
    assert versions_served([former(), good(), former()]) == "3,4"
    assert versions_served([]) == ""


def test_a_failure_is_kept_with_the_time_at_which_it_was_first_seen() -> None:
    first = failure_of([former("DigestMismatch", "no")], (), None, target="4", now="t1")
    assert first is not None
    assert (first["version"], first["place"], first["reason"], first["time"]) == ("4", "b", "DigestMismatch", "t1")
    assert failure_of([former("DigestMismatch", "no", place="c")], (), first, target="4", now="t2") is first
    assert failure_of([good()], (), first, target="4", now="t3") is first
    other = failure_of([former("DigestMismatch", "no")], (MISSING,), first, target="9", now="t4")
    assert other is not None
    assert (other["version"], other["reason"], other["time"]) == ("9", "VersionNotFound", "t4")


def deployment(generation: int = 2, **status: int) -> Object:
    return {
        "metadata": {"generation": 2},
        "spec": {"replicas": 2},
        "status": {"observedGeneration": generation, **status},
    }


def test_a_rollout_is_over_when_all_pods_are_of_the_present_template() -> None:
    assert is_rolled_out(deployment(replicas=2, updatedReplicas=2, readyReplicas=2))
    assert not is_rolled_out(deployment(replicas=3, updatedReplicas=2, readyReplicas=2))
    assert not is_rolled_out(deployment(replicas=2, updatedReplicas=1, readyReplicas=2))
    assert not is_rolled_out(deployment(replicas=2, updatedReplicas=2))
    assert not is_rolled_out(deployment(1, replicas=2, updatedReplicas=2, readyReplicas=2))
    assert not is_rolled_out(None)
