# SPDX-License-Identifier: Apache-2.0
"""Writes a service's status: conditions at once, counters and heartbeats at most every so often, Events at transitions.

The whole list of conditions is the GlobalManager's, written by merge patch with the resourceVersion that it was read
with; never by server-side apply, where two managers would leave two types true.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from nereid_cloud.cluster.kinds import ref_of
from nereid_cloud.cluster.port import Cluster, Object
from nereid_cloud.cluster.readiness import is_ready
from nereid_cloud.gm import ledgers
from nereid_cloud.gm.conditions import (
    HEARTBEAT_S,
    Problem,
    Verdict,
    WorkerObservation,
    conditions_of,
    is_same,
    judge,
    nodes_summary,
    phase_shown,
)
from nereid_cloud.gm.events import Recorder
from nereid_cloud.gm.holding import held_by
from nereid_cloud.gm.informer import Informer
from nereid_cloud.gm.names import RETIRED_ANNOTATION
from nereid_cloud.gm.observed import Observed
from nereid_cloud.gm.retired import retired_of
from nereid_cloud.gm.settling import SETTLING_LOOK_S, Settling
from nereid_cloud.gm.telling import Telling
from nereid_shared.messages import Ledger
from nereid_shared.times import rfc3339

# Idle services: how old their counts are is written this many times more rarely than counts that change.
IDLE_FACTOR: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceReport:
    """What was observed of a service.

    Attributes:
        held: the nodes that stay on record as holding the task.
        ledgers: the last ledger of each node that told one.
        reported_at: when the oldest of them came.
        unheard: a node that should be there has not spoken since the GlobalManager started.
    """

    workers: tuple[WorkerObservation, ...]
    problems: tuple[Problem, ...]
    held: frozenset[str]
    ledgers: Mapping[str, Ledger]
    reported_at: str | None = None
    unheard: bool = False


class ServiceReporter:
    """The one writer of services' statuses.

    Args:
        services: the cache of services.
        interval_s: seconds between two writes of counters, at least.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        services: Informer,
        observed: Observed,
        recorder: Recorder,
        interval_s: float,
        settle_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster, self._services, self._observed = cluster, services, observed
        self._telling = Telling(recorder, clock)
        self._interval_s, self._clock = interval_s, clock
        self._settling = Settling(clock, settle_s=settle_s)
        self._written_at: dict[str, float] = {}

    async def report(self, raw: Object, report: ServiceReport) -> float:
        """Write what changed, and tell of it; returns seconds until the next look is due."""
        raw = await self._retire(raw, report)
        uid, former = raw["metadata"]["uid"], (raw.get("status") or {}).get("conditions") or []
        verdict = judge(report.workers, report.problems, former=phase_shown(former))
        is_settled = verdict.ready == "True" or bool(report.problems)
        if self._settling.waits(uid, was_ready=is_ready(raw), is_ready=is_settled, unheard=report.unheard):
            return SETTLING_LOOK_S
        next_s, changed = await self._write(raw, report, verdict)
        look_s = await self._telling.look(raw, verdict, changed=changed)
        return next_s if look_s is None else min(next_s, look_s)

    async def _write(self, raw: Object, report: ServiceReport, verdict: Verdict) -> tuple[float, bool]:
        """Write what is due; returns seconds until more is, and whether a condition became another."""
        now, uid, status = self._clock(), raw["metadata"]["uid"], raw.get("status") or {}
        former = status.get("conditions") or []
        wanted = self._wanted(raw, report, verdict)
        changed = {key: value for key, value in wanted.items() if status.get(key) != value}
        said_same = is_same(former, wanted["conditions"])
        if said_same:
            changed.pop("conditions", None)
        since_s = now - self._written_at.get(uid, float("-inf"))
        wait_s = self._wait_s(changed) - since_s
        if wait_s > 0:
            return wait_s, False
        patch = {
            "metadata": {"resourceVersion": raw["metadata"]["resourceVersion"]},
            "status": {**changed, "conditions": wanted["conditions"]},
        }
        ref = ref_of(raw)
        result = await asyncio.to_thread(self._cluster.patch, ref, patch, subresource="status")
        self._services.written(raw, result)
        self._written_at[uid] = now
        return HEARTBEAT_S, not said_same and not _same_transition(former, wanted["conditions"])

    def _wait_s(self, changed: Mapping[str, Any]) -> float:
        """Return seconds that must lie between two writes of nothing more than this."""
        if changed.keys() <= {"lastReportTime"}:
            return min(HEARTBEAT_S, self._interval_s * IDLE_FACTOR) if changed else HEARTBEAT_S
        return self._interval_s if changed.keys() <= {"metrics", "lastReportTime"} else 0.0

    def forget(self, uid: str) -> None:
        """Drop what is remembered of a service that is no more."""
        self._written_at.pop(uid, None)
        self._settling.forget(uid)
        self._telling.forget(uid)

    def _wanted(self, raw: Object, report: ServiceReport, verdict: Verdict) -> dict[str, Any]:
        status = raw.get("status") or {}
        now = rfc3339()
        generation = raw["metadata"].get("generation", 0)
        wanted: dict[str, Any] = {
            "conditions": conditions_of(verdict, status.get("conditions") or [], generation=generation, now=now),
            "observedGeneration": generation,
            "startTime": status.get("startTime") or now,
            "active": sum(worker.state == "running" for worker in report.workers),
            "failed": sum(worker.state == "failed" for worker in report.workers),
            "nodes": nodes_summary(report.workers),
            "heldBy": sorted(report.held),
        }
        metrics = _metrics(raw, report)
        if metrics is not None:
            wanted["metrics"] = metrics
            if report.reported_at is not None:
                wanted["lastReportTime"] = report.reported_at
        return wanted

    async def _retire(self, raw: Object, report: ServiceReport) -> Object:
        """Keep the counts of nodes that let the task go: their own are gone with it."""
        gone = held_by(raw) - report.held
        kept = retired_of(raw)
        due = kept.after(report.ledgers, gone=gone)
        if due == kept:
            return raw
        patch = {
            "metadata": {
                "resourceVersion": raw["metadata"]["resourceVersion"],
                "annotations": {RETIRED_ANNOTATION: due.encode().decode()},
            }
        }
        result = await asyncio.to_thread(self._cluster.patch, ref_of(raw), patch)
        self._services.written(raw, result)
        self._observed.forget_task(raw["metadata"]["uid"], gone)
        return result


def _metrics(raw: Object, report: ServiceReport) -> list[dict[str, str]] | None:
    """Return the metrics to show; None to leave those that are there.

    After our restart the nodes send their ledgers again one by one: until all have, a sum that is behind what is
    shown is not shown.
    """
    present = [ledger for node, ledger in report.ledgers.items() if node in report.held]
    shown = (raw.get("status") or {}).get("metrics") or []
    if not report.ledgers and not shown:
        return None
    fresh = ledgers.total([*present, retired_of(raw).total()])
    if not report.held <= report.ledgers.keys() and ledgers.is_behind(fresh, shown):
        return None
    return ledgers.metrics_of(fresh)


def _same_transition(former: list[Mapping[str, Any]], present: list[Mapping[str, Any]]) -> bool:
    """Whether only messages or the generation differ."""
    return [(c.get("type"), c.get("status"), c.get("reason")) for c in former] == [
        (c.get("type"), c.get("status"), c.get("reason")) for c in present
    ]
