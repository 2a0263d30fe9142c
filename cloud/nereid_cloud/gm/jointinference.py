# SPDX-License-Identifier: Apache-2.0
"""The JointInferenceService controller (seed 4): reconciles one service by its key, from cached state.

Level-triggered: each look starts from what is there, so it does not matter which event brought it about.
"""

import asyncio
import dataclasses
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from nereid_cloud.cluster.port import Object
from nereid_cloud.cluster.readiness import is_ready
from nereid_cloud.gm.checks import unresolved
from nereid_cloud.gm.conditions import Problem, WorkerObservation
from nereid_cloud.gm.downstream import Downstream
from nereid_cloud.gm.holding import Holding, held_by
from nereid_cloud.gm.informer import Informer, Key, key_of
from nereid_cloud.gm.observed import Observed
from nereid_cloud.gm.placement import POD_FORBIDDEN, Placement
from nereid_cloud.gm.plan import EdgePlan, Plan, World, plan
from nereid_cloud.gm.pods import deployment_name
from nereid_cloud.gm.policy import Policy
from nereid_cloud.gm.reporting import ServiceReport, ServiceReporter
from nereid_cloud.gm.resolving import Resolver
from nereid_cloud.gm.workers import EdgeEvidence, cloud_workers, edge_worker
from nereid_shared.errors import Forbidden
from nereid_shared.messages import Task, TaskRow
from nereid_shared.resources import JointInferenceService
from nereid_shared.topics import service_id

logger = logging.getLogger(__name__)

LOOK_AGAIN_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Caches:
    """The informers that a service depends on."""

    services: Informer
    models: Informer
    datasets: Informer
    nodes: Informer


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a service comes to on its nodes: rows and what its Pods are made of, by node.

    A node without the latter keeps the Pod that it has.
    """

    rows: Mapping[str, TaskRow]
    edges: Mapping[str, EdgePlan]


class ServiceController:
    """Reconciles one JointInferenceService from cached state."""

    def __init__(
        self,
        *,
        caches: Caches,
        holding: Holding,
        placement: Placement,
        reporter: ServiceReporter,
        downstream: Downstream,
        observed: Observed,
        policy: Policy,
    ) -> None:
        self._caches, self._holding = caches, holding
        self._placement, self._reporter, self._downstream = placement, reporter, downstream
        self._observed, self._policy = observed, policy
        self._resolver = Resolver(policy)
        self._identities: dict[Key, tuple[str, str]] = {}
        self._keys: dict[str, Key] = {}

    async def prime(self) -> None:
        """Assign what nodes hold on record, without any write; others have their turns meanwhile."""
        for key in [key_of(raw) for raw in self._caches.services.items()]:
            try:
                if (raw := self._living(key)) is not None:
                    await self._prepare(raw)
                # As it is by now: another may have claimed nodes and told them.
                if (raw := self._living(key)) is not None:
                    self._prime(raw)
            except Exception:
                # Whatever somebody wrote into one service must not keep the nodes from all others.
                logger.exception("service not understood", extra={"object": f"{key.namespace}/{key.name}"})
                if (raw := self._living(key)) is not None:
                    self._keep(raw, held_by(raw))
            await asyncio.sleep(0)

    def _living(self, key: Key) -> Object | None:
        raw = self._caches.services.get(*key)
        return None if raw is None or "deletionTimestamp" in raw["metadata"] else raw

    async def _prepare(self, raw: Object) -> None:
        service = _parsed(raw)
        if not isinstance(service, Problem) and (parts := self._plan(service, raw).parts) is not None:
            await self._resolver.prepare(service, raw, parts)

    def _prime(self, raw: Object) -> None:
        service, nodes = _parsed(raw), held_by(raw)
        if isinstance(service, Problem):
            self._keep(raw, nodes)
            return
        planned = self._plan(service, raw)
        rows = {n: row for n, row in self._wanted(service, raw, planned).rows.items() if n in nodes}
        unresolved = nodes.intersection(planned.nodes) - rows.keys()
        self._downstream.assign(service.metadata.uid, rows, raw, unresolved=unresolved)

    def _keep(self, raw: Object, nodes: frozenset[str]) -> None:
        """Let nodes keep what they were told last; what nobody remembers stays unresolved."""
        uid = raw["metadata"]["uid"]
        kept = {node: row for node in nodes if (row := self._last_row(node, uid)) is not None}
        self._downstream.assign(uid, kept, raw, unresolved=nodes - kept.keys())

    def _last_row(self, node: str, uid: str) -> TaskRow | None:
        row = self._downstream.last_row(node, uid)
        return row if row is not None and row.spec is not None else None

    def key_of(self, identity: str) -> Key | None:
        """Return the key of the service with an identity, as `service_id` makes it."""
        return self._keys.get(identity)

    def awaiting(self, node: str) -> list[str]:
        """Return the services that the node shall no longer have, and may still hold."""
        return self._holding.awaiting(node)

    async def reconcile(self, key: Key) -> float | None:
        """Bring one service up to date; returns seconds until the next look, or None."""
        raw = self._caches.services.get(*key)
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
            await self._placement.delete(uid, key.namespace)
            return await self._holding.delete(raw)
        service = _parsed(raw)
        if isinstance(service, Problem):
            if self._downstream.unresolved(uid):
                self._keep(raw, self._downstream.nodes_of(uid) | self._downstream.unresolved(uid))
            problems = (service, *self._unresolved(uid))
            report = ServiceReport(workers=(), problems=problems, held=held_by(raw), ledgers={})
            return await self._reporter.report(raw, report)
        return await self._bring_about(service, raw)

    async def _bring_about(self, service: JointInferenceService, raw: Object) -> float | None:
        planned = self._plan(service, raw)
        if planned.parts is not None:
            await self._resolver.prepare(service, raw, planned.parts)
        wanted = self._wanted(service, raw, planned)
        raw = await self._holding.claim(raw, wanted.rows)
        unresolved = held_by(raw).intersection(planned.nodes) - wanted.rows.keys()
        self._downstream.assign(service.metadata.uid, wanted.rows, raw, unresolved=unresolved)
        wait_s, refused = await self._edge(service, raw, planned, wanted)
        task = self._placement.deployed_task(service)
        if planned.parts is not None:
            try:
                task = await self._placement.cloud(service, raw, planned.parts, nodes=wanted.rows)
            except Forbidden as error:
                refused += (Problem(reason=POD_FORBIDDEN, message=f"cloud worker: {error}"),)
        refused += self._placement.refused(service.metadata.namespace, deployment_name(service))
        self._sweep(service)
        next_s = await self._reporter.report(
            raw, self._report(service, raw, planned, wanted=wanted, task=task, refused=refused)
        )
        return min(s for s in (wait_s, next_s, LOOK_AGAIN_S) if s is not None)

    async def _edge(
        self, service: JointInferenceService, raw: Object, planned: Plan, wanted: Wanted
    ) -> tuple[float | None, tuple[Problem, ...]]:
        names = {node: str(wanted.rows[node].refs["worker"]) for node in wanted.edges}

        def pod(node: str) -> Object:
            assert planned.parts is not None  # noqa: S101 - else there are no edges
            return self._resolver.pod(service, raw, planned.parts, wanted.edges[node])

        return await self._placement.edge(raw, names, pod, nodes=planned.nodes)

    def _plan(self, service: JointInferenceService, raw: Object) -> Plan:
        namespace = service.metadata.namespace
        return plan(
            service,
            raw,
            World(
                nodes=self._caches.nodes.named(""),
                models=self._caches.models.named(namespace),
                datasets=self._caches.datasets.named(namespace),
                policy=self._policy,
            ),
        )

    def _wanted(self, service: JointInferenceService, raw: Object, planned: Plan) -> Wanted:
        """Resolve each node's row and Pod; what cannot be resolved now stays as the node was told it last."""
        edges, rows = {}, {}
        if planned.parts is not None:
            edges = {edge.node: edge for edge in planned.parts.edges}
            rows = self._resolver.rows(service, raw, planned.parts)
        for node in planned.nodes:
            if node not in edges and (kept := self._last_row(node, service.metadata.uid)) is not None:
                rows[node] = kept
        return Wanted(rows=rows, edges=edges)

    def _report(
        self,
        service: JointInferenceService,
        raw: Object,
        planned: Plan,
        *,
        wanted: Wanted,
        task: Task | None,
        refused: tuple[Problem, ...],
    ) -> ServiceReport:
        uid = service.metadata.uid
        held = self._holding.still_held_by(raw, wanted=wanted.rows)
        pods = {pod["metadata"]["name"]: pod for pod in self._placement.pods_of(uid, "edge")}
        workers = [self._edge_worker(uid, node, wanted, pods) for node in planned.nodes]
        if task is not None or planned.parts is not None:
            workers += self._cloud_workers(service, task)
        statuses = {name: self._observed.status(name, uid) for name in held_by(raw).union(planned.nodes)}
        return ServiceReport(
            workers=tuple(workers),
            problems=(
                *_with_what_goes_on(planned, wanted),
                *refused,
                *self._unresolved(uid),
                *self._unreadable(planned),
            ),
            held=held,
            ledgers={n: s.ledger for n, s in statuses.items() if s is not None and s.ledger is not None},
            reported_at=self._observed.reported_at(uid, held),
            unheard=any(self._is_unheard(node) for node in planned.nodes),
        )

    def _is_unheard(self, node: str) -> bool:
        return is_ready(self._caches.nodes.get("", node)) and self._observed.is_unheard(node)

    def _unreadable(self, planned: Plan) -> Iterator[Problem]:
        """Yield what nodes say of the datasets that their workers read."""
        for edge in planned.parts.edges if planned.parts is not None else ():
            for name, dataset in edge.datasets.items():
                status = self._observed.status(edge.node, dataset["metadata"]["uid"])
                if status is not None and status.status == "failed":
                    message = f"Dataset {name} on node {edge.node}: {status.message}"
                    yield Problem(reason=status.reason or "DatasetUnreadable", message=message)

    def _unresolved(self, uid: str) -> Iterable[Problem]:
        return unresolved(self._downstream.unresolved(uid))

    def _edge_worker(self, uid: str, node: str, wanted: Wanted, pods: Mapping[str, Object]) -> WorkerObservation:
        row = wanted.rows.get(node)
        name = str(row.refs.get("worker", "")) if row is not None else ""
        return edge_worker(
            EdgeEvidence(
                node=node,
                node_ready=is_ready(self._caches.nodes.get("", node)),
                absence=self._observed.absence(node),
                row=row,
                pod=pods.get(name),
                applied=self._downstream.is_applied(node, uid),
                trouble=self._downstream.trouble(node),
                state=self._observed.task(node, uid),
                status=self._observed.status(node, uid),
            )
        )

    def _cloud_workers(self, service: JointInferenceService, task: Task | None) -> list[WorkerObservation]:
        uid, worker = service.metadata.uid, service.spec.cloud_worker
        pods = [pod for pod in self._placement.pods_of(uid, "cloud") if "deletionTimestamp" not in pod["metadata"]]
        return cloud_workers(
            [pod for pod in pods if (pod.get("status") or {}).get("phase") != "Succeeded"],
            self._observed.cloud.get(service_id(service.metadata.name, uid), {}),
            replicas=worker.replicas,
            task_hash=task.hash if task is not None else "",
            node=worker.node_name,
            node_ready=is_ready(self._caches.nodes.get("", worker.node_name)),
        )

    def _sweep(self, service: JointInferenceService) -> None:
        """Clear what cloud workers that are gone left on the broker."""
        identity = service_id(service.metadata.name, service.metadata.uid)
        pods = {pod["metadata"]["name"] for pod in self._placement.pods_of(service.metadata.uid, "cloud")}
        for pod, info in list(self._observed.cloud.get(identity, {}).items()):
            if pod not in pods and info.status == "offline":
                self._downstream.clear_cloud_info(identity, pod)

    def _forget(self, key: Key, uid: str, identity: str) -> None:
        self._downstream.assign(uid, {})
        self._resolver.forget(uid)
        self._holding.forget(uid)
        self._placement.forget(uid)
        self._reporter.forget(uid)
        self._observed.forget_task(uid)
        for pod in self._observed.cloud.pop(identity, {}):
            self._downstream.clear_cloud_info(identity, pod)
        del self._identities[key]
        self._keys.pop(identity, None)


def _parsed(raw: Object) -> JointInferenceService | Problem:
    try:
        return JointInferenceService.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        return Problem(reason="SpecInvalid", message=f"{where}: {first['msg']}")


def _with_what_goes_on(planned: Plan, wanted: Wanted) -> tuple[Problem, ...]:
    """Return what stands in the way, and what its workers do meanwhile: a Model that was deleted stops none of them."""
    if planned.parts is not None or not wanted.rows or not planned.problems:
        return planned.problems
    first, *others = planned.problems
    return dataclasses.replace(first, message=f"{first.message}; workers go on with what they have"), *others
