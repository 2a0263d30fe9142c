# SPDX-License-Identifier: Apache-2.0
"""What a service's workers and nodes were seen to do, as the conditions that its status shows; no I/O, no clock.

Exactly one of the seeds' Pending, Running and Failed is not False and stands last; Ready stands first.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

Phase = Literal["Pending", "Running", "Failed"]
Status = Literal["True", "False", "Unknown"]

PHASES: Final[tuple[Phase, ...]] = ("Pending", "Running", "Failed")
NODE_OFFLINE: Final = "NodeOffline"
SOURCE_FINISHED: Final = "SourceFinished"
ALL_RUNNING: Final = "AllWorkersRunning"
SERVING: Final = "Serving"
CRASH_LOOP: Final = "CrashLoopBackOff"
MAX_TROUBLED: Final = 20
HEARTBEAT_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerObservation:
    """One worker as it was seen.

    Attributes:
        place: the node of an edge worker, or the name of a cloud worker.
        is_edge: on which side it is.
        state: ``offline`` where nobody can tell.
        reason: one CamelCase word where it does not run, or has nothing left to do.
        note: one CamelCase word where it runs, but not as it is wanted: on another model than its task names.
    """

    place: str
    is_edge: bool
    state: Literal["pending", "running", "failed", "offline"]
    reason: str = ""
    message: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What stands in a service's way; it heals when what is missing appears."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A phase with its status, and Ready; `is_problem` where something that the service names is missing or wrong."""

    phase: Phase
    status: Status
    reason: str
    message: str
    ready: Status
    ready_reason: str
    ready_message: str
    is_problem: bool = False


def judge(workers: Sequence[WorkerObservation], problems: Sequence[Problem], *, former: Phase = "Pending") -> Verdict:
    """Return what a service's status says.

    Args:
        workers: all that should run.
        problems: what the service names and is not there; they keep Ready false.
        former: the phase that was shown last, which stays where nothing can be observed.
    """
    phase, status, reason, message = _phase(workers, problems, former)
    if status == "True" and phase == "Running" and not problems and all(w.state == "running" for w in workers):
        why = reason if reason == SOURCE_FINISHED else ALL_RUNNING
        ready: tuple[Status, str, str] = ("True", why, message)
        if noted := [w for w in workers if w.note]:
            ready = ("True", noted[0].note, f"{message}; {_first_of(noted)}")
    elif problems:
        ready = ("False", problems[0].reason, _joined(problems))
    elif status == "Unknown":
        ready = ("Unknown", reason, message)
    elif phase == "Running":
        ready = _not_all_run(workers)
    else:
        ready = ("False", reason, message)
    return Verdict(
        phase=phase, status=status, reason=reason, message=message,
        ready=ready[0], ready_reason=ready[1], ready_message=ready[2], is_problem=bool(problems),
    )  # fmt: skip


def _phase(
    workers: Sequence[WorkerObservation], problems: Sequence[Problem], former: Phase
) -> tuple[Phase, Status, str, str]:
    edge = [w for w in workers if w.is_edge]
    cloud = [w for w in workers if not w.is_edge]
    for side in (edge, cloud):
        failed = [w for w in side if w.state == "failed"]
        if failed and not any(w.state == "running" for w in side):
            return "Failed", "True", failed[0].reason or "WorkerFailed", _first_of(failed)
    if problems and not any(w.state in ("running", "offline") for w in edge):
        return "Pending", "True", problems[0].reason, _joined(problems)
    pending = [w for w in workers if w.state == "pending"]
    if pending:
        return "Pending", "True", pending[0].reason or "WorkersStarting", _first_of(pending)
    if edge and all(w.state == "offline" for w in edge):
        return former, "Unknown", NODE_OFFLINE, _first_of(edge)
    if cloud and all(w.state == "offline" for w in cloud):
        return former, "Unknown", NODE_OFFLINE, _first_of(cloud)
    running = sum(w.state == "running" for w in workers)
    count = f"{running} of {len(workers)} workers run"
    is_finished = bool(edge) and all(w.reason == SOURCE_FINISHED for w in edge)
    reason, prefix = (SOURCE_FINISHED, "every source is finished; ") if is_finished else ("WorkersRunning", "")
    return "Running", "True", reason, prefix + count


def _not_all_run(workers: Sequence[WorkerObservation]) -> tuple[Status, str, str]:
    for state in ("failed", "offline"):
        those = [w for w in workers if w.state == state]
        if those:
            status: Status = "Unknown" if state == "offline" else "False"
            return status, those[0].reason or NODE_OFFLINE, _first_of(those)
    return "False", "WorkersStarting", _first_of(workers)


def _first_of(workers: Sequence[WorkerObservation]) -> str:
    first = workers[0]
    more = f" (and {len(workers) - 1} more)" if len(workers) > 1 else ""
    return f"{first.place}: {first.message or first.reason or first.state}{more}"


def _joined(problems: Iterable[Problem]) -> str:
    return "; ".join(problem.message for problem in problems)


def conditions_of(
    verdict: Verdict, former: Iterable[Mapping[str, Any]], *, generation: int, now: str
) -> list[dict[str, Any]]:
    """Return the condition list; a transition time is kept where the status did not change.

    Args:
        verdict: what to say.
        former: the list that the status shows.
        generation: of the spec that was judged.
        now: the time as RFC 3339.
    """
    before = {condition.get("type"): condition for condition in former}
    said: list[tuple[str, str, str, str]] = [("Ready", verdict.ready, verdict.ready_reason, verdict.ready_message)]
    others = [phase for phase in PHASES if phase != verdict.phase]
    said += [(phase, "False", verdict.reason, "") for phase in others]
    said.append((verdict.phase, verdict.status, verdict.reason, verdict.message))
    return [
        condition(kind, status, reason, message, before.get(kind), generation=generation, now=now)
        for kind, status, reason, message in said
    ]


def condition(
    kind: str, status: str, reason: str, message: str, former: Mapping[str, Any] | None, *, generation: int, now: str
) -> dict[str, Any]:
    """Return one condition in the API's shape."""
    kept = former is not None and former.get("status") == status and former.get("lastTransitionTime")
    return {
        "type": kind, "status": status, "reason": reason, "message": message[:1024],
        "observedGeneration": generation, "lastTransitionTime": kept or now, "lastHeartbeatTime": now,
    }  # fmt: skip


def phase_shown(conditions: Sequence[Mapping[str, Any]]) -> Phase:
    """Return the phase that a status shows; Pending where it shows none."""
    last = conditions[-1].get("type") if conditions else None
    return next((phase for phase in PHASES if phase == last), "Pending")


def is_same(former: Iterable[Mapping[str, Any]], present: Iterable[Mapping[str, Any]]) -> bool:
    """Whether two lists say the same, heartbeats apart."""
    return [_without_times(c) for c in former] == [_without_times(c) for c in present]


def _without_times(condition: Mapping[str, Any]) -> tuple[object, ...]:
    return tuple(condition.get(name) for name in ("type", "status", "reason", "message", "observedGeneration"))


def nodes_summary(workers: Sequence[WorkerObservation]) -> dict[str, Any]:
    """Return the status's ``nodes``: sums, and at most 20 troubled ones by name."""
    edge = [w for w in workers if w.is_edge]
    count = {state: sum(w.state == state for w in edge) for state in ("running", "pending", "failed", "offline")}
    troubled = [w for w in edge if w.state in ("failed", "offline") or (w.state == "pending" and w.reason)]
    return {
        "desired": len(edge), "ready": count["running"], "pending": count["pending"], "failed": count["failed"],
        "offline": count["offline"],
        "troubled": [
            {"name": w.place, "reason": w.reason, "message": w.message[:256]}
            for w in sorted(troubled, key=lambda w: w.place)[:MAX_TROUBLED]
        ],
    }  # fmt: skip
