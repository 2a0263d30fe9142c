# SPDX-License-Identifier: Apache-2.0
"""What a service's workers were seen to do, from Pods, nodes' acknowledgements and the workers' own words; no I/O.

Nothing is taken on hearsay: a Pod's status counts only while its Node is Ready, a worker's only while its
LocalController is heard.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from nereid_cloud.cluster.port import Object
from nereid_cloud.cluster.readiness import is_ready
from nereid_cloud.gm.conditions import CRASH_LOOP, NODE_OFFLINE, SOURCE_FINISHED, WorkerObservation
from nereid_shared.messages import ModelOutput, TaskRow, TaskState, TaskStatus, WorkerInfo

_ENDED: Final = frozenset({"Failed", "Succeeded"})

State = Literal["pending", "running", "failed", "offline"]
Found = tuple[State, str, str]
_ORDER: Final[Mapping[State, int]] = {"running": 0, "failed": 1, "pending": 2, "offline": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeEvidence:
    """All that is known of one node's worker.

    Attributes:
        row: the task as the node shall have it; None where it cannot be made.
        pod: the worker's Pod.
        absence: why its LocalController cannot be observed, "" where it can.
        applied: the node acknowledged the task as it is wanted now.
        trouble: the node's own condition, "" where all is well.
    """

    node: str
    node_ready: bool
    absence: str
    row: TaskRow | None
    pod: Object | None
    applied: bool
    trouble: str
    state: TaskState | None
    status: TaskStatus | None


def edge_worker(seen: EdgeEvidence) -> WorkerObservation:
    """Judge one node's worker."""
    state, reason, message = next(_faults(seen), None) or _by_its_word(seen)
    note = ""
    if state == "running" and (other := _not_as_wanted(seen.status)) is not None:
        note, message = other.reason or "ModelUnavailable", other.message
    return WorkerObservation(place=seen.node, is_edge=True, state=state, reason=reason, message=message, note=note)


def _not_as_wanted(status: TaskStatus | None) -> ModelOutput | None:
    """Return the model that a worker shall run while it runs another one."""
    models = status.output.models if status is not None and status.output is not None else ()
    return next((one for one in models if one.status in ("fetching", "failed")), None)


def _faults(seen: EdgeEvidence) -> Iterator[Found]:
    """Yield what keeps the worker from running, the most telling first."""
    if not seen.node_ready:
        yield "offline", NODE_OFFLINE, "the Node is not Ready"
    if seen.row is None:
        yield "pending", seen.trouble or "NotPlanned", "its task cannot be made"
    pod = pod_fault(seen.pod, speaks=True)
    if pod is not None and pod[0] == "failed":
        yield pod
    if seen.absence:
        yield "offline", NODE_OFFLINE, seen.absence
    if seen.status is not None and _is_current(seen) and seen.status.status == "failed":
        yield "failed", seen.status.reason or "WorkerFailed", seen.status.message
    if not seen.applied:
        yield "pending", seen.trouble or "NotAcknowledged", "the node has not acknowledged the task yet"
    if seen.state is not None and seen.state.condition == "Failed":
        yield "failed", seen.state.reason or "WorkerFailed", seen.state.message
    if pod is not None:
        yield pod


def _is_current(seen: EdgeEvidence) -> bool:
    return seen.status is not None and seen.row is not None and seen.status.generation >= seen.row.generation


def _by_its_word(seen: EdgeEvidence) -> Found:
    status, state = seen.status, seen.state
    if status is None and state is not None:  # a GlobalManager that started anew knows only the retained state
        if state.condition in ("Running", "Completed") and seen.row and state.generation >= seen.row.generation:
            return "running", SOURCE_FINISHED if state.condition == "Completed" else "", ""
        return "pending", state.reason or "WorkerStarting", state.message or "the worker has not reported yet"
    if status is None or not _is_current(seen):
        return "pending", "WorkerStarting", "the worker has not reported yet"
    if status.status in ("running", "completed"):
        return "running", SOURCE_FINISHED if status.status == "completed" else "", ""
    if status.status == "offline":
        return "pending", status.reason or "WorkerOffline", status.message or "the worker is gone"
    return "pending", status.reason or "WorkerStarting", status.message or "the worker starts"


def cloud_workers(
    pods: Sequence[Object],
    infos: Mapping[str, WorkerInfo],
    *,
    replicas: int,
    task_hash: str,
    node: str,
    node_ready: bool,
) -> list[WorkerObservation]:
    """Judge the cloud workers: as many as there should be, those that run first.

    Args:
        pods: all of the service's that are not being deleted.
        infos: what they said, by Pod.
        replicas: how many there should be.
        task_hash: of the task that they should run.
        node: where they run.
        node_ready: whether that Node is Ready.
    """
    seen = [(pod["metadata"]["name"], _cloud(pod, infos.get(pod["metadata"]["name"]), task_hash)) for pod in pods]
    seen.sort(key=lambda found: _ORDER[found[1][0]])
    absent: Found = ("pending", "WorkersStarting", f"{len(pods)} of {replicas} Pods are there")
    seen = (seen + [("cloud worker", absent)] * replicas)[:replicas]
    if not node_ready:
        unseen: Found = ("offline", NODE_OFFLINE, f"Node {node} is not Ready")
        seen = [(name, unseen) for name, _ in seen]
    return [
        WorkerObservation(place=name, is_edge=False, state=state, reason=reason, message=message)
        for name, (state, reason, message) in seen
    ]


def _cloud(pod: Object, info: WorkerInfo | None, task_hash: str) -> Found:
    fault = pod_fault(pod, speaks=True)
    if fault is not None and fault[0] == "failed":
        return fault
    if info is not None and info.status == "failed" and info.task_hash in ("", task_hash):
        return "failed", info.reason or "WorkerFailed", info.message
    if fault is not None:
        return fault
    if info is None or info.task_hash != task_hash or info.status not in ("running", "completed"):
        reason = info.reason if info is not None else ""
        return "pending", reason or "WorkerStarting", "the worker has not reported yet"
    return "running", "", ""


def _runs(status: Mapping[str, Any]) -> bool:
    containers = status.get("containerStatuses") or ()
    return bool(containers) and all("running" in (container.get("state") or {}) for container in containers)


def has_ended(pod: Object) -> bool:
    """Whether a Pod's containers will never run again."""
    return (pod.get("status") or {}).get("phase") in _ENDED


def _last_end(container: Mapping[str, Any]) -> str:
    """Return how a container ended last; not how long the kubelet waits, which would be another message each time."""
    ended: Mapping[str, Any] = (container.get("lastState") or {}).get("terminated") or {}
    if not ended:
        return "the container ends again and again"
    how = f"signal {ended['signal']}" if ended.get("signal") else f"exit code {ended.get('exitCode')}"
    if ended.get("reason") not in (None, "", "Error", "Completed"):
        how = f"{ended['reason']}, {how}"
    lines = [line.strip() for line in str(ended.get("message") or "").splitlines() if line.strip()]
    return f"the container ends again and again, last with {how}{': ' if lines else ''}{lines[-1] if lines else ''}"


def pod_fault(pod: Object | None, *, speaks: bool = False) -> Found | None:
    """Return what is wrong with a Pod, or None where it is Ready.

    Args:
        pod: the Pod, if it is there.
        speaks: whether its worker says itself how it is, sooner and in more words than a probe: it need only run.
    """
    if pod is None or "deletionTimestamp" in pod["metadata"]:
        return "pending", "WorkerStarting", "the Pod is not there yet"
    status: Mapping[str, Any] = pod.get("status") or {}
    if has_ended(pod):
        return "failed", status.get("reason") or "PodFailed", status.get("message") or "the Pod has ended"
    for container in status.get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason") or ""
        if reason == CRASH_LOOP:
            return "failed", reason, _last_end(container)
        if reason and reason not in ("ContainerCreating", "PodInitializing"):
            return "pending", reason, waiting.get("message") or ""
    if status.get("phase") == "Running" and (is_ready(pod) or (speaks and _runs(status))):
        return None
    return "pending", "PodNotReady", status.get("message") or f"Pod {pod['metadata']['name']} is not Ready"
