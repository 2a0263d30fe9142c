# SPDX-License-Identifier: Apache-2.0
"""The GlobalManager's peers in its tests: a LocalController that speaks the protocol, and a kubelet, both scripted."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Self

from nereid_cloud.cluster.kinds import (
    DATASET,
    DEPLOYMENT,
    EVENT,
    INFERENCE_MODEL,
    JOINT_INFERENCE_SERVICE,
    LEASE,
    MODEL,
    NODE,
    POD,
    SERVICE,
)
from nereid_cloud.cluster.port import Cluster, Kind, Object, Ref
from nereid_cloud.gm.informer import Informer, Key
from nereid_cloud.gm.names import ROLE_LABEL, SERVICE_LABEL
from nereid_cloud.gm.pods import task_in, task_of
from nereid_shared import topics
from nereid_shared.digests import digest_of
from nereid_shared.errors import AlreadyExists, Conflict, LinkDown, NotFound
from nereid_shared.kinds import KINDS as RESOURCES
from nereid_shared.link import Link, LinkSettings, Message, Will
from nereid_shared.messages import (
    DatasetStatistics,
    Desired,
    GmAlive,
    Ledger,
    ModelOutput,
    NodeAlive,
    NodeState,
    Output,
    TaskRow,
    TaskState,
    TaskStatus,
    WorkerInfo,
)
from nereid_shared.serving import target_of

TIMEOUT_S = 20.0
KINDS = (
    NODE, MODEL, DATASET, JOINT_INFERENCE_SERVICE, INFERENCE_MODEL, POD, DEPLOYMENT, SERVICE, EVENT, LEASE,
)  # fmt: skip
SHOWN = (DATASET, JOINT_INFERENCE_SERVICE, INFERENCE_MODEL)
PHASES = {"Dataset": "dataset", "InferenceModel": "serving"}


class Eyes:
    """What is in the cluster, and a way to wait for it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._informers = {kind.kind: Informer(cluster, kind, self._changed) for kind in KINDS}
        self._stack = contextlib.AsyncExitStack()
        self._looked = asyncio.Event()
        self.seen_counts: list[int] = []
        self.readiness: list[tuple[str, str]] = []
        self.writes = 0

    async def __aenter__(self) -> Self:
        for informer in self._informers.values():
            await self._stack.enter_async_context(informer)
            await informer.wait_synced()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def stir(self) -> None:
        """Let those that wait look again."""
        self._looked.set()

    async def until(self, holds: Callable[[], Any], *, timeout_s: float = TIMEOUT_S) -> Any:
        """Wait until `holds` returns something true, and return it."""
        try:
            async with asyncio.timeout(timeout_s):
                while not (found := holds()):
                    self._looked.clear()
                    await self._looked.wait()
                return found
        except TimeoutError:
            seen = {obj["metadata"]["name"]: obj.get("status") for k in SHOWN for obj in self.all(k)}
            raise AssertionError(f"not within {timeout_s} s: {seen}") from None

    def get(self, kind: Kind, name: str, namespace: str = "default") -> Object | None:
        return self._informers[kind.kind].get(namespace if kind.namespaced else "", name)

    def all(self, kind: Kind) -> list[Object]:
        return self._informers[kind.kind].items()

    def condition(self, kind: Kind, name: str, type_: str) -> tuple[str, str]:
        """Return (status, reason) of a condition, empty where it is not there."""
        obj = self.get(kind, name) or {}
        for condition in (obj.get("status") or {}).get("conditions") or ():
            if condition["type"] == type_:
                return condition["status"], condition["reason"]
        return "", ""

    def phase(self, name: str = "digits") -> str:
        """Return the seeds' status column."""
        conditions = ((self.get(JOINT_INFERENCE_SERVICE, name) or {}).get("status") or {}).get("conditions") or [{}]
        return str(conditions[-1].get("type", ""))

    def metrics(self, name: str = "digits") -> dict[str, str]:
        status = (self.get(JOINT_INFERENCE_SERVICE, name) or {}).get("status") or {}
        return {metric["key"]: metric["value"] for metric in status.get("metrics") or ()}

    def reasons(self) -> set[str]:
        """Return the reasons of all Events."""
        return {event["reason"] for event in self.all(EVENT)}

    def _changed(self, _key: Key, _former: Object | None, present: Object | None) -> None:
        if present is not None and present["kind"] == JOINT_INFERENCE_SERVICE.kind:
            self.writes += 1
            metrics = (present.get("status") or {}).get("metrics") or ()
            self.seen_counts += [int(metric["value"]) for metric in metrics if metric["key"] == "seen"]
        if present is not None and present["kind"] == MODEL.kind and present["metadata"]["name"] == "little":
            self.readiness.append(self.condition(MODEL, "little", "Ready"))
        self.stir()


class Lc:
    """A LocalController without workers: it applies what it is told and reports its tasks as running."""

    def __init__(self, broker: str, node: str, eyes: Eyes, *, applied: Desired | None = None) -> None:
        self.node, self.eyes, self.applied = node, eyes, applied
        self.documents: list[Desired] = []
        self.events: list[str] = []
        self.ledger = Ledger()
        self.obeys = True
        self.dataset_fault = ""
        self.models: list[ModelOutput] = []
        self.boot = secrets.token_hex(4)
        self._number = 0
        self._statuses = 0
        self._epoch = 0
        self.link = Link(
            LinkSettings.from_url(broker, client_id=f"lc-{node}-{self.boot}"),
            subscriptions={
                topics.DESIRED.of(node=node): self._on_desired,
                topics.INSERT.filter(node=node): self._on_event,
                topics.DELETE.filter(node=node): self._on_event,
                topics.GM_ALIVE.of(): self._on_gm,
            },
            will=lambda number: Will(topic=topics.NODE_ALIVE.of(node=node), payload=self._alive("offline", number)),
            on_connect=self._birth,
        )

    async def __aenter__(self) -> Self:
        await self.link.__aenter__()
        await self.link.wait_connected()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.link.__aexit__(kind, error, trace)

    @property
    def tasks(self) -> dict[str, TaskRow]:
        return dict(self.applied.tasks) if self.applied is not None else {}

    @property
    def names(self) -> set[str]:
        return {row.name for row in self.tasks.values()}

    async def say_status(
        self, status: str = "running", *, reason: str = "", samples: int = 0,
        statistics: DatasetStatistics | None = None,
    ) -> None:  # fmt: skip
        """Report every task."""
        for uid, row in self.tasks.items():
            self._statuses += 1
            is_dataset, is_service = row.kind == "Dataset", row.kind == "JointInferenceService"
            why = (self.dataset_fault if is_dataset else "") or reason
            body = TaskStatus(
                phase=PHASES.get(row.kind, "inference"),
                status="failed" if is_dataset and self.dataset_fault else status,
                boot=self.boot,
                number=self._statuses,
                uid=uid,
                generation=row.generation,
                worker=str(row.refs.get("worker", "")),
                ledger=self.ledger if is_service else None,
                output=Output(models=list(self.models)) if is_service else None,
                serving_version=target_of(row.spec or {}) if row.kind == "InferenceModel" else "",
                number_of_samples=samples if is_dataset and not why else None,
                statistics=statistics if is_dataset else None,
                reason=why,
            )
            plural = RESOURCES[row.kind].plural
            where = topics.STATUS.of(node=self.node, namespace=row.namespace, plural=plural, name=row.name)
            await self.link.publish(where, body.encode())

    async def say_state(self, *, full: bool = True) -> None:
        self._number += 1
        applied = self.applied
        tasks = {uid: TaskState(generation=row.generation, condition="Running") for uid, row in self.tasks.items()}
        body = NodeState(
            boot=self.boot,
            number=self._number,
            cluster=applied.cluster if applied else None,
            epoch=applied.epoch if applied else 0,
            rev=applied.rev if applied else 0,
            digest=digest_of(self.tasks) if applied else "",
            tasks=tasks if full else None,
        )
        await self.link.publish(topics.STATE.of(node=self.node), body.encode(), retain=True)

    async def _birth(self, link: Link) -> None:
        await link.publish(topics.NODE_ALIVE.of(node=self.node), self._alive("online", link.connections), retain=True)
        await self.say_state()

    def _alive(self, status: Any, connection: int) -> bytes:
        return NodeAlive(status=status, install="i", boot=self.boot, connection=connection).encode()

    async def _on_desired(self, message: Message) -> None:
        if not message.payload:
            return
        document = Desired.decode(message.payload, max_bytes=topics.DESIRED.max_bytes)
        self.documents.append(document)
        place = (document.epoch, document.rev)
        if self.obeys and (self.applied is None or place > (self.applied.epoch, self.applied.rev)):
            self.applied = document
            with contextlib.suppress(LinkDown):
                await self.say_state()
                await self.say_status(samples=7)
        self.eyes.stir()

    async def _on_event(self, message: Message) -> None:
        self.events.append(message.topic.removeprefix(f"neptune/nodes/{self.node}/downstream/"))
        self.eyes.stir()

    async def _on_gm(self, message: Message) -> None:
        epoch = GmAlive.decode(message.payload, max_bytes=4096).epoch if message.payload else 0
        if epoch != self._epoch:
            self._epoch = epoch
            with contextlib.suppress(LinkDown):
                await self.say_status(samples=7)


class Kubelet:
    """Makes every Pod Running and Ready, and speaks for cloud workers.

    Args:
        deploys: also make one Pod per replica of every Deployment, where no controller does.
    """

    def __init__(self, broker: str, cluster: Cluster, *, deploys: bool = True) -> None:
        self._cluster, self._deploys = cluster, deploys
        self.models: list[ModelOutput] = []
        self._pods = Informer(cluster, POD, self._on_pod, labels=SERVICE_LABEL)
        self._deployments = Informer(cluster, DEPLOYMENT, self._on_deployment, labels=SERVICE_LABEL)
        self._work: asyncio.Queue[tuple[str, Object]] = asyncio.Queue()
        self._link = Link(LinkSettings.from_url(broker, client_id="kubelet"))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        async with self._link, self._pods, self._deployments:
            task = asyncio.create_task(self._run())
            try:
                yield self
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def _on_pod(self, _key: Key, _former: Object | None, present: Object | None) -> None:
        if present is not None:
            self._work.put_nowait(("pod", present))

    def _on_deployment(self, _key: Key, _former: Object | None, present: Object | None) -> None:
        if present is not None and self._deploys:
            self._work.put_nowait(("deployment", present))

    async def _run(self) -> None:
        while True:
            what, obj = await self._work.get()
            with contextlib.suppress(NotFound, LinkDown, AlreadyExists, Conflict):
                await (self._start(obj) if what == "pod" else self._deploy(obj))

    async def _start(self, pod: Object) -> None:
        metadata = pod["metadata"]
        ref = Ref(kind=POD, name=metadata["name"], namespace=metadata["namespace"])
        status = pod.get("status") or {}
        if "deletionTimestamp" in metadata:
            await asyncio.to_thread(self._cluster.delete, ref, uid=metadata["uid"], grace_s=0)
        elif pod["spec"].get("nodeName") and status.get("phase", "Pending") == "Pending":
            ready = {"type": "Ready", "status": "True"}
            running = {"status": {"phase": "Running", "conditions": [ready]}}
            await asyncio.to_thread(self._cluster.patch, ref, running, subresource="status")
            await self._speak(pod)

    async def _speak(self, pod: Object) -> None:
        """Say what a cloud worker says once it has its model."""
        is_cloud_worker = (pod["metadata"].get("labels") or {}).get(ROLE_LABEL) == "cloud"
        task = task_of(pod["spec"]) if is_cloud_worker else None
        if task is None:
            return
        name = pod["metadata"]["name"]
        info = WorkerInfo(
            name=name,
            namespace=pod["metadata"]["namespace"],
            owner_name=task.name,
            owner_kind="jointinferenceservice",
            status="running",
            service=task.service,
            boot="b",
            number=1,
            task_hash=task.hash,
            models=list(self.models),
        )
        await self._link.wait_connected()
        await self._link.publish(topics.CLOUD_INFO.of(service=task.service, pod=name), info.encode(), retain=True)

    async def _deploy(self, deployment: Object) -> None:
        task, metadata = task_in(deployment), deployment["metadata"]
        assert task is not None
        owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": metadata["name"], "uid": metadata["uid"]}
        for number in range(deployment["spec"]["replicas"]):
            pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": f"{metadata['name']}-{task.hash[:6]}-{number}",
                    "namespace": metadata["namespace"],
                    "labels": deployment["spec"]["template"]["metadata"]["labels"],
                    "ownerReferences": [owner],
                },
                "spec": {**deployment["spec"]["template"]["spec"], "nodeName": "cloud"},
            }
            with contextlib.suppress(AlreadyExists):
                await asyncio.to_thread(self._cluster.create, pod)


def node(name: str, *, ready: bool = True, **labels: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **labels}},
        "status": {"conditions": [{"type": "Ready", "status": str(ready)}]},
    }


def add_node(cluster: Cluster, name: str, *, ready: bool = True, **labels: str) -> None:
    obj = node(name, ready=ready, **labels)
    cluster.create({key: value for key, value in obj.items() if key != "status"})
    set_ready(cluster, name, ready=ready)


def set_ready(cluster: Cluster, name: str, *, ready: bool) -> None:
    room = {"cpu": "4", "memory": "8Gi", "pods": "110"}
    status = {"conditions": [{"type": "Ready", "status": str(ready)}], "capacity": room, "allocatable": room}
    cluster.patch(Ref(kind=NODE, name=name), {"status": status}, subresource="status")


def model(name: str) -> Object:
    return {
        "apiVersion": "edgeai.io/v1alpha1",
        "kind": "Model",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"modelUrl": f"/models/{name}/{name}.tflite", "format": "tflite"},
    }


def dataset(name: str, on: str, **labels: str) -> Object:
    return {
        "apiVersion": "edgeai.io/v1alpha1",
        "kind": "Dataset",
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "spec": {"dataUrl": f"/data/{name}/index.csv", "format": "csv", "nodeName": on},
    }


def service(name: str = "digits", **edge: Any) -> Object:
    script = {
        "scriptDir": "",
        "scriptBootFile": "builtin:classify",
        "frameworkType": "tflite",
        "frameworkVersion": "2.x",
        "parameters": [],
    }
    if "nodeSelector" not in edge:
        edge.setdefault("nodeName", "edge-0")
    return {
        "apiVersion": "neptune.io/v1alpha1",
        "kind": "JointInferenceService",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "edgeWorker": {
                "name": "edge",
                "model": {"name": "little"},
                "hardExampleAlgorithm": {"name": "Margin"},
                "workerSpec": script,
                **edge,
            },
            "cloudWorker": {
                "name": "cloud",
                "model": {"name": "big"},
                "nodeName": "cloud",
                "workerSpec": script,
            },
        },
    }


def service_ref(name: str = "digits") -> Ref:
    return Ref(kind=JOINT_INFERENCE_SERVICE, name=name, namespace="default")
