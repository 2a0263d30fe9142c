# SPDX-License-Identifier: Apache-2.0
"""The GlobalManager put together: it waits for the Lease, leads until the Lease is lost, and waits again.

While it leads: informers fill caches, events in them and from the nodes put keys into queues, controllers reconcile
the keys. Nodes are told nothing before the caches are complete and every task that they hold is known.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Final

from nereid_cloud.cluster.kinds import (
    DATASET,
    DEPLOYMENT,
    INFERENCE_MODEL,
    JOINT_INFERENCE_SERVICE,
    MODEL,
    NODE,
    POD,
    SERVICE,
)
from nereid_cloud.cluster.port import Cluster, Object
from nereid_cloud.gm import fence
from nereid_cloud.gm.concerns import Concerns
from nereid_cloud.gm.datasets import DatasetController
from nereid_cloud.gm.desired import NodeReport
from nereid_cloud.gm.downstream import Callbacks, Downstream
from nereid_cloud.gm.events import Recorder
from nereid_cloud.gm.facts import content, node_facts, wish
from nereid_cloud.gm.holding import Holding
from nereid_cloud.gm.inferencemodel import InferenceModelController
from nereid_cloud.gm.inferencemodel_report import ModelReporter
from nereid_cloud.gm.inferencemodel_witness import ModelCaches
from nereid_cloud.gm.informer import Informer, Key, pod_trimmed
from nereid_cloud.gm.jointinference import Caches, ServiceController
from nereid_cloud.gm.leader import Leader
from nereid_cloud.gm.models import ModelController, named_by
from nereid_cloud.gm.names import SERVICE_LABEL
from nereid_cloud.gm.notices import Notices
from nereid_cloud.gm.observed import Observed
from nereid_cloud.gm.orphans import Orphans
from nereid_cloud.gm.placement import Placement
from nereid_cloud.gm.reconciling import serve
from nereid_cloud.gm.reporting import ServiceReporter
from nereid_cloud.gm.resync import resync
from nereid_cloud.gm.settings import Settings
from nereid_cloud.gm.upstream import Listeners, Upstream
from nereid_cloud.gm.workqueue import WorkQueue
from nereid_shared.errors import NereidError
from nereid_shared.health import Health
from nereid_shared.link import Link
from nereid_shared.topics import service_id

logger = logging.getLogger(__name__)

WORKERS_PER_QUEUE: Final = 4
# At most; a quarter of a node's time-out where that is less.
SILENCE_CHECK_S: Final = 5.0
# Each word of a node asks for a look at all nodes of its services, at some 50 µs a node: words are gathered for longer
# than that takes, and a fleet's convergence is told of in steps.
GATHER_S_PER_NODE: Final = 1e-3
MAX_GATHER_S: Final = 2.0
# A fleet's Nodes come one by one, and many of them concern one service.
RESCAN_S: Final = 0.05


async def run(settings: Settings, cluster: Cluster, *, stop: asyncio.Event, health: Health | None = None) -> None:
    """Lead whenever the Lease allows it, until `stop` is set; then release the Lease.

    `health` is kept: ready is who leads with complete caches, or stands by and sees the Lease.
    """
    seen_epoch = 0
    health = health or Health()
    while not stop.is_set():
        leader = Leader(cluster, settings.lease, seen_epoch=seen_epoch, health=health)
        if not await _unless(stop, leader.acquire()):
            return
        try:
            identity = await asyncio.to_thread(cluster.identity)
            async with Leadership(settings, cluster, leader, identity=identity, health=health) as leading:
                await _unless(stop, leader.hold(leading.downstream.new_epoch))
                seen_epoch = leading.upstream.seen_epoch
                if stop.is_set():
                    await leading.downstream.say_goodbye()
        finally:
            await leader.release()


async def _unless(stop: asyncio.Event, work: Awaitable[object]) -> bool:
    """Await `work` unless `stop` is set first; returns whether it was finished."""
    task, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
            return True
        return False
    finally:
        for one in (task, stopping):
            one.cancel()
        await asyncio.gather(task, stopping, return_exceptions=True)


class Leadership:
    """All that runs while this process leads; ``async with`` bounds it."""

    def __init__(self, settings: Settings, cluster: Cluster, leader: Leader, *, identity: str, health: Health) -> None:
        self._settings, self._cluster, self._leader = settings, cluster, leader
        self._services_queue: WorkQueue[Key] = WorkQueue()
        self._datasets_queue: WorkQueue[Key] = WorkQueue()
        self._models_queue: WorkQueue[Key] = WorkQueue()
        self._served_queue: WorkQueue[Key] = WorkQueue()
        self._silent: set[str] = set()
        self._health = health
        self.observed = Observed(
            timeout_s=settings.node_timeout_s, clock=time.monotonic, linked=lambda: self.downstream.linked
        )
        served = settings.policy.namespaces
        # Wherever a service is, its user is told that it is not served there: unless that is not to be seen.
        seen: Mapping[str, Any] = {"namespaces": served if settings.confined else ()}
        workers: Mapping[str, Any] = {"namespaces": served, "labels": SERVICE_LABEL, "index": SERVICE_LABEL}
        self._nodes = Informer(cluster, NODE, self._node_changed)
        self._services = Informer(cluster, JOINT_INFERENCE_SERVICE, self._service_changed, **seen)
        self._datasets = Informer(cluster, DATASET, self._dataset_changed, **seen)
        self._models = Informer(cluster, MODEL, self._model_changed, **seen)
        self._served = Informer(cluster, INFERENCE_MODEL, self._served_changed, **seen)
        self._pods = Informer(cluster, POD, self._worker_changed, trim=pod_trimmed, **workers)
        self._deployments = Informer(cluster, DEPLOYMENT, self._worker_changed, **workers)
        self._exposed = Informer(cluster, SERVICE, self._worker_changed, **workers)
        self._recorder = Recorder(cluster, serves=settings.policy.serves)
        self._notices = Notices(self._services, self._warn)
        self.downstream = Downstream(
            cluster=identity,
            identity=settings.lease.identity,
            epoch=leader.epoch,
            callbacks=Callbacks(
                node_exists=lambda name: self._nodes.get("", name) is not None,
                raise_epoch=lambda above: leader.raise_epoch(above=above),
                on_report=self._node_reported,
            ),
        )
        self.upstream = Upstream(
            cluster=identity,
            observed=self.observed,
            downstream=self.downstream,
            listeners=Listeners(
                on_node=self._tasks_of_node_changed,
                on_status=self._status_came,
                on_word=self._notices.on_status,
                on_cloud=self._cloud_worker_spoke,
                on_duplicate=self._node_is_double,
            ),
        )
        self._orphans = Orphans(self.observed, self.downstream, known=self._identities)
        self._fence = fence.Fence()
        self._background: set[asyncio.Task[None]] = set()
        self._concerns, self._concerned = Concerns(), set[str]()
        self._rescan: asyncio.TimerHandle | None = None
        self._stack = contextlib.AsyncExitStack()
        self._make_controllers()

    def _make_controllers(self) -> None:
        settings, cluster = self._settings, self._cluster
        placement = Placement(
            cluster,
            pods=self._pods,
            deployments=self._deployments,
            services=self._exposed,
            recorder=self._recorder,
            broker=settings.workers_broker,
            policy=settings.policy,
        )
        self._service_controller = ServiceController(
            caches=Caches(services=self._services, models=self._models, datasets=self._datasets, nodes=self._nodes),
            holding=self._holding(self._services),
            placement=placement,
            reporter=ServiceReporter(
                cluster,
                services=self._services,
                observed=self.observed,
                recorder=self._recorder,
                interval_s=settings.metrics_interval_s,
                settle_s=settings.settle_s,
            ),
            downstream=self.downstream,
            observed=self.observed,
            policy=settings.policy,
        )
        self._dataset_controller = DatasetController(
            cluster,
            datasets=self._datasets,
            nodes=self._nodes,
            holding=self._holding(self._datasets),
            downstream=self.downstream,
            observed=self.observed,
            recorder=self._recorder,
            settle_s=settings.settle_s,
            interval_s=settings.metrics_interval_s,
            policy=settings.policy,
        )

        self._model_controller = ModelController(
            cluster,
            models=self._models,
            services=self._services,
            nodes=self._nodes,
            downstream=self.downstream,
            observed=self.observed,
            recorder=self._recorder,
            settle_s=settings.settle_s,
            interval_s=settings.metrics_interval_s,
        )

        self._served_controller = InferenceModelController(
            caches=ModelCaches(models=self._served, nodes=self._nodes, deployments=self._deployments),
            holding=self._holding(self._served),
            placement=placement,
            reporter=ModelReporter(cluster, models=self._served, recorder=self._recorder, settle_s=settings.settle_s),
            downstream=self.downstream,
            observed=self.observed,
            broker=settings.workers_broker,
            policy=settings.policy,
        )

    def _holding(self, objects: Informer) -> Holding:
        return Holding(
            self._cluster,
            objects=objects,
            nodes=self._nodes,
            observed=self.observed,
            downstream=self.downstream,
            recorder=self._recorder,
            timeout_s=self._settings.delete_timeout_s,
        )

    async def __aenter__(self) -> "Leadership":
        await self._stack.enter_async_context(self._running())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._stack.__aexit__(kind, error, trace)

    @contextlib.asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        informers = (
            self._nodes, self._models, self._datasets, self._services, self._served, self._pods, self._deployments,
            self._exposed,
        )  # fmt: skip
        link = Link(
            self._settings.link,
            subscriptions={**self.upstream.subscriptions(), fence.TOPIC: self._fence.on_message},
            will=self.downstream.will,
            on_connect=self.downstream.connected,
        )
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._services_queue.close)
            stack.callback(self._datasets_queue.close)
            stack.callback(self._models_queue.close)
            stack.callback(self._served_queue.close)
            stack.callback(self._orphans.close)
            for informer in informers:
                await stack.enter_async_context(informer)
            await stack.enter_async_context(link)
            await stack.enter_async_context(self.downstream)
            # A part that fails takes the others with it, and the process: its supervisor starts it anew.
            group = await stack.enter_async_context(asyncio.TaskGroup())
            tasks = [
                group.create_task(self._work(informers), name="gm controllers"),
                group.create_task(self._release(informers, link), name="gm release"),
                group.create_task(self._watch_silence(), name="gm silence"),
                *(group.create_task(one.failed(), name=f"gm cache {one.kind.plural}") for one in informers),
            ]
            try:
                yield
            finally:
                if self._rescan is not None:
                    self._rescan.cancel()
                for task in (*tasks, *self._background):
                    task.cancel()

    async def _work(self, informers: tuple[Informer, ...]) -> None:
        self._health.not_ready("leads, and fills its caches")
        for informer in informers:
            await informer.wait_synced()
        self._health.ready()
        logger.info("caches complete", extra={"services": len(self._services.items())})
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS_PER_QUEUE):
                group.create_task(serve(self._services_queue, self._service_controller.reconcile))
                group.create_task(serve(self._datasets_queue, self._dataset_controller.reconcile))
                group.create_task(serve(self._models_queue, self._model_controller.reconcile))
                group.create_task(serve(self._served_queue, self._served_controller.reconcile))
            group.create_task(resync((*self._tasks, (self._models, self._models_queue))))

    async def _release(self, informers: tuple[Informer, ...], link: Link) -> None:
        for informer in informers:
            await informer.wait_synced()
        # What the broker remembers: tasks told by a former GlobalManager, and who is there.
        await self._fence.passed(link)
        if self.upstream.seen_epoch >= self._leader.epoch:
            await self._raise_above_seen()
        self._dataset_controller.prime()
        await self._service_controller.prime()
        await self._served_controller.prime()
        self.downstream.release()
        logger.info("speaking to the nodes", extra={"epoch": self.downstream.epoch})
        self._all_again()
        self._orphans.look_soon()

    async def _raise_above_seen(self) -> None:
        try:
            self.downstream.new_epoch(await self._leader.raise_epoch(above=self.upstream.seen_epoch))
        except NereidError as error:
            # The first state that is ahead of us asks again.
            logger.warning("epoch not raised", extra={"problem": str(error)})

    async def _watch_silence(self) -> None:
        """Notice LocalControllers that fall silent: no message says so."""
        while True:
            await asyncio.sleep(min(SILENCE_CHECK_S, self._settings.node_timeout_s / 4))
            silent = {name for name in self.observed.nodes if not self.observed.is_observable(name)}
            for node in silent ^ self._silent:
                self._tasks_of_node_changed(node)
            self._silent = silent

    # What changed in the cluster.

    def _service_changed(self, key: Key, former: Object | None, present: Object | None) -> None:
        self._concerns.changed(former, present)
        for model in named_by(former, key.namespace) ^ named_by(present, key.namespace):
            self._models_queue.add(model)
        if present is None and former is not None:
            self._notices.forget(former["metadata"]["uid"])
        if present is not None and wish(former) == wish(present):
            # Most often our own words on it: with a fleet, each would bring a look that brings the next.
            self._look_at([present["metadata"]["uid"]])
        else:
            self._services_queue.add(key)

    def _served_changed(self, key: Key, former: Object | None, present: Object | None) -> None:
        self._concerns.changed(former, present)
        if present is not None and wish(former) == wish(present):
            self._look_at([present["metadata"]["uid"]])
            return
        self._served_queue.add(key)
        # A port may have become free, or another's.
        self._look_at(obj["metadata"]["uid"] for obj in self._served.items())

    def _dataset_changed(self, key: Key, former: Object | None, present: Object | None) -> None:
        self._concerns.changed(former, present)
        self._datasets_queue.add(key)
        if content(former) != content(present):
            self._services_of(key.namespace)

    def _model_changed(self, key: Key, former: Object | None, present: Object | None) -> None:
        if present is None and former is not None:
            self._model_controller.forget(former["metadata"]["uid"])
        if content(former) != content(present):
            self._models_queue.add(key)
            self._services_of(key.namespace)

    def _worker_changed(self, _key: Key, former: Object | None, present: Object | None) -> None:
        labels = ((present or former or {}).get("metadata") or {}).get("labels") or {}
        self._look_at([labels.get(SERVICE_LABEL, "")])

    def _node_changed(self, key: Key, former: Object | None, present: Object | None) -> None:
        if node_facts(former) == node_facts(present):
            return
        if present is None:
            self.downstream.node_gone(key.name)
            self.observed.nodes.pop(key.name, None)
        elif former is None and (view := self.observed.nodes.get(key.name)) is not None and view.online:
            self.downstream.node_appeared(key.name)
        self._concerned |= self._concerns.of(former) | self._concerns.of(present)
        self._concerned |= set(self._held_at(key.name))
        if self._rescan is None:
            self._rescan = asyncio.get_running_loop().call_later(RESCAN_S, self._concerned_again)

    def _concerned_again(self) -> None:
        self._rescan = None
        concerned, self._concerned = self._concerned, set()
        self._look_at(concerned)

    def _all_again(self) -> None:
        self._look_at(obj["metadata"]["uid"] for informer, _ in self._tasks for obj in informer.items())

    @property
    def _tasks(self) -> tuple[tuple[Informer, WorkQueue[Key]], ...]:
        """The kinds of which nodes hold tasks."""
        return (
            (self._services, self._services_queue),
            (self._datasets, self._datasets_queue),
            (self._served, self._served_queue),
        )

    def _services_of(self, namespace: str) -> None:
        services = self._services.items()
        self._look_at(obj["metadata"]["uid"] for obj in services if obj["metadata"]["namespace"] == namespace)

    def _look_at(self, uids: Iterable[str]) -> None:
        """Have tasks reconciled: soon, and once for all that is said until then."""
        for uid in uids:
            for informer, queue in self._tasks:
                if (key := informer.key_of_uid(uid)) is not None:
                    gather_s = min(GATHER_S_PER_NODE * len(self.downstream.nodes_of(uid)), MAX_GATHER_S)
                    queue.add_after(key, gather_s)
                    for model in named_by(informer.get(*key), key.namespace):
                        self._models_queue.add_after(model, gather_s)

    # What nodes and workers said.

    def _tasks_of_node_changed(self, node: str) -> None:
        self._look_at(self._held_at(node))

    def _held_at(self, node: str) -> Iterator[str]:
        """Yield the tasks that a node shall have, or may still hold."""
        yield from self.downstream.tasks_of(node)
        for controller in (self._service_controller, self._dataset_controller, self._served_controller):
            yield from controller.awaiting(node)

    def _status_came(self, uid: str, urgent: bool) -> None:
        dataset = self._datasets.key_of_uid(uid)
        if dataset is not None and urgent:
            self._services_of(dataset.namespace)  # what a node says of a dataset, its readers say too
        if urgent:
            self._look_at([uid])
            return
        for informer, queue in self._tasks:
            if (key := informer.key_of_uid(uid)) is not None:
                queue.add_after(key, self._settings.metrics_interval_s)

    def _cloud_worker_spoke(self, identity: str) -> None:
        for controller, informer in (
            (self._service_controller, self._services), (self._served_controller, self._served),
        ):  # fmt: skip
            key = controller.key_of(identity)
            owner = None if key is None else informer.get(*key)
            if owner is not None:
                self._look_at([owner["metadata"]["uid"]])
                return
        self._orphans.look_soon()

    def _identities(self) -> set[str]:
        owners = (*self._services.items(), *self._served.items())
        return {service_id(obj["metadata"]["name"], obj["metadata"]["uid"]) for obj in owners}

    def _node_reported(self, node: str, report: NodeReport) -> None:
        self._tasks_of_node_changed(node)
        if report.reason:
            self._record(node, report.reason, report.message)

    def _node_is_double(self, node: str) -> None:
        self._record(node, "DuplicateIdentity", f"two LocalControllers answer as node {node}: a cloned disk or name")

    def _record(self, node: str, reason: str, message: str) -> None:
        obj = self._nodes.get("", node)
        logger.warning("node condition", extra={"node": node, "reason": reason, "problem": message})
        if obj is not None:
            self._warn(obj, reason, message)

    def _warn(self, obj: Object, reason: str, message: str) -> None:
        task = asyncio.create_task(self._recorder.record(obj, "Warning", reason, message))
        self._background.add(task)
        task.add_done_callback(self._background.discard)
