# SPDX-License-Identifier: Apache-2.0
"""What an InferenceModel's servers were seen to do, as its status says it; no I/O, no clock.

A server may answer with the former version while the wanted one is prepared, or has failed: then the model serves, and
is not Ready.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from nereid_cloud.cluster.port import Object
from nereid_cloud.cluster.readiness import is_ready
from nereid_cloud.gm.conditions import NODE_OFFLINE, SERVING, Phase, Problem, Verdict, WorkerObservation
from nereid_cloud.gm.inferencemodel_plan import VERSION_NOT_FOUND
from nereid_cloud.gm.names import VERSION_LABEL
from nereid_cloud.gm.workers import has_ended, pod_fault
from nereid_shared.messages import TaskStatus, WorkerInfo

UPDATING: Final = "Updating"
NO_REPLICAS: Final = "NoReplicas"
IMAGE_PULL_FAILED: Final = "ImagePullFailed"
ROUTINE: Final = frozenset({UPDATING, NO_REPLICAS})

# The kubelet's words for an image that it cannot have.
_IMAGE_REASONS: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
)
_WORDS: Final = {"ModelUnavailable": "FetchFailed", "GoldenMismatch": "SelfTestFailed"}
"""What workers say of a version, in an InferenceModel's words."""

# What passes by itself, in the words of workers and of the kubelet.
_PASSING: Final = frozenset(
    {"", "WorkerStarting", "WorkerUpdating", "WorkerNotSeen", "PodNotReady", "LoadingModel", "WaitingForTask",
     "NotAcknowledged", "ModelFetching", UPDATING}
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """One Pod that serves, or should.

    Attributes:
        place: its node, or its own name in the cloud.
        state: ``running`` where it answers, with whatever version; ``offline`` where nobody can tell.
        version: what it answers with; "" where that is not known, or an image decides it.
        is_wanted: it answers with what is wanted now.
        is_there: its Pod is.
        is_current: it was made for what is wanted now; what becomes of others is no matter.
        reason: where it does not do what is wanted: one CamelCase word.
    """

    place: str
    state: Literal["pending", "running", "failed", "offline"]
    version: str = ""
    is_wanted: bool = False
    is_there: bool = True
    is_current: bool = True
    reason: str = ""
    message: str = ""

    @property
    def is_trouble(self) -> bool:
        """Whether it will not do what is wanted, unless something changes."""
        failed = self.state == "failed" or self.reason not in _PASSING
        return failed and self.state != "offline" and self.is_current and not self.is_wanted


def on_node(seen: WorkerObservation, status: TaskStatus | None, *, target: str) -> Replica:
    """Judge our worker on a node.

    Args:
        seen: what is to be said of it as of any edge worker.
        status: the last status of the task on that node.
        target: the version that it shall serve.
    """
    version = status.serving_version if status is not None and seen.state != "offline" else ""
    reason = IMAGE_PULL_FAILED if seen.reason in _IMAGE_REASONS else _said(seen.reason)
    replica = Replica(place=seen.place, state=seen.state, version=version, reason=reason, message=seen.message)
    if version and seen.state in ("pending", "failed"):
        # It goes on with the task that it had.
        return replace(replica, state="running", reason=reason if seen.state == "failed" else UPDATING)
    if seen.state != "running" or status is None:
        return replica
    is_wanted = version == target and not status.reason
    reason = _said(status.reason) or ("" if is_wanted else UPDATING)
    return replace(replica, is_wanted=is_wanted, reason=reason, message=status.message)


def in_pod(
    pod: Object, *, node: Object | None, is_current: bool, info: WorkerInfo | None = None, place: str = ""
) -> Replica:
    """Judge a Pod whose readiness says whether it serves what its label names.

    Args:
        pod: the Pod.
        node: where it is, None before it is anywhere.
        is_current: it was made for what is wanted now.
        info: what the worker in it says of itself, if it does.
        place: what it is called, in place of its name.
    """
    version = (pod["metadata"].get("labels") or {}).get(VERSION_LABEL, "")
    replica = Replica(place=place or pod["metadata"]["name"], state="pending", is_current=is_current)
    if pod["spec"].get("nodeName") and not is_ready(node):
        message = f"Node {pod['spec']['nodeName']} is not Ready"
        return replace(replica, state="offline", reason=NODE_OFFLINE, message=message)
    fault = pod_fault(pod)
    if fault is None:
        return replace(replica, state="running", version=version, is_wanted=is_current)
    state, reason, message = _before(pod) or fault
    if reason in _IMAGE_REASONS:
        return replace(replica, state="failed", reason=IMAGE_PULL_FAILED, message=message or reason)
    if info is not None and info.status != "offline" and info.reason:
        state = "failed" if info.status == "failed" else state
        return replace(replica, state=state, reason=_said(info.reason), message=info.message)
    unbound = next((one for one in _conditions(pod, "PodScheduled") if one.get("status") == "False"), None)
    if unbound is not None:
        return replace(replica, reason=unbound.get("reason") or reason, message=unbound.get("message") or "")
    return replace(replica, state=state, reason=reason, message=message)


def _before(pod: Object) -> tuple[Literal["pending", "failed"], str, str] | None:
    """Return what keeps a Pod in a step before its server, such as fetching its files; None where nothing does."""
    for status in (pod.get("status") or {}).get("initContainerStatuses") or ():
        state = status.get("state") or {}
        waiting = state.get("waiting") or {}
        ended = state.get("terminated") or (status.get("lastState") or {}).get("terminated") or {}
        if waiting.get("reason") in _IMAGE_REASONS:
            return "failed", waiting["reason"], waiting.get("message") or ""
        if ended.get("exitCode"):
            # As `nereid_worker.model_folder` ends: the reason, a colon, a sentence.
            lines = [line for line in str(ended.get("message") or "").splitlines() if line.strip()]
            reason, _, message = lines[-1].partition(": ") if lines else ("", "", "")
            return ("failed", reason, message) if reason.isalpha() else ("failed", "FetchFailed", " ".join(lines))
    return None


def living(pods: Sequence[Object]) -> list[Object]:
    """Return the Pods that serve or will."""
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"] and not has_ended(pod)]


def is_rolled_out(deployment: Object | None) -> bool:
    """Whether all Pods of a Deployment are of its present template, and ready."""
    if deployment is None:
        return False
    status, wanted = deployment.get("status") or {}, deployment["spec"].get("replicas", 1)
    counts = [status.get(name, 0) for name in ("replicas", "updatedReplicas", "readyReplicas")]
    return status.get("observedGeneration") == deployment["metadata"].get("generation") and counts == [wanted] * 3


def judge(
    replicas: Sequence[Replica], problems: Sequence[Problem], *, desired: int, is_whole: bool, former: Phase = "Pending"
) -> Verdict:
    """Return what the conditions say.

    Args:
        replicas: those that there are.
        problems: what stands in the way of what is wanted.
        desired: how many there should be.
        is_whole: nothing but these is to come or to go.
        former: the phase that was shown last, which stays where nothing can be observed.
    """
    serving = [one for one in replicas if one.state == "running"]
    wanted = [one for one in serving if one.is_wanted]
    count = _count(wanted, serving, desired)
    if problems:
        message = "; ".join(problem.message for problem in problems)
        return _verdict("Running" if serving else "Pending", problems[0].reason, message, is_problem=True)
    if desired == 0:
        return _verdict("Pending", NO_REPLICAS, "replicas is 0: nothing serves")
    if is_whole and len(wanted) >= desired and len(replicas) == len(wanted):
        return _verdict("Running", SERVING, count, is_ready=True)
    return _unfinished(replicas, count, desired=desired, former=former)


def _unfinished(replicas: Sequence[Replica], count: str, *, desired: int, former: Phase) -> Verdict:
    """Say why not all serve what is wanted, the most telling first."""
    serving = any(one.state == "running" for one in replicas)
    trouble = [one for one in replicas if one.is_trouble]
    if trouble:
        phase: Phase = "Running" if serving else "Failed" if trouble[0].state == "failed" else "Pending"
        return _verdict(phase, trouble[0].reason, f"{count}; {_first_of(trouble)}")
    offline = [one for one in replicas if one.state == "offline"]
    if offline:
        return _unknown("Running" if serving else former, _first_of(offline), is_known=serving, count=count)
    pending = [one for one in replicas if not one.is_wanted]
    if serving:
        return _verdict("Running", UPDATING, f"{count}; {_first_of(pending)}" if pending else count)
    reason = next((one.reason for one in pending if one.reason), "WorkersStarting")
    return _verdict("Pending", reason, _first_of(pending) if pending else f"0 of {desired} Pods are there")


def failure_of(
    replicas: Sequence[Replica], problems: Sequence[Problem], former: Mapping[str, Any] | None, *, target: str, now: str
) -> Mapping[str, Any] | None:
    """Return the status's lastFailure: the present one, with the time at which it was seen first, else the former."""
    trouble = next((one for one in replicas if one.is_trouble), None)
    missing = next((one for one in problems if one.reason == VERSION_NOT_FOUND), None)
    if trouble is None and missing is None:
        return former
    said: Replica | Problem | None = missing or trouble
    assert said is not None  # noqa: S101 - one of the two is there
    # The Pods of a Deployment come and go: which of them failed makes no other failure.
    same = former is not None and (former.get("version"), former.get("reason")) == (target, said.reason)
    if same:
        return former
    place = said.place if isinstance(said, Replica) else ""
    return {"version": target, "place": place, "reason": said.reason, "message": said.message[:1024], "time": now}


def versions_served(replicas: Sequence[Replica]) -> str:
    """Return the versions that are answered with, those of the most servers first."""
    versions = [one.version for one in replicas if one.state == "running" and one.version]
    return ",".join(sorted(set(versions), key=lambda version: (-versions.count(version), version)))


def _count(wanted: Sequence[Replica], serving: Sequence[Replica], desired: int) -> str:
    version = wanted[0].version if wanted else ""
    of = f" version {version}" if version else ""
    others = versions_served([one for one in serving if not one.is_wanted])
    more = f", {len(serving) - len(wanted)} still {others or 'the former'}" if len(serving) > len(wanted) else ""
    return f"{len(wanted)} of {desired} serve{of}{more}"


def _verdict(phase: Phase, reason: str, message: str, *, is_ready: bool = False, is_problem: bool = False) -> Verdict:
    return Verdict(
        phase=phase, status="True", reason=reason, message=message, ready="True" if is_ready else "False",
        ready_reason=reason, ready_message=message, is_problem=is_problem,
    )  # fmt: skip


def _unknown(phase: Phase, message: str, *, is_known: bool, count: str) -> Verdict:
    return Verdict(
        phase=phase, status="True" if is_known else "Unknown", reason=NODE_OFFLINE, message=f"{count}; {message}",
        ready="Unknown", ready_reason=NODE_OFFLINE, ready_message=f"{count}; {message}",
    )  # fmt: skip


def _said(reason: str) -> str:
    return _WORDS.get(reason, reason)


def _first_of(replicas: Sequence[Replica]) -> str:
    first = replicas[0]
    more = f" (and {len(replicas) - 1} more)" if len(replicas) > 1 else ""
    return f"{first.place}: {first.message or first.reason or first.state}{more}"


def _conditions(pod: Object, kind: str) -> list[Mapping[str, Any]]:
    return [one for one in (pod.get("status") or {}).get("conditions") or () if one.get("type") == kind]
