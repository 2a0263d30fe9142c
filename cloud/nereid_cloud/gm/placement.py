# SPDX-License-Identifier: Apache-2.0
"""Brings Pods, Deployments and Services of all kinds of workers to what a plan says."""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from nereid_cloud.cluster.kinds import DEPLOYMENT, POD, SERVICE
from nereid_cloud.cluster.port import Cluster, Object, Ref
from nereid_cloud.gm.conditions import Problem
from nereid_cloud.gm.events import Recorder
from nereid_cloud.gm.informer import Informer
from nereid_cloud.gm.names import MANAGER, ROLE_LABEL
from nereid_cloud.gm.plan import Parts
from nereid_cloud.gm.pods import cloud_deployment, cloud_task, deployment_name, task_in
from nereid_cloud.gm.policy import Policy
from nereid_cloud.gm.workers import has_ended
from nereid_shared.backoff import doubled
from nereid_shared.digests import task_hash
from nereid_shared.errors import AlreadyExists, Forbidden, NotFound
from nereid_shared.messages import Task
from nereid_shared.resources import JointInferenceService

logger = logging.getLogger(__name__)

FIRST_BACKOFF_S: Final = 1.0
LAST_BACKOFF_S: Final = 300.0
# Of Pods: a fleet's come about one API round trip after the other, unless some go together.
WRITES_AT_ONCE: Final = 8
POD_FORBIDDEN: Final = "PodForbidden"


@dataclass(slots=True)
class _Replaced:
    """How often a node's Pod had to be replaced, and when the next may be made."""

    times: int = 0
    not_before: float = 0.0


class Placement:
    """The writes that make workers come and go.

    Args:
        pods: cache of the Pods of all services, indexed by their service.
        deployments: cache of their Deployments, indexed likewise.
        services: cache of their Services, indexed likewise.
        broker: URL of the cloud broker as cloud workers reach it.
        policy: what workers may be.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        pods: Informer,
        deployments: Informer,
        services: Informer,
        recorder: Recorder,
        broker: str,
        policy: Policy,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster, self._pods, self._deployments, self._services = cluster, pods, deployments, services
        self._recorder, self._broker, self._policy, self._clock = recorder, broker, policy, clock
        self._groups: dict[str, str] = {}
        self._applied: dict[str, dict[str, tuple[str, object]]] = {}
        self._replaced: dict[tuple[str, str], _Replaced] = {}

    def pods_of(self, uid: str, role: str) -> list[Object]:
        """Return a service's Pods of one side."""
        return [
            pod for pod in self._pods.labelled(uid) if (pod["metadata"].get("labels") or {}).get(ROLE_LABEL) == role
        ]

    async def edge(
        self,
        raw: Object,
        wanted: Mapping[str, str],
        make: Callable[[str], Object],
        *,
        nodes: Iterable[str],
        role: str = "edge",
    ) -> tuple[float | None, tuple[Problem, ...]]:
        """Bring the edge Pods about; returns seconds until a Pod that failed may be made again, and what was refused.

        Args:
            raw: the service.
            wanted: names of Pods by node; a node of the service without one keeps the Pod that it has.
            make: makes a node's Pod.
            nodes: the service's nodes; Pods elsewhere go.
            role: what the Pods are labelled as.
        """
        uid, kept = raw["metadata"]["uid"], frozenset(nodes)
        present: dict[str, list[Object]] = {}
        for pod in self.pods_of(uid, role):
            present.setdefault(pod["spec"].get("nodeName", ""), []).append(pod)
        for node in present.keys() - kept:
            await self._delete_all(present[node])
        waits: list[float] = []
        refused: dict[str, Problem] = {}
        waiting = [node for node, name in wanted.items() if not _stands(name, present.get(node, []))]

        async def work() -> None:
            while waiting:
                node = waiting.pop()
                try:
                    wait_s = await self._one(raw, node, wanted[node], make, present.get(node, []))
                except Forbidden as error:
                    refused.setdefault(str(error).partition("forbidden")[2], _forbidden(f"node {node}: {error}"))
                else:
                    waits.extend(() if wait_s is None else (wait_s,))

        if waiting:
            await _together(work, times=min(WRITES_AT_ONCE, len(waiting)))
        return min(waits, default=None), tuple(refused.values())

    async def _one(
        self, raw: Object, node: str, name: str, make: Callable[[str], Object], present: list[Object]
    ) -> float | None:
        key = (raw["metadata"]["uid"], node)
        ended = [pod for pod in present if has_ended(pod) and "deletionTimestamp" not in pod["metadata"]]
        await self._delete_all(pod for pod in present if pod["metadata"]["name"] != name or pod in ended)
        if ended:
            replaced = self._replaced.setdefault(key, _Replaced())
            delay_s = doubled(FIRST_BACKOFF_S, replaced.times, longest_s=LAST_BACKOFF_S)
            replaced.times, replaced.not_before = min(replaced.times + 1, 16), self._clock() + delay_s
            status = ended[0].get("status") or {}
            why = status.get("reason") or status.get("phase") or "PodFailed"
            message = f"Pod {ended[0]['metadata']['name']} on node {node} ended: {why}"
            await self._recorder.record(raw, "Warning", "PodReplaced", message)
        if present:
            return None  # two workers must not share one state folder: the former Pod's end comes as an event
        wait_s = self._replaced.get(key, _Replaced()).not_before - self._clock()
        if wait_s > 0:
            return wait_s
        try:
            await asyncio.to_thread(self._cluster.create, make(node))
        except AlreadyExists:
            logger.debug("pod is there already", extra={"pod": name})
        else:
            logger.info("pod created", extra={"pod": name, "node": node})
        return None

    async def cloud(self, service: JointInferenceService, raw: Object, parts: Parts, *, nodes: Iterable[str]) -> Task:
        """Bring the Deployment about; returns the task that its workers run."""
        group = await self._group(service)
        task = cloud_task(service, big=parts.big, nodes=nodes, group=group)
        manifest = cloud_deployment(
            service, raw, task, hostname=parts.cloud_hostname, big=parts.big, broker=self._broker, policy=self._policy
        )
        await self.deploy(service.metadata.uid, manifest)
        return task

    async def deploy(self, uid: str, manifest: Object) -> None:
        """Apply a Deployment, or a Service, of the resource with a uid, where it is not yet so."""
        metadata, cache = manifest["metadata"], self._cache(manifest["kind"])
        present = cache.get(metadata["namespace"], metadata["name"])
        applied = self._applied.setdefault(uid, {})
        fingerprint = (task_hash(manifest, {}), _generation(present))
        if present is None or applied.get(manifest["kind"]) != fingerprint:
            result = await asyncio.to_thread(self._cluster.apply, manifest, manager=MANAGER)
            applied[manifest["kind"]] = (fingerprint[0], _generation(result))
            if present is not None:
                cache.written(present, result)

    def _cache(self, kind: str) -> Informer:
        return self._services if kind == SERVICE.kind else self._deployments

    def service_of(self, uid: str) -> Object | None:
        """Return the Service of the resource with a uid."""
        return next(iter(self._services.labelled(uid)), None)

    async def delete(self, uid: str, namespace: str, *, roles: Iterable[str] = ("edge",)) -> None:
        """Delete the workers; the owner's finalizer would delay the garbage collection.

        Args:
            uid: of the resource whose they are.
            namespace: where they are.
            roles: of the Pods that no Deployment owns.
        """
        await self._delete_all(pod for role in roles for pod in self.pods_of(uid, role))
        await self.withdraw(uid, namespace)

    async def withdraw(self, uid: str, namespace: str) -> None:
        """Delete the Deployment and the Service of a resource, if there are any."""
        for kind, cache in ((DEPLOYMENT, self._deployments), (SERVICE, self._services)):
            for obj in cache.labelled(uid):
                if "deletionTimestamp" not in obj["metadata"]:
                    ref = Ref(kind=kind, name=obj["metadata"]["name"], namespace=namespace)
                    await self._delete(ref, obj["metadata"]["uid"])

    def refused(self, namespace: str, deployment: str) -> tuple[Problem, ...]:
        """Return what keeps a Deployment's Pods from being made, in the API server's words."""
        present = self._deployments.get(namespace, deployment) or {}
        return tuple(
            _forbidden(condition.get("message") or "")
            for condition in (present.get("status") or {}).get("conditions") or ()
            if condition.get("type") == "ReplicaFailure"
            and condition.get("status") == "True"
            and "forbidden" in (condition.get("message") or "")
        )

    def forget(self, uid: str) -> None:
        """Drop what is remembered of a service that is no more."""
        self._groups.pop(uid, None)
        self._applied.pop(uid, None)
        for key in [key for key in self._replaced if key[0] == uid]:
            del self._replaced[key]

    def deployed_task(self, service: JointInferenceService) -> Task | None:
        """Return the task that the cached Deployment carries."""
        present = self._deployments.get(service.metadata.namespace, deployment_name(service))
        return None if present is None else task_in(present)

    async def _group(self, service: JointInferenceService) -> str:
        """Return the secret name of the share group, which only the Deployment keeps."""
        uid = service.metadata.uid
        if uid not in self._groups:
            ref = Ref(kind=DEPLOYMENT, name=deployment_name(service), namespace=service.metadata.namespace)
            try:
                former = task_in(await asyncio.to_thread(self._cluster.get, ref))
            except NotFound:
                former = None
            self._groups[uid] = former.group if former is not None and former.group else secrets.token_hex(16)
        return self._groups[uid]

    async def _delete_all(self, pods: Iterable[Object]) -> None:
        leaving = [pod["metadata"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]

        async def work() -> None:
            while leaving:
                metadata = leaving.pop()
                ref = Ref(kind=POD, name=metadata["name"], namespace=metadata["namespace"])
                await self._delete(ref, metadata["uid"])

        await _together(work, times=min(WRITES_AT_ONCE, len(leaving)))

    async def _delete(self, ref: Ref, uid: str) -> None:
        try:
            await asyncio.to_thread(self._cluster.delete, ref, uid=uid)
        except NotFound:
            logger.debug("gone already", extra={"object": ref.name})
        else:
            logger.info("deleted", extra={"kind": ref.kind.kind, "object": ref.name})


def _stands(name: str, present: list[Object]) -> bool:
    """Whether a node has the Pod that it should have, and no other."""
    return len(present) == 1 and present[0]["metadata"]["name"] == name and not has_ended(present[0])


async def _together(work: Callable[[], Awaitable[None]], *, times: int) -> None:
    """Run something several times at once; the first error is raised when all have ended."""
    results = await asyncio.gather(*(work() for _ in range(times)), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


def _forbidden(message: str) -> Problem:
    """Pod security, a quota or the GlobalManager's own rights."""
    return Problem(reason=POD_FORBIDDEN, message=message)


def _generation(obj: Object | None) -> object:
    if obj is None:
        return None
    return obj["metadata"].get("uid"), obj["metadata"].get("generation")
