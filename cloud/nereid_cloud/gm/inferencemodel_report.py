# SPDX-License-Identifier: Apache-2.0
"""Writes an InferenceModel's status where it changed, and tells Events at its transitions.

As for a service, the whole list of conditions is the GlobalManager's.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nereid_cloud.cluster.kinds import ref_of
from nereid_cloud.cluster.port import Cluster, Object
from nereid_cloud.cluster.readiness import is_ready
from nereid_cloud.gm.checks import text_of
from nereid_cloud.gm.conditions import (
    HEARTBEAT_S,
    Problem,
    Verdict,
    WorkerObservation,
    conditions_of,
    is_same,
    nodes_summary,
    phase_shown,
)
from nereid_cloud.gm.events import Recorder
from nereid_cloud.gm.inferencemodel_status import ROUTINE, Replica, failure_of, judge, versions_served
from nereid_cloud.gm.informer import Informer
from nereid_cloud.gm.settling import SETTLING_LOOK_S, Settling
from nereid_cloud.gm.telling import Telling
from nereid_shared.times import rfc3339


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReport:
    """What was observed of an InferenceModel.

    Attributes:
        desired: how many servers there should be.
        is_whole: no other Pods are to come or to go than these.
        held: the nodes that stay on record as holding the task.
        target: the version that is wanted; "" where an image decides it, or none can be.
        selector: the labels of its Pods.
        url: where requests go; None where that stays as it was.
        unheard: a node that should be there has not spoken since the GlobalManager started.
    """

    replicas: tuple[Replica, ...] = ()
    desired: int = 0
    is_whole: bool = False
    problems: tuple[Problem, ...] = ()
    held: frozenset[str] = frozenset()
    is_edge: bool = False
    target: str = ""
    selector: Mapping[str, str] = field(default_factory=dict)
    url: str | None = None
    external_url: str = ""
    unheard: bool = False


class ModelReporter:
    """The one writer of InferenceModels' statuses.

    Args:
        models: their cache.
        settle_s: patience with nodes' first words after a start.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        models: Informer,
        recorder: Recorder,
        settle_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster, self._models, self._clock = cluster, models, clock
        self._telling = Telling(recorder, clock)
        self._settling = Settling(clock, settle_s=settle_s)
        self._written_at: dict[str, float] = {}

    async def report(self, raw: Object, report: ModelReport) -> float:
        """Write what changed, and tell of it; returns seconds until the next look is due."""
        metadata, status = raw["metadata"], raw.get("status") or {}
        uid, former = metadata["uid"], status.get("conditions") or []
        verdict = judge(
            report.replicas, report.problems,
            desired=report.desired, is_whole=report.is_whole, former=phase_shown(former),
        )  # fmt: skip
        is_settled = verdict.ready == "True" or bool(report.problems)
        if self._settling.waits(uid, was_ready=is_ready(raw), is_ready=is_settled, unheard=report.unheard):
            return SETTLING_LOOK_S
        wanted = _wanted(raw, report, verdict)
        changed = {key: value for key, value in wanted.items() if status.get(key) != value}
        said_same = is_same(former, wanted["conditions"])
        if said_same:
            changed.pop("conditions", None)
        beats = self._clock() - self._written_at.get(uid, float("-inf")) > HEARTBEAT_S
        if changed or beats:
            patch = {
                "metadata": {"resourceVersion": metadata["resourceVersion"]},
                "status": {**changed, "conditions": wanted["conditions"]},
            }
            result = await asyncio.to_thread(self._cluster.patch, ref_of(raw), patch, subresource="status")
            self._models.written(raw, result)
            self._written_at[uid] = self._clock()
        is_news = not said_same and _transition(former) != _transition(wanted["conditions"])
        look_s = await self._telling.look(raw, verdict, changed=is_news and verdict.ready_reason not in ROUTINE)
        return HEARTBEAT_S if look_s is None else min(HEARTBEAT_S, look_s)

    def forget(self, uid: str) -> None:
        """Drop what is remembered of a model that is no more."""
        self._written_at.pop(uid, None)
        self._settling.forget(uid)
        self._telling.forget(uid)


def _wanted(raw: Object, report: ModelReport, verdict: Verdict) -> dict[str, Any]:
    status, now = raw.get("status") or {}, rfc3339()
    generation = raw["metadata"].get("generation", 0)
    wanted: dict[str, Any] = {
        "url": status.get("url", "") if report.url is None else report.url,
        "externalUrl": report.external_url,
        "servingVersion": versions_served(report.replicas),
        "conditions": conditions_of(verdict, status.get("conditions") or [], generation=generation, now=now),
        "replicas": sum(one.is_there for one in report.replicas),
        "readyReplicas": sum(one.state == "running" for one in report.replicas),
        "selector": text_of(report.selector.items()),
        "observedGeneration": generation,
        "heldBy": sorted(report.held),
    }
    if report.is_edge:
        wanted["nodes"] = nodes_summary([_on_its_node(one) for one in report.replicas])
    elif status.get("nodes") is not None:
        wanted["nodes"] = None
    failure = failure_of(
        report.replicas, report.problems, status.get("lastFailure"), target=_target(raw, report), now=now
    )
    if failure is not None:
        wanted["lastFailure"] = failure
    return wanted


def _target(raw: Object, report: ModelReport) -> str:
    return report.target or str(raw["spec"].get("targetVersion") or "")


def _on_its_node(replica: Replica) -> WorkerObservation:
    state = replica.state if replica.state != "running" or replica.is_wanted else "pending"
    return WorkerObservation(
        place=replica.place, is_edge=True, state=state, reason=replica.reason, message=replica.message
    )


def _transition(conditions: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    return [(one.get("type"), one.get("status"), one.get("reason")) for one in conditions]
