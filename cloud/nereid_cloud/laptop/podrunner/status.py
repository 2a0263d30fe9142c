# SPDX-License-Identifier: Apache-2.0
"""A Pod's status as the kubelet would write it, computed from its containers' states. No I/O, no clock."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nereid_cloud.cluster.port import Object

Phase = Literal["Pending", "Running", "Succeeded", "Failed"]
RestartPolicy = Literal["Always", "OnFailure", "Never"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A container that does not run yet or not again; reasons are the kubelet's."""

    reason: str = "ContainerCreating"
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A container whose process lives."""

    started_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminated:
    """How a container's process ended.

    Attributes:
        exit_code: as a shell has it: 128 + signal for a process that a signal ended.
        signal: that signal, or 0.
        reason: ``Completed``, ``Error``, ``StartError`` or ``ContainerStatusUnknown``.
        started_at: None where the process was never seen to start.
    """

    exit_code: int
    signal: int = 0
    reason: str
    message: str = ""
    started_at: str | None
    finished_at: str


State = Waiting | Running | Terminated


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerView:
    """One container as the status shows it.

    Attributes:
        last: how the run before ended.
        restarts: how many runs ended before this one.
        ready: whether it runs and its readiness probe, if any, succeeds.
    """

    name: str
    image: str
    state: State
    last: Terminated | None = None
    restarts: int = 0
    ready: bool = False
    identity: str = ""


def restart_policy(pod: Object) -> RestartPolicy:
    """Return a Pod's restart policy."""
    policy: RestartPolicy = pod["spec"].get("restartPolicy", "Always")
    return policy


def restarts(policy: RestartPolicy, ended: Terminated) -> bool:
    """Return whether a container that ended so is started again."""
    return policy == "Always" or (policy == "OnFailure" and ended.exit_code != 0)


def phase(policy: RestartPolicy, views: Sequence[ContainerView]) -> Phase:
    """Return the phase of a Pod with these containers, by the kubelet's rules."""
    ended = [_end(view) for view in views]
    if any(isinstance(view.state, Waiting) and end is None for view, end in zip(views, ended, strict=True)):
        return "Pending"
    if any(isinstance(view.state, Running) for view in views):
        return "Running"
    if any(end is not None and restarts(policy, end) for end in ended):
        return "Running"
    return "Succeeded" if all(end is not None and end.exit_code == 0 for end in ended) else "Failed"


def _end(view: ContainerView) -> Terminated | None:
    return view.state if isinstance(view.state, Terminated) else view.last


def pod_status(
    pod: Object, views: Sequence[ContainerView], *, host_ip: str, started_at: str, now: str
) -> dict[str, Any]:
    """Return the status of a Pod, for a merge patch.

    Args:
        pod: the Pod; conditions of its own status that the kubelet does not own are kept.
        views: its containers, in the order of the spec.
        host_ip: the node's address, which is the Pod's too: processes share the host's network.
        started_at: when the PodRunner accepted the Pod.
        now: the time for conditions that change.
    """
    is_phase = phase(restart_policy(pod), views)
    conditions = _conditions(pod, views, is_phase, now)
    has_network = any(not isinstance(view.state, Waiting) or view.last for view in views)
    return {
        "phase": is_phase,
        "conditions": conditions,
        "hostIP": host_ip,
        "hostIPs": [{"ip": host_ip}],
        "podIP": host_ip if has_network else None,
        "podIPs": [{"ip": host_ip}] if has_network else None,
        "startTime": started_at,
        "containerStatuses": [_container_status(view) for view in views],
    }


def _conditions(pod: Object, views: Sequence[ContainerView], is_phase: Phase, now: str) -> list[dict[str, Any]]:
    before = {condition["type"]: condition for condition in pod.get("status", {}).get("conditions", ())}
    unready = [view.name for view in views if not view.ready]
    if is_phase in {"Succeeded", "Failed"}:
        reason, message = ("PodCompleted" if is_phase == "Succeeded" else "PodFailed"), ""
    elif unready:
        reason, message = "ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]"
    else:
        reason, message = "", ""
    ready = "False" if reason else "True"
    ours = [
        _condition(before, "Initialized", "True", now),
        _condition(before, "Ready", ready, now, reason=reason, message=message),
        _condition(before, "ContainersReady", ready, now, reason=reason, message=message),
        _condition(before, "PodScheduled", "True", now),
    ]
    names = {condition["type"] for condition in ours}
    return ours + [condition for type_, condition in before.items() if type_ not in names]


def _condition(
    before: Mapping[str, Mapping[str, Any]], type_: str, status: str, now: str, *, reason: str = "", message: str = ""
) -> dict[str, Any]:
    old = before.get(type_, {})
    since = old.get("lastTransitionTime") if old.get("status") == status else None
    condition = {"type": type_, "status": status, "lastProbeTime": None, "lastTransitionTime": since or now}
    return condition | ({"reason": reason} if reason else {}) | ({"message": message} if message else {})


def _container_status(view: ContainerView) -> dict[str, Any]:
    return {
        "name": view.name,
        "image": view.image,
        "imageID": "",
        "containerID": view.identity,
        "ready": view.ready,
        "started": isinstance(view.state, Running),
        "restartCount": view.restarts,
        "state": _state(view.state),
        "lastState": _state(view.last) if view.last else {},
    }


def _state(state: State) -> dict[str, Any]:
    match state:
        case Waiting(reason=reason, message=message):
            return {"waiting": {"reason": reason} | ({"message": message} if message else {})}
        case Running(started_at=started_at):
            return {"running": {"startedAt": started_at}}
        case Terminated():
            optional = {"signal": state.signal, "message": state.message, "startedAt": state.started_at}
            terminated = {"exitCode": state.exit_code, "reason": state.reason, "finishedAt": state.finished_at}
            return {"terminated": terminated | {key: value for key, value in optional.items() if value}}
