# SPDX-License-Identifier: Apache-2.0
"""The LocalController: the only component with a foot on both brokers. Wiring and publishing; the rules are elsewhere.

It starts from its disk: with no cloud and no network the tasks of the last document are published to the edge broker
at once, and samples are taken in.
"""

import asyncio
import contextlib
import logging
import random
import secrets
import time
from collections.abc import Iterator
from importlib.metadata import version

from msgspec.structs import replace

from nereid_edge.desired import DesiredState, Due, Judgement, Verdict
from nereid_edge.desired_store import DesiredStore
from nereid_edge.folder import StateFolder
from nereid_edge.relay import Relay
from nereid_edge.reports import Reports
from nereid_edge.served import ServedBook
from nereid_edge.settings import Settings
from nereid_edge.store import OutboxStore
from nereid_edge.tasks import Tasks
from nereid_edge.worker_folders import WorkerFolders
from nereid_shared import topics
from nereid_shared.errors import MessageInvalid, MessageTooLarge, NereidError, TemporaryError, UserError
from nereid_shared.link import Link, Message
from nereid_shared.link_settings import Will
from nereid_shared.messages import Desired, GmAlive, NodeAlive, NodeState, Revision, Sync
from nereid_shared.times import rfc3339_millis

logger = logging.getLogger(__name__)

VERSION = version("nereid-ai")
COALESCE_S = 0.2
ACCEPTANCE_LOOK_S = 2.0
# A broker that only restarts is back within this time: no service is called offline for it.
EDGE_GRACE_S = 1.0
GOODBYE_TIMEOUT_S = 2.0
EDGE_BROKER_UNPROTECTED = "EdgeBrokerUnprotected"
_MESSAGES = {
    "": "",
    EDGE_BROKER_UNPROTECTED: "the edge broker is reached over a network without TLS: use its loopback address or mqtts://",
}
_INTERVAL_JITTER = 0.1


class LocalController:
    """One node's controller; `run` until `stop`.

    Args:
        settings: see there.
        folder: the state folder, entered.

    Raises:
        UserError: a file in the state folder is damaged.
        TemporaryError: a file in the state folder cannot be read now.
    """

    def __init__(self, settings: Settings, folder: StateFolder) -> None:
        self._settings, self._folder = settings, folder
        self._node = settings.node
        self._rng = random.Random(secrets.randbits(64))  # noqa: S311 - jitter
        self._boot = secrets.token_hex(8)
        self._numbers: Iterator[int] = iter(range(1, 2**62))
        self._disk = DesiredStore(folder.desired_db)
        self._store = OutboxStore(folder.outbox_db)
        self._machine = DesiredState(
            self._disk.load(),
            rng=self._rng,
            heartbeat_s=settings.heartbeat_s,
            accepted_clusters=settings.accepted_clusters,
        )
        self._reports = Reports(heartbeat_s=settings.heartbeat_s)
        self._warning = EDGE_BROKER_UNPROTECTED if settings.edge_is_unprotected else ""
        self._stop = asyncio.Event()
        self._poked = asyncio.Event()
        self._report_now = asyncio.Event()
        self._applying = asyncio.Lock()
        self._folders = WorkerFolders(settings.state.parent / "workers")
        self._relay = Relay(node=self._node, store=self._store, folders=self._folders)
        self._tasks = Tasks(
            relay=self._relay,
            folders=self._folders,
            cache=(settings.cache_folder, settings.cache_max_bytes),
            served=ServedBook(folder.served),
            datasets=folder.datasets_db,
            on_change=self._changed,
        )
        self._cloud = self._cloud_link()
        self._edge = self._edge_link()
        self._relay.attach(edge=self._edge, cloud=self._cloud)
        self._tasks.attach(self._edge)

    def stop(self) -> None:
        """End `run` in order: the node says that it is offline, what is queued is committed."""
        self._stop.set()

    @property
    def problem(self) -> str:
        """Why the node's workers cannot be served, "" where they can; the cloud's absence is no reason."""
        return "" if self._edge.connected else "no connection to the edge broker"

    async def run(self) -> None:
        """Work until `stop`."""
        applied = self._machine.applied
        logger.info("started", extra={"node": self._node, "epoch": applied.epoch, "rev": applied.rev})
        async with self._store:
            self._tasks.apply(applied.tasks, known=applied.cluster is not None)
            try:
                async with self._edge, self._cloud, asyncio.TaskGroup() as group:
                    work = [
                        group.create_task(self._speak(), name="state"),
                        group.create_task(self._report(), name="status"),
                        group.create_task(self._follow_cloud(), name="cloud connection"),
                        group.create_task(self._follow_edge(), name="edge connection"),
                        group.create_task(self._look_for_acceptance(), name="acceptance"),
                        group.create_task(self._tasks.run(), name="tasks"),
                        group.create_task(self._relay.run(), name="outbox"),
                        group.create_task(self._store.watch(), name="store"),
                        group.create_task(self._folders.run(), name="folders"),
                    ]
                    await self._stop.wait()
                    # A word after the goodbye would take it back.
                    for task in work[:2]:
                        task.cancel()
                    await self._say_goodbye()
                    for task in work:
                        task.cancel()
            finally:
                self._tasks.close()
        logger.info("stopped", extra={"node": self._node})

    # Links.

    def _cloud_link(self) -> Link:
        node = self._node
        return Link(
            self._settings.cloud,
            subscriptions={
                topics.RESULTS.filter(node=node): self._relay.on_result,
                topics.DESIRED.of(node=node): self._on_desired,
                topics.INSERT.filter(node=node): self._on_event,
                topics.DELETE.filter(node=node): self._on_event,
                topics.GM_ALIVE.of(): self._on_gm_alive,
            },
            will=lambda number: Will(topic=topics.NODE_ALIVE.of(node=node), payload=self._alive("offline", number)),
            on_connect=self._cloud_connected,
        )

    def _edge_link(self) -> Link:
        return Link(
            self._settings.edge,
            subscriptions={
                topics.SAMPLES.filter(node=self._node): self._relay.on_sample,
                topics.WORKER_INFO.filter(): self._tasks.on_info,
                topics.TASK.filter(): self._tasks.on_task_topic,
            },
            on_connect=self._edge_connected,
        )

    def _alive(self, status: str, connection: int) -> bytes:
        return NodeAlive(
            status="online" if status == "online" else "offline",
            install=self._folder.install,
            boot=self._boot,
            connection=connection,
            version=VERSION,
        ).encode()

    async def _cloud_connected(self, link: Link) -> None:
        await self._say_online(link)
        self._machine.connected(time.monotonic())
        await self._publish(self._machine.due(time.monotonic()))
        self._repeat_statuses()
        self._relay.cloud_connected()
        self._poked.set()

    async def _say_online(self, link: Link) -> None:
        await link.publish(topics.NODE_ALIVE.of(node=self._node), self._alive("online", link.connections), retain=True)

    async def _edge_connected(self, _: Link) -> None:
        self._tasks.edge_connected()
        self._relay.edge_connected()

    async def _follow_cloud(self) -> None:
        seen = 0
        while True:
            seen = await self._cloud.wait_connected(after=seen)
            await self._cloud.wait_disconnected()
            self._machine.disconnected()
            self._relay.cloud_disconnected()

    async def _follow_edge(self) -> None:
        seen, broker = 0, self._settings.edge
        while True:
            try:
                async with asyncio.timeout(EDGE_GRACE_S):
                    seen = await self._edge.wait_connected(after=seen)
            except TimeoutError:
                self._tasks.edge_lost(f"the node's broker at {broker.host}:{broker.port} is not reachable")
                seen = await self._edge.wait_connected(after=seen)
            await self._edge.wait_disconnected()

    async def _say_goodbye(self) -> None:
        try:
            async with asyncio.timeout(GOODBYE_TIMEOUT_S):
                await self._cloud.publish(
                    topics.NODE_ALIVE.of(node=self._node), self._alive("offline", self._cloud.connections), retain=True
                )
        except (TimeoutError, NereidError):
            logger.info("left without a goodbye")

    # What the GlobalManager says.

    async def _on_desired(self, message: Message) -> None:
        if not message.payload:
            # Somebody cleared the topic: that is the broker's memory, never an order to delete.
            logger.warning("empty desired state ignored")
            return
        try:
            document = Desired.decode(message.payload, max_bytes=topics.DESIRED.max_bytes, topic=message.topic)
        except (MessageInvalid, MessageTooLarge) as error:
            self._machine.failed("DocumentInvalid", str(error), time.monotonic())
            self._poked.set()
            raise
        async with self._applying:
            await self._take(self._machine.document(document, time.monotonic()))

    async def _take(self, judged: Judgement) -> None:
        """Do what a judgement says."""
        document = judged.document
        extra = {"epoch": document.epoch, "rev": document.rev, "tasks": len(document.tasks)}
        if judged.verdict is Verdict.APPLY:
            try:
                await asyncio.to_thread(self._disk.apply, document)
            except (TemporaryError, UserError) as error:
                logger.error("desired state not stored", extra={**extra, "problem": str(error)})
                self._machine.failed("StoreFailed", str(error), time.monotonic())
            else:
                self._machine.stored(document, time.monotonic())
                self._tasks.apply(document.tasks, known=True)
                self._folder.consume_acceptance(document.cluster)
                logger.info("applied", extra=extra)
        elif judged.verdict is not Verdict.IGNORE:
            logger.warning("not applied", extra={**extra, "reason": judged.reason, "problem": judged.message})
        self._poked.set()

    def _on_event(self, message: Message) -> None:
        if message.payload and not message.retain:
            event = Revision.decode(message.payload, max_bytes=topics.INSERT.max_bytes, topic=message.topic)
            self._machine.event(event.cluster, event.epoch, event.rev, time.monotonic())
            self._poked.set()

    def _on_gm_alive(self, message: Message) -> None:
        if not message.payload:
            return
        alive = GmAlive.decode(message.payload, max_bytes=topics.GM_ALIVE.max_bytes, topic=message.topic)
        if alive.status == "online":
            self._machine.gm_alive(alive.cluster, alive.epoch, time.monotonic(), retained=message.retain)
            self._poked.set()

    async def _look_for_acceptance(self) -> None:
        while True:
            await asyncio.sleep(ACCEPTANCE_LOOK_S)
            cluster = self._folder.accepted_cluster() if self._machine.held is not None else None
            if cluster is not None:
                async with self._applying:
                    judged = self._machine.accept(cluster, time.monotonic())
                    if judged is not None:
                        await self._take(judged)

    # What the GlobalManager is told.

    def _changed(self) -> None:
        self._machine.changed(time.monotonic())
        self._poked.set()
        self._report_now.set()

    async def _speak(self) -> None:
        """Publish `state` and `sync` when they are due."""
        while True:
            due_at = self._machine.due_at()
            delay = None if due_at is None else max(0.0, due_at - time.monotonic())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._poked.wait()
            self._poked.clear()
            try:
                await self._publish(self._machine.due(time.monotonic()))
            except NereidError as error:
                # A new connection says it again; a broker that refuses is retried with the next heartbeat.
                logger.debug("not published", extra={"problem": str(error)})

    async def _publish(self, due: Due) -> None:
        if due.heartbeat:
            # The broker's memory of it can be lost, or be somebody else's.
            await self._say_online(self._cloud)
        if due.full or due.heartbeat:
            await self._cloud.publish(topics.STATE.of(node=self._node), self._state(full=due.full), retain=True)
        if due.sync:
            applied = self._machine.applied
            body = Sync(
                cluster=applied.cluster, epoch=applied.epoch, rev=applied.rev, digest=applied.digest,
                want_specs=list(due.want_specs),
            )  # fmt: skip
            await self._cloud.publish(topics.SYNC.of(node=self._node), body.encode())
        if due.statuses:
            self._repeat_statuses()

    def _state(self, *, full: bool) -> bytes:
        machine, applied = self._machine, self._machine.applied
        return NodeState(
            boot=self._boot, number=next(self._numbers), cluster=applied.cluster, epoch=applied.epoch, rev=applied.rev,
            digest=applied.digest, tasks=self._tasks.states(machine.pruned_if_accepted) if full else None,
            reason=machine.reason or self._warning, message=machine.message or _MESSAGES[self._warning],
        ).encode()  # fmt: skip

    async def _report(self) -> None:
        """Publish the statuses that changed: what a user waits for at once, counts in their rhythm."""
        while True:
            spread = self._settings.status_interval_s * _INTERVAL_JITTER
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.status_interval_s + self._rng.uniform(-spread, 0)):
                    await self._report_now.wait()
                    await asyncio.sleep(COALESCE_S)
            self._report_now.clear()
            if self._cloud.connected:
                self._publish_statuses()

    def _repeat_statuses(self) -> None:
        self._reports.repeat()
        self._publish_statuses()

    def _publish_statuses(self) -> None:
        now, at = time.monotonic(), time.time()
        statuses = self._tasks.statuses()
        self._reports.keep(statuses)
        for uid, status in statuses.items():
            if not self._reports.is_due(status, now=now, at=at):
                continue
            body = replace(
                status, boot=self._boot, number=next(self._numbers),
                update_time=status.update_time or rfc3339_millis(self._reports.changed_at(uid)),
            ).encode()  # fmt: skip
            try:
                self._cloud.publish_nowait(self._tasks.status_topic(uid, node=self._node), body)
            except NereidError as error:
                logger.debug("status not published", extra={"problem": str(error)})
                return
            self._reports.sent(uid, now=now)
