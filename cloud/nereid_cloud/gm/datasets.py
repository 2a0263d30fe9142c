# SPDX-License-Identifier: Apache-2.0
"""The Dataset controller (seed 1): the dataset down to its node, the number of its samples up."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from nereid_cloud.cluster.kinds import DATASET, ref_of
from nereid_cloud.cluster.port import Cluster, Object
from nereid_cloud.cluster.readiness import condition_of, is_ready
from nereid_cloud.gm.checks import forbidden_path
from nereid_cloud.gm.conditions import HEARTBEAT_S, NODE_OFFLINE, condition, is_same
from nereid_cloud.gm.downstream import Downstream
from nereid_cloud.gm.events import Recorder
from nereid_cloud.gm.holding import Holding, held_by
from nereid_cloud.gm.informer import Informer, Key
from nereid_cloud.gm.observed import Observed
from nereid_cloud.gm.paths import dataset_path
from nereid_cloud.gm.policy import Policy
from nereid_cloud.gm.settling import SETTLING_LOOK_S, Settling
from nereid_shared.defaults import MAX_CLASSES, MAX_PROBLEMS
from nereid_shared.digests import task_hash
from nereid_shared.messages import DatasetStatistics, TaskRow, TaskStatus
from nereid_shared.times import rfc3339

Said = tuple[str, str, str]

_ROUTINE: Final = frozenset({"NotAcknowledged", "NotCounted", "Counting"})


class DatasetController:
    """Reconciles one Dataset from cached state.

    Args:
        interval_s: seconds between two writes of counts, at least.
        policy: which paths of their nodes datasets may be at.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        datasets: Informer,
        nodes: Informer,
        holding: Holding,
        downstream: Downstream,
        observed: Observed,
        recorder: Recorder,
        settle_s: float,
        interval_s: float,
        policy: Policy,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster, self._datasets, self._nodes, self._holding = cluster, datasets, nodes, holding
        self._downstream, self._observed, self._recorder = downstream, observed, recorder
        self._interval_s, self._policy, self._clock = interval_s, policy, clock
        self._uids: dict[Key, str] = {}
        self._written_at: dict[str, float] = {}
        self._settling = Settling(clock, settle_s=settle_s)

    def prime(self) -> None:
        """Assign what nodes hold on record, without any write."""
        for obj in self._datasets.items():
            if "deletionTimestamp" not in obj["metadata"]:
                nodes = held_by(obj)
                self._assign(obj, {n: row for n, row in self._rows(obj).items() if n in nodes})

    def awaiting(self, node: str) -> list[str]:
        """Return the datasets that the node shall no longer have, and may still hold."""
        return self._holding.awaiting(node)

    async def reconcile(self, key: Key) -> float | None:
        """Bring one Dataset up to date; returns seconds until the next look, or None."""
        obj = self._datasets.get(*key)
        former = self._uids.get(key)
        if former is not None and (obj is None or obj["metadata"]["uid"] != former):
            self._downstream.assign(former, {})
            self._holding.forget(former)
            self._observed.forget_task(former)
            self._written_at.pop(former, None)
            self._settling.forget(former)
            del self._uids[key]
        if obj is None:
            return None
        self._uids[key] = obj["metadata"]["uid"]
        if "deletionTimestamp" in obj["metadata"]:
            return await self._holding.delete(obj)
        rows = self._rows(obj)
        obj = await self._holding.claim(obj, rows)
        self._assign(obj, rows)
        return await self._report(obj, rows)

    def _assign(self, obj: Object, rows: Mapping[str, TaskRow]) -> None:
        self._downstream.assign(obj["metadata"]["uid"], rows, obj)

    def _rows(self, obj: Object) -> dict[str, TaskRow]:
        node = obj["spec"]["nodeName"]
        if self._nodes.get("", node) is None or self._forbidden(obj):
            return {}
        return {node: row_of(obj)}

    def _forbidden(self, obj: Object) -> str:
        """Return why the node must not read it, though nobody else would: counts tell of what there is."""
        problems = forbidden_path("dataUrl", dataset_path(obj), self._policy)
        return next((problem.message for problem in problems), "")

    async def _report(self, obj: Object, rows: Mapping[str, TaskRow]) -> float | None:
        metadata, status = obj["metadata"], obj.get("status") or {}
        generation, now = metadata.get("generation", 0), rfc3339()
        node = obj["spec"]["nodeName"]
        forbidden = self._forbidden(obj)
        if forbidden:
            said: Said = "False", "PathNotAllowed", forbidden
        else:
            said = self._judge(metadata["uid"], node, generation)
        former = status.get("conditions") or []
        before = condition_of(obj, "Ready")
        unheard = said[0] == "Unknown" and self._observed.is_unheard(node)
        if self._settling.waits(metadata["uid"], was_ready=is_ready(obj), is_ready=said[0] == "True", unheard=unheard):
            return SETTLING_LOOK_S
        conditions = [condition("Ready", *said, before, generation=generation, now=now)]
        wanted: dict[str, Any] = {
            "observedGeneration": generation,
            "heldBy": sorted(self._holding.still_held_by(obj, wanted=rows)),
        }
        counted = self._observed.status(node, metadata["uid"]) if rows else None
        if counted is not None and counted.number_of_samples is not None:
            wanted["numberOfSamples"] = counted.number_of_samples
            wanted["updateTime"] = counted.update_time or status.get("updateTime") or now
            if counted.statistics is not None:
                wanted["statistics"] = statistics_of(counted.statistics)
        changed = {key: value for key, value in wanted.items() if status.get(key) != value}
        has_turned = (before.get("status"), before.get("reason")) != said[:2]
        # Counts alone can wait: a folder that fills changes them all the time.
        is_urgent = has_turned or not changed.keys().isdisjoint({"observedGeneration", "heldBy"})
        is_other = bool(changed) or not is_same(former, conditions)
        due_s = 0.0 if is_urgent else self._interval_s if is_other else HEARTBEAT_S
        wait_s = due_s - (self._clock() - self._written_at.get(metadata["uid"], float("-inf")))
        if wait_s > 0:
            return wait_s
        patch = {
            "metadata": {"resourceVersion": metadata["resourceVersion"]},
            "status": {**changed, "conditions": conditions},
        }
        result = await asyncio.to_thread(self._cluster.patch, ref_of(obj), patch, subresource="status")
        self._datasets.written(obj, result)
        self._written_at[metadata["uid"]] = self._clock()
        if has_turned:
            is_routine = said[0] == "True" or said[1] in _ROUTINE
            await self._recorder.record(obj, "Normal" if is_routine else "Warning", said[1], said[2])
        return HEARTBEAT_S

    def _judge(self, uid: str, node: str, generation: int) -> Said:
        obj = self._nodes.get("", node)
        if obj is None:
            return "False", "NodeNotFound", f"Node {node!r} does not exist"
        absence = self._observed.absence(node) if is_ready(obj) else "the Node is not Ready"
        if absence:
            return "Unknown", NODE_OFFLINE, f"{node}: {absence}"
        if not self._downstream.is_applied(node, uid):
            reason = self._downstream.trouble(node)
            return "False", reason or "NotAcknowledged", f"node {node} has not acknowledged the dataset yet"
        status = self._observed.status(node, uid)
        if status is None or status.generation < generation:
            return "False", "NotCounted", f"node {node} has not counted the samples yet"
        return _of_status(status)


def row_of(obj: Object) -> TaskRow:
    """Return a Dataset as a node's task."""
    metadata = obj["metadata"]
    return TaskRow(
        kind=DATASET.kind, namespace=metadata["namespace"], name=metadata["name"],
        generation=metadata.get("generation", 0), hash=task_hash(obj["spec"], {}), spec=obj["spec"], refs={},
    )  # fmt: skip


def statistics_of(found: DatasetStatistics) -> dict[str, Any]:
    """Return what a node says of a dataset as the resource has it: whole, so that a patch leaves nothing of before."""
    said: dict[str, Any] = msgspec.to_builtins(found)
    del said["schema"]
    said["classes"] = [{"name": name, "count": count} for name, count in list(found.classes.items())[:MAX_CLASSES]]
    said["problems"] = found.problems[:MAX_PROBLEMS]
    return said


def _of_status(status: TaskStatus) -> Said:
    if status.status == "failed" or status.reason:
        return "False", status.reason or "DatasetUnreadable", status.message
    if status.number_of_samples is None:
        return "False", "NotCounted", "the node has not counted the samples yet"
    return "True", "Counted", f"{status.number_of_samples} samples"
