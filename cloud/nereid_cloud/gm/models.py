# SPDX-License-Identifier: Apache-2.0
"""The Model controller: what the nodes whose services name a model have of it, as the Model's status.

It tells nobody anything: a model reaches its nodes in the tasks of the services that name it. Hence no finalizer, too:
a Model that is deleted is gone at once, and the services that name it say so.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from nereid_cloud.cluster.kinds import ref_of
from nereid_cloud.cluster.port import Cluster, Object
from nereid_cloud.cluster.readiness import condition_of, is_ready
from nereid_cloud.gm.conditions import HEARTBEAT_S, condition, is_same
from nereid_cloud.gm.downstream import Downstream
from nereid_cloud.gm.events import Recorder
from nereid_cloud.gm.informer import Informer, Key
from nereid_cloud.gm.model_places import (
    NOT_REPORTED,
    NOT_USED,
    PASSING,
    ROUTINE,
    ModelPlace,
    Said,
    in_cloud,
    judge,
    on_node,
)
from nereid_cloud.gm.observed import Observed
from nereid_cloud.gm.settling import SETTLING_LOOK_S, Settling
from nereid_shared.times import rfc3339
from nereid_shared.topics import service_id

_EDGE: Final = "edgeWorker"
_CLOUD: Final = "cloudWorker"


class ModelController:
    """Reconciles one Model from cached state.

    Args:
        interval_s: seconds between two writes of what changes while a model comes, at least.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        models: Informer,
        services: Informer,
        nodes: Informer,
        downstream: Downstream,
        observed: Observed,
        recorder: Recorder,
        settle_s: float,
        interval_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster, self._models, self._services, self._nodes = cluster, models, services, nodes
        self._downstream, self._observed, self._recorder = downstream, observed, recorder
        self._interval_s, self._clock = interval_s, clock
        self._written_at: dict[str, float] = {}
        self._settling = Settling(clock, settle_s=settle_s)

    async def reconcile(self, key: Key) -> float | None:
        """Bring one Model's status up to date; returns seconds until the next look, or None."""
        obj = self._models.get(*key)
        if obj is None:
            return None
        if not self._downstream.released:
            return SETTLING_LOOK_S  # which nodes have it is not known before
        services = [service for service in self._services.items() if key in named_by(service, key.namespace)]
        places = _by_node(self._places(obj, services))
        said = judge(places, is_named=bool(services))
        uid = obj["metadata"]["uid"]
        unheard = any(self._is_unheard(place.node) for place in places) or _is_forgetful(obj, places)
        if self._settling.waits(uid, was_ready=is_ready(obj), is_ready=said[0] == "True", unheard=unheard):
            return SETTLING_LOOK_S
        return await self._write(obj, places, said)

    def forget(self, uid: str) -> None:
        """Drop what is remembered of a Model that is no more."""
        self._written_at.pop(uid, None)
        self._settling.forget(uid)

    def _places(self, obj: Object, services: Iterable[Object]) -> Iterator[ModelPlace]:
        """Yield what each worker that is to run the model has of it."""
        name = obj["metadata"]["name"]
        for service in services:
            metadata = service["metadata"]
            if _model_of(service, _EDGE) == name:
                for node in sorted(self._downstream.nodes_of(metadata["uid"])):
                    yield on_node(
                        obj, node, absence=self._absence(node), status=self._observed.status(node, metadata["uid"])
                    )
            if _model_of(service, _CLOUD) == name and service["spec"][_CLOUD].get("replicas", 1):
                node = service["spec"][_CLOUD].get("nodeName", "")
                infos = self._observed.cloud.get(service_id(metadata["name"], metadata["uid"]), {})
                is_there = is_ready(self._nodes.get("", node))
                yield in_cloud(obj, node, is_there=is_there, infos=infos.values())

    def _absence(self, node: str) -> str:
        return self._observed.absence(node) if is_ready(self._nodes.get("", node)) else "the Node is not Ready"

    def _is_unheard(self, node: str) -> bool:
        return is_ready(self._nodes.get("", node)) and self._observed.is_unheard(node)

    async def _write(self, obj: Object, places: list[ModelPlace], said: Said) -> float:
        metadata, status = obj["metadata"], obj.get("status") or {}
        uid, before, now = metadata["uid"], condition_of(obj, "Ready"), rfc3339()
        generation = metadata.get("generation", 0)
        conditions = [condition("Ready", *said, before, generation=generation, now=now)]
        wanted = _wanted(status, places, generation=generation, now=now)
        changed = {key: value for key, value in wanted.items() if status.get(key) != value}
        is_news = (before.get("status"), before.get("reason")) != said[:2] or "observedGeneration" in changed
        says_more = bool(changed) or not is_same(status.get("conditions") or [], conditions)
        due_s = 0.0 if is_news else self._interval_s if says_more else HEARTBEAT_S
        wait_s = due_s - (self._clock() - self._written_at.get(uid, float("-inf")))
        if wait_s > 0:
            return wait_s
        patch = {
            "metadata": {"resourceVersion": metadata["resourceVersion"]},
            "status": {**changed, "conditions": conditions},
        }
        result = await asyncio.to_thread(self._cluster.patch, ref_of(obj), patch, subresource="status")
        self._models.written(obj, result)
        self._written_at[uid] = self._clock()
        is_other = (before.get("status"), before.get("reason")) != said[:2]
        if is_other and said[1] not in PASSING and (before or said[1] != NOT_USED):
            is_routine = said[0] == "True" or said[1] in ROUTINE
            await self._recorder.record(obj, "Normal" if is_routine else "Warning", said[1], said[2])
        return HEARTBEAT_S


def _is_forgetful(obj: Object, places: list[ModelPlace]) -> bool:
    """Whether less is known of a Model than its status says: after our start its nodes have to speak again."""
    is_same = (obj.get("status") or {}).get("observedGeneration") == obj["metadata"].get("generation", 0)
    was_told = condition_of(obj, "Ready").get("reason", NOT_USED) not in ROUTINE
    return is_same and was_told and any(place.reason == NOT_REPORTED for place in places)


def named_by(service: Object | None, namespace: str) -> set[Key]:
    """Return the Models of a namespace that a service names, or any other object; none for one that is going."""
    if service is None or service["metadata"]["namespace"] != namespace or "deletionTimestamp" in service["metadata"]:
        return set()
    return {Key(namespace, name) for side in (_EDGE, _CLOUD) if (name := _model_of(service, side))}


def _model_of(service: Object, side: str) -> str:
    worker: Mapping[str, Any] = service["spec"].get(side) or {}
    return str((worker.get("model") or {}).get("name", ""))


def _by_node(places: Iterator[ModelPlace]) -> list[ModelPlace]:
    """Return one place a node: where several of its services name the model, the one that lacks it most."""
    worst: dict[str, ModelPlace] = {}
    for place in places:
        if place.node not in worst or place.lacks > worst[place.node].lacks:
            worst[place.node] = place
    return [worst[node] for node in sorted(worst)]


def _wanted(status: Mapping[str, Any], places: list[ModelPlace], *, generation: int, now: str) -> dict[str, Any]:
    """Return what the status is to say but for its conditions; None takes a field away."""
    is_new = status.get("observedGeneration") != generation
    ready = [place for place in places if place.state == "ready"]
    known = next((place for place in ready if place.digest), None)
    former = None, None
    if not is_new:
        former = status.get("digest"), status.get("size")
    digest, size = (known.digest, known.bytes or None) if known is not None else former
    wanted: dict[str, Any] = {
        "observedGeneration": generation,
        "nodes": {"ready": len(ready), "total": len(places)},
        "digest": digest,
        "size": size,
    }
    is_updated = is_new or (digest is not None and digest != status.get("digest"))
    wanted["updateTime"] = now if is_updated else status.get("updateTime")
    failed = next((place for place in places if place.state == "failed"), None)
    if failed is not None:
        failure = {"node": failed.node, "reason": failed.reason, "message": failed.message[:1024]}
        last = status.get("lastFailure") or {}
        is_same_one = {key: last.get(key) for key in failure} == failure
        wanted["lastFailure"] = {**failure, "time": last.get("time") if is_same_one else now}
    return wanted
