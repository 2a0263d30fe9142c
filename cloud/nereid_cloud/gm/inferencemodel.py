# SPDX-License-Identifier: Apache-2.0
"""The InferenceModel controller (seed 2): reconciles one model by its key, from cached state.

In the cloud a Deployment and a Service, at the edge a Pod on each node, and for our own worker there a task. Level
triggered, as the JointInferenceService controller; what serves goes on while what is wanted cannot be had.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from typing import Final

from pydantic import ValidationError

from nereid_cloud.cluster.port import Object
from nereid_cloud.gm import inferencemodel_pods as pods
from nereid_cloud.gm.conditions import Problem
from nereid_cloud.gm.downstream import Downstream
from nereid_cloud.gm.holding import Holding, held_by
from nereid_cloud.gm.inferencemodel_plan import ModelPlan, plan, without_rival
from nereid_cloud.gm.inferencemodel_pods import EDGE_SERVING_ROLE, ModelParts
from nereid_cloud.gm.inferencemodel_report import ModelReport, ModelReporter
from nereid_cloud.gm.inferencemodel_witness import ModelCaches, ModelWitness
from nereid_cloud.gm.informer import Key, key_of
from nereid_cloud.gm.observed import Observed
from nereid_cloud.gm.placement import POD_FORBIDDEN, Placement
from nereid_cloud.gm.policy import Policy
from nereid_cloud.gm.resolving import Rows, in_turns
from nereid_shared.digests import task_hash
from nereid_shared.errors import Forbidden, MessageInvalid
from nereid_shared.messages import ServingTask, TaskRow
from nereid_shared.resources import InferenceModel
from nereid_shared.serving import port_of, serving_task
from nereid_shared.topics import service_id

logger = logging.getLogger(__name__)

LOOK_AGAIN_S: Final = 30.0


class InferenceModelController:
    """Reconciles one InferenceModel from cached state.

    Args:
        broker: the cloud broker's URL as workers in the cloud reach it.
        policy: what workers may be.
    """

    def __init__(
        self,
        *,
        caches: ModelCaches,
        holding: Holding,
        placement: Placement,
        reporter: ModelReporter,
        downstream: Downstream,
        observed: Observed,
        broker: str,
        policy: Policy,
    ) -> None:
        self._caches, self._holding, self._placement, self._reporter = caches, holding, placement, reporter
        self._downstream, self._observed, self._broker, self._policy = downstream, observed, broker, policy
        self._rows = Rows()
        self._witness = ModelWitness(
            caches, placement=placement, downstream=downstream, observed=observed, policy=policy
        )
        self._identities: dict[Key, tuple[str, str]] = {}
        self._keys: dict[str, Key] = {}

    async def prime(self) -> None:
        """Assign what nodes hold on record, without any write; others have their turns meanwhile."""
        for key in [key_of(raw) for raw in self._caches.models.items()]:
            try:
                if (raw := self._held(key)) is not None and not isinstance(model := _parsed(raw), Problem):
                    planned = self._plan(model, raw)
                    await in_turns(self._make_rows(raw, planned, self._parts(model, raw, planned)))
                # As it is by now: another may have claimed nodes and told them.
                if (raw := self._held(key)) is not None:
                    self._prime(raw)
            except Exception:
                # Whatever somebody wrote into one model must not keep the nodes from all others.
                logger.exception("model not understood", extra={"object": f"{key.namespace}/{key.name}"})
                if (raw := self._held(key)) is not None:
                    self._keep(raw, held_by(raw))
            await asyncio.sleep(0)

    def _held(self, key: Key) -> Object | None:
        raw = self._caches.models.get(*key)
        return None if raw is None or "deletionTimestamp" in raw["metadata"] or not held_by(raw) else raw

    def _prime(self, raw: Object) -> None:
        model, nodes = _parsed(raw), held_by(raw)
        if isinstance(model, Problem):
            self._keep(raw, nodes)
            return
        planned = self._plan(model, raw)
        parts = self._parts(model, raw, planned)
        for _ in self._make_rows(raw, planned, parts):
            pass
        rows = {node: row for node, row in self._wanted(raw, planned, parts).items() if node in nodes}
        unresolved = nodes.intersection(planned.nodes) - rows.keys()
        self._downstream.assign(raw["metadata"]["uid"], rows, raw, unresolved=unresolved)

    def key_of(self, identity: str) -> Key | None:
        """Return the key of the model with an identity, as `service_id` makes it."""
        return self._keys.get(identity)

    def awaiting(self, node: str) -> list[str]:
        """Return the models that the node shall no longer have, and may still hold."""
        return self._holding.awaiting(node)

    async def reconcile(self, key: Key) -> float | None:
        """Bring one model up to date; returns seconds until the next look, or None."""
        raw = self._caches.models.get(*key)
        former = self._identities.get(key)
        if former is not None and (raw is None or raw["metadata"]["uid"] != former[0]):
            self._forget(key, *former)
        if raw is None:
            return None
        uid = raw["metadata"]["uid"]
        identity = service_id(raw["metadata"]["name"], uid)
        self._identities[key], self._keys[identity] = (uid, identity), key
        if "deletionTimestamp" in raw["metadata"]:
            self._downstream.assign(uid, {})
            await self._placement.delete(uid, key.namespace, roles=(EDGE_SERVING_ROLE,))
            return await self._holding.delete(raw)
        model = _parsed(raw)
        if isinstance(model, Problem):
            if self._downstream.unresolved(uid):
                self._keep(raw, self._downstream.nodes_of(uid) | self._downstream.unresolved(uid))
            return await self._reporter.report(raw, ModelReport(problems=(model,), held=held_by(raw)))
        return await self._bring_about(model, raw)

    async def _bring_about(self, model: InferenceModel, raw: Object) -> float | None:
        planned = self._plan(model, raw)
        parts = self._parts(model, raw, planned)
        await in_turns(self._make_rows(raw, planned, parts))
        rows = self._wanted(raw, planned, parts)
        if rows:
            raw = await self._holding.claim(raw, rows)
        unresolved = held_by(raw).intersection(planned.nodes) - rows.keys()
        self._downstream.assign(model.metadata.uid, rows, raw, unresolved=unresolved)
        names = self._names(planned, parts, rows)
        wait_s, refused = await self._edge(raw, planned, parts, names)
        refused += await self._cloud(model, planned, parts)
        held = self._holding.still_held_by(raw, wanted=rows)
        report = self._witness.report(model, planned, rows=rows, names=names, held=held, refused=refused)
        next_s = await self._reporter.report(raw, report)
        return min(s for s in (wait_s, next_s, LOOK_AGAIN_S) if s is not None)

    def _plan(self, model: InferenceModel, raw: Object) -> ModelPlan:
        others = (one for one in self._caches.models.items() if one["spec"].get("replicas", 1))
        return without_rival(self._alone(model, raw), raw, others, self._alone_of, policy=self._policy)

    def _alone(self, model: InferenceModel, raw: Object) -> ModelPlan:
        return plan(model, raw, nodes=self._caches.nodes.named(""), policy=self._policy)

    def _alone_of(self, raw: Object) -> ModelPlan:
        model = _parsed(raw)
        if isinstance(model, Problem):
            return ModelPlan(is_edge=False, server=None, problems=(model,))
        return self._alone(model, raw)

    def _parts(self, model: InferenceModel, raw: Object, planned: ModelPlan) -> ModelParts | None:
        if planned.server is None:
            return None
        task = _task(raw) if planned.server.version else None
        return ModelParts(model=model, raw=raw, server=planned.server, task=task, policy=self._policy)

    # The edge.

    def _make_rows(self, raw: Object, planned: ModelPlan, parts: ModelParts | None) -> Iterator[None]:
        """Make the rows of the nodes on which our worker serves, yielding after each."""
        nodes = planned.nodes if parts is not None and parts.server.is_ours else {}

        def row(node: str) -> TaskRow:
            assert parts is not None  # noqa: S101 - else there are no nodes
            return _row(parts, node, broker=planned.nodes[node])

        yield from self._rows.make(raw["metadata"]["uid"], raw["metadata"].get("generation"), nodes, row)

    def _wanted(self, raw: Object, planned: ModelPlan, parts: ModelParts | None) -> dict[str, TaskRow]:
        """Return each node's row; what cannot be resolved now stays as the node was told it last."""
        uid = raw["metadata"]["uid"]
        if parts is not None:
            return self._rows.of(uid)
        return {node: row for node in planned.nodes if (row := self._last_row(node, uid)) is not None}

    def _keep(self, raw: Object, nodes: frozenset[str]) -> None:
        """Let nodes keep what they were told last; what nobody remembers stays unresolved."""
        uid = raw["metadata"]["uid"]
        kept = {node: row for node in nodes if (row := self._last_row(node, uid)) is not None}
        self._downstream.assign(uid, kept, raw, unresolved=nodes - kept.keys())

    def _last_row(self, node: str, uid: str) -> TaskRow | None:
        row = self._downstream.last_row(node, uid)
        return row if row is not None and row.spec is not None else None

    def _names(self, planned: ModelPlan, parts: ModelParts | None, rows: Mapping[str, TaskRow]) -> Mapping[str, str]:
        """Return the names of the Pods that nodes should have; a node without one keeps the Pod that it has."""
        if parts is None:
            return {}
        if parts.server.is_ours:
            return {node: str(row.refs["worker"]) for node, row in rows.items()}
        return {node: str(self._pod(parts, planned, node)["metadata"]["name"]) for node in planned.nodes}

    async def _edge(
        self, raw: Object, planned: ModelPlan, parts: ModelParts | None, names: Mapping[str, str]
    ) -> tuple[float | None, tuple[Problem, ...]]:
        def made(node: str) -> Object:
            assert parts is not None  # noqa: S101 - else there are no names
            return self._pod(parts, planned, node)

        return await self._placement.edge(raw, names, made, nodes=planned.nodes, role=EDGE_SERVING_ROLE)

    def _pod(self, parts: ModelParts, planned: ModelPlan, node: str) -> Object:
        return pods.edge_pod(parts, node, broker=planned.nodes[node])

    # The cloud.

    async def _cloud(self, model: InferenceModel, planned: ModelPlan, parts: ModelParts | None) -> tuple[Problem, ...]:
        uid, namespace = model.metadata.uid, model.metadata.namespace
        if planned.is_edge or planned.yields:
            await self._placement.withdraw(uid, namespace)
            return ()
        refused: tuple[Problem, ...] = ()
        if parts is not None:
            deployment = pods.cloud_deployment(parts, selector=planned.selector, broker=self._broker)
            try:
                await self._placement.deploy(uid, deployment)
                await self._placement.deploy(uid, pods.cloud_service(parts, port=port_of(parts.raw["spec"])))
            except Forbidden as error:
                refused = (Problem(reason=POD_FORBIDDEN, message=str(error)),)
        return refused + self._placement.refused(namespace, pods.deployment_name(model))

    def _forget(self, key: Key, uid: str, identity: str) -> None:
        self._downstream.assign(uid, {})
        self._rows.forget(uid)
        self._holding.forget(uid)
        self._placement.forget(uid)
        self._reporter.forget(uid)
        self._observed.forget_task(uid)
        for pod in self._observed.cloud.pop(identity, {}):
            self._downstream.clear_cloud_info(identity, pod)
        del self._identities[key]
        self._keys.pop(identity, None)


def _row(parts: ModelParts, node: str, *, broker: str) -> TaskRow:
    """Return the task as the node needs it."""
    metadata, raw = parts.model.metadata, parts.raw
    refs = {
        "worker": pods.edge_pod(parts, node, broker=broker)["metadata"]["name"],
        "service": parts.identity,
    }
    return TaskRow(
        kind=raw["kind"],
        namespace=metadata.namespace,
        name=metadata.name,
        generation=metadata.generation,
        hash=task_hash(raw["spec"], refs),
        spec=raw["spec"],
        refs=refs,
    )


def _task(raw: Object) -> ServingTask:
    metadata = raw["metadata"]
    return serving_task(
        raw["spec"],
        uid=metadata["uid"],
        namespace=metadata["namespace"],
        name=metadata["name"],
        generation=metadata.get("generation", 0),
    )


def _parsed(raw: Object) -> InferenceModel | Problem:
    try:
        model = InferenceModel.model_validate(raw)
        if model.spec.manifest:
            _task(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        return Problem(reason="SpecInvalid", message=f"{where}: {first['msg']}")
    except (KeyError, TypeError, ValueError, MessageInvalid) as error:
        return Problem(reason="SpecInvalid", message=str(error))
    return model
