# SPDX-License-Identifier: Apache-2.0
"""From the GlobalManager to the nodes: each node's desired state, and insert and delete events.

`nereid_cloud.gm.desired` decides what is published and when, `nereid_cloud.gm.voice` says who leads; here are the
sockets and timers. Nothing is published before `release`: an incomplete document would make nodes drop running tasks.
All of it belongs to one event loop.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from nereid_cloud.cluster.port import Object
from nereid_cloud.gm.assignments import Assignments
from nereid_cloud.gm.desired import NodeDesired, NodeReport, Output, Publish, RaiseEpoch, is_incredible
from nereid_cloud.gm.voice import Voice
from nereid_shared import topics
from nereid_shared.errors import LinkDown, NereidError
from nereid_shared.kinds import KINDS
from nereid_shared.link import Link, Message, Will
from nereid_shared.messages import NodeState, Sync, TaskEvent, TaskRow

logger = logging.getLogger(__name__)

# Documents on their way to the broker at once: what bounds a republication of the whole fleet.
MAX_PUBLISHING: Final = 20
KICKED_AT_ONCE: Final = 50
REPLACE_ALIVE_S: Final = 1.0
# A new epoch makes the whole fleet's documents go out again. Who forges a higher one may bring that about once a
# minute; a Lease that was really lost is taken at a higher one by its holder itself, at once.
RAISE_PAUSE_S: Final = 60.0
RAISE_RETRY_S: Final = 1.0
TASK_UNRESOLVED: Final = "TaskUnresolved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Callbacks:
    """What the rest of the GlobalManager is told and asked.

    Attributes:
        node_exists: whether there is a Node object of that name.
        raise_epoch: makes the epoch higher than the one given and returns it.
        on_report: a node's condition changed.
    """

    node_exists: Callable[[str], bool]
    raise_epoch: Callable[[int], Awaitable[int]]
    on_report: Callable[[str, NodeReport], None]


class Downstream:
    """The nodes' desired states on one link; ``async with`` bounds its tasks.

    Args:
        cluster: the cluster's own id.
        identity: the leader's name.
        epoch: the leader's epoch.
        callbacks: the rest of the GlobalManager.
        raise_pause_s: seconds between two epochs that were raised for others' claims.
    """

    def __init__(
        self, *, cluster: str, identity: str, epoch: int, callbacks: Callbacks, raise_pause_s: float = RAISE_PAUSE_S
    ) -> None:
        self.epoch = epoch
        self._claimed, self._raise_pause_s = 0, raise_pause_s
        self._cluster, self._callbacks = cluster, callbacks
        self._voice = Voice(cluster=cluster, identity=identity)
        self._link: Link | None = None
        self._released = asyncio.Event()
        self._nodes: dict[str, NodeDesired] = {}
        self._assignments = Assignments()
        self._objects: dict[str, Object] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(MAX_PUBLISHING)
        self._raising = False
        self._replacing = False
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # What the controllers want.

    def assign(
        self, uid: str, rows: Mapping[str, TaskRow], obj: Object | None = None, *, unresolved: Collection[str] = ()
    ) -> None:
        """Let exactly these nodes have the task, each with its row; no rows take it from all of them.

        Args:
            uid: the task.
            rows: its row by node.
            obj: the resource, which events show.
            unresolved: nodes that hold the task while nobody knows its row. A document without it would make them
                drop it with all its samples: they get none until the row is known or nobody wants the task there.
        """
        if obj is not None and rows:
            self._objects[uid] = obj
        touched = self._assignments.assign(uid, rows)
        freed = self._withhold(uid, frozenset(node for node in unresolved if not self._has_dropped(node, uid)))
        for node in touched:
            is_new = node not in self._nodes
            machine = self._machine(node) if node in rows else self._nodes.get(node)
            if machine is not None and (machine.set_tasks(self._assignments.rows_of(node)) or is_new):
                self._kick(node)
        for node in freed:
            self._kick(node)

    def _withhold(self, uid: str, nodes: frozenset[str]) -> frozenset[str]:
        """Note which nodes lack the task's row; returns those that nothing is withheld from any more."""
        lacking, freed = self._assignments.withhold(uid, nodes)
        for node in sorted(lacking):
            message = "a task that the node holds cannot be resolved: the node is told nothing until it can"
            self._callbacks.on_report(node, NodeReport(reason=TASK_UNRESOLVED, message=message))
        for node in sorted(freed):
            self._callbacks.on_report(node, NodeReport(reason=self.trouble(node)))
        return freed

    def _has_dropped(self, node: str, uid: str) -> bool:
        machine = self._nodes.get(node)
        return machine is not None and machine.has_dropped(uid)

    def release(self) -> None:
        """Publish from now on: every task is known."""
        self._released.set()
        self._spawn(self._speak(), "birth")
        for node in [node for node in self._nodes if not self._callbacks.node_exists(node)]:
            self.node_gone(node)
        self._kick_all()

    @property
    def released(self) -> bool:
        """Whether anything is published."""
        return self._released.is_set()

    @property
    def linked(self) -> bool:
        """Whether there is a connection to the broker."""
        return self._link is not None and self._link.connected

    def new_epoch(self, epoch: int) -> None:
        """Lead with another epoch: every document goes out again."""
        if epoch <= self.epoch:
            return
        self.epoch = epoch
        for machine in self._nodes.values():
            machine.new_epoch(epoch)
        self._kick_all()
        if self.released:
            self._spawn(self._speak(), "birth")

    def node_appeared(self, node: str) -> None:
        """Tell a node whose LocalController spoke before its Node was there."""
        self._machine(node).on_presence()
        self._kick(node)

    def node_gone(self, node: str) -> None:
        """Forget a deleted Node and clear its retained topics."""
        machine = self._nodes.pop(node, None)
        timer = self._timers.pop(node, None)
        if timer is not None:
            timer.cancel()
        if machine is not None and machine.worth_publishing:
            self._spawn(self._clear(node), f"clear {node}")

    def clear_cloud_info(self, service: str, pod: str) -> None:
        """Clear what a cloud worker that is no more left on its retained topic."""
        self._spawn(self._clear_topic(topics.CLOUD_INFO.of(service=service, pod=pod)), f"clear {pod}")

    # What the controllers ask.

    def is_applied(self, node: str, uid: str) -> bool:
        """Whether the node acknowledged the task as it is wanted now."""
        machine = self._nodes.get(node)
        return machine is not None and machine.is_applied(uid)

    def is_released(self, node: str, uid: str) -> bool:
        """Whether the node acknowledged that it no longer has the task."""
        machine = self._nodes.get(node)
        return machine is not None and machine.is_released(uid)

    def last_row(self, node: str, uid: str) -> TaskRow | None:
        """Return the task as the node was told it last, also by a former GlobalManager."""
        machine = self._nodes.get(node)
        return None if machine is None else machine.last_row(uid)

    def tasks_of(self, node: str) -> frozenset[str]:
        """Return the tasks that a node shall have, and those of which it holds one that nobody knows."""
        return self._assignments.tasks_of(node)

    def nodes_of(self, uid: str) -> frozenset[str]:
        """Return the nodes that shall have the task."""
        return self._assignments.nodes_of(uid)

    def unresolved(self, uid: str) -> frozenset[str]:
        """Return the nodes that hold the task while nobody knows its row."""
        return self._assignments.unresolved(uid)

    def trouble(self, node: str) -> str:
        """Return the reason of a node's condition, "" where all is well."""
        if self._assignments.lacks(node):
            return TASK_UNRESOLVED
        machine = self._nodes.get(node)
        return "" if machine is None else machine.trouble

    # What comes from the broker.

    def will(self, _connection: int) -> Will:
        """Return the leader's will, as of now."""
        return self._voice.will(self.epoch)

    async def connected(self, link: Link) -> None:
        """Take the link, at each of its connections."""
        self._link = link
        now = self._now()
        for machine in self._nodes.values():
            machine.on_connected(now)
        if self.released:
            await self._speak()
        self._spawn(self._resume(link), "resume")

    async def _resume(self, link: Link) -> None:
        """Go on with all nodes; the link counts as connected only after `connected` has returned."""
        with contextlib.suppress(LinkDown):
            await link.wait_connected(after=link.connections - 1)
            self._kick_all()

    async def say_goodbye(self) -> None:
        """Say that this leader is gone, where anybody was told that it leads."""
        if self._link is not None and self.released:
            await self._voice.say_goodbye(self._link, self.epoch)

    def on_state(self, node: str, state: NodeState) -> None:
        """Take a node's acknowledgement."""
        machine = self._known(node)
        if machine is not None:
            machine.on_state(state, self._now())
            self._kick(node)

    def on_sync(self, node: str, sync: Sync) -> None:
        """Take a node's request."""
        machine = self._known(node)
        if machine is not None:
            machine.on_sync(sync)
            self._kick(node)

    def on_document(self, node: str, message: Message) -> None:
        """Take what stands on a node's own topic."""
        if message.payload or node in self._nodes:
            machine = self._known(node)
            if machine is not None:
                machine.on_document(message.payload, retained=message.retain)
                self._kick(node)
            elif message.payload:
                self._spawn(self._clear(node), f"clear {node}")

    def on_gm_alive(self, message: Message) -> None:
        """Replace what somebody else wrote: an old leader that woke up, or its late will."""
        if not self.released or self._voice.is_own(message):
            return
        rival = self._voice.rival_epoch(message)
        if rival > self.epoch and not is_incredible(rival, own=self.epoch):
            self._raise_above(rival)
        elif not self._replacing:
            self._replacing = True
            self._spawn(self._replace_alive(), "replace alive")

    def on_sentinel(self, message: Message) -> None:
        """Publish everything again where the broker lost or restored its data."""
        if self._voice.shows_loss(message):
            logger.warning("broker lost or restored its data", extra={"epoch": self.epoch})
            for machine in self._nodes.values():
                machine.on_store_lost()
            self._kick_all()

    def _machine(self, node: str) -> NodeDesired:
        if node not in self._nodes:
            tasks = dict(self._assignments.rows_of(node))
            self._nodes[node] = NodeDesired(cluster=self._cluster, epoch=self.epoch, tasks=tasks)
        return self._nodes[node]

    def _known(self, node: str) -> NodeDesired | None:
        """Return the machine of a node that exists, or may: before `release` nobody knows all Nodes."""
        if self.released and not self._callbacks.node_exists(node):
            return None
        return self._machine(node)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _kick_all(self) -> None:
        self._spawn(self._kick_in_turns(), "all nodes")

    async def _kick_in_turns(self) -> None:
        """Kick all nodes a few at a time: the documents of 10,000 take longer than a Lease may wait."""
        for number, node in enumerate(list(self._nodes), 1):
            self._kick(node)
            if number % KICKED_AT_ONCE == 0:
                await asyncio.sleep(0)

    def _kick(self, node: str) -> None:
        """Do what a node's machine has due, and come back when it has more."""
        link, machine = self._link, self._nodes.get(node)
        if machine is None or link is None or not link.connected or not self.released or self._closed:
            return
        if self._assignments.lacks(node):
            return
        for output in machine.tick(self._now()):
            self._do(node, machine, output)
        timer = self._timers.pop(node, None)
        if timer is not None:
            timer.cancel()
        at = machine.next_at()
        if at is not None:
            loop = asyncio.get_running_loop()
            self._timers[node] = loop.call_at(max(at, loop.time()), self._kick, node)

    def _do(self, node: str, machine: NodeDesired, output: Output) -> None:
        if isinstance(output, Publish):
            self._spawn(self._publish(node, machine, output), f"publish {node}")
        elif isinstance(output, RaiseEpoch):
            self._raise_above(output.above)
        else:
            self._callbacks.on_report(node, output)

    async def _publish(self, node: str, machine: NodeDesired, output: Publish) -> None:
        link = self._link
        assert link is not None  # noqa: S101 - `_kick` saw it
        if (output.epoch, output.rev) != machine.revision:
            return
        try:
            async with self._slots:
                await link.publish(topics.DESIRED.of(node=node), output.payload, retain=True)
        except NereidError as error:
            logger.warning("desired state not published", extra={"node": node, "problem": str(error)})
            machine.publish_failed(output.epoch, output.rev)
        else:
            machine.published(output.epoch, output.rev)
            changes = {"tasks": len(output.rows), "inserted": len(output.inserted), "deleted": len(output.deleted)}
            logger.info("desired state published", extra={"node": node, "rev": output.rev, **changes})
            await self._publish_events(link, node, output)
        self._kick(node)

    async def _publish_events(self, link: Link, node: str, output: Publish) -> None:
        events = [(topics.INSERT, uid, output.rows[uid]) for uid in sorted(output.inserted)]
        events += [(topics.DELETE, uid, row) for uid, row in sorted(output.deleted.items())]
        for topic, uid, row in events:
            event = TaskEvent(
                cluster=self._cluster,
                epoch=output.epoch,
                rev=output.rev,
                object=_shown(self._objects.get(uid), uid, row),
            )
            where = topic.of(node=node, namespace=row.namespace, plural=KINDS[row.kind].plural, name=row.name)
            try:
                await link.publish(where, event.encode())
            except NereidError as error:
                # Nothing depends on it: the document is what the node applies.
                logger.info("event not published", extra={"topic": where, "problem": str(error)})
            if topic is topics.DELETE and not self._assignments.nodes_of(uid):
                self._objects.pop(uid, None)

    async def _clear(self, node: str) -> None:
        for topic in (topics.DESIRED, topics.STATE, topics.NODE_ALIVE):
            await self._clear_topic(topic.pattern.format(node=node))

    async def _clear_topic(self, topic: str) -> None:
        if self._link is None or not self._link.connected:
            return  # at the next connection the broker shows what is left
        try:
            await self._link.publish(topic, b"", retain=True)
        except (NereidError, ValueError) as error:
            logger.info("retained topic not cleared", extra={"topic": topic, "problem": str(error)})

    async def _speak(self) -> None:
        if self._link is not None:
            await self._voice.speak(self._link, self.epoch)

    async def _replace_alive(self) -> None:
        await asyncio.sleep(REPLACE_ALIVE_S)
        self._replacing = False
        await self._speak()

    def _raise_above(self, epoch: int) -> None:
        self._claimed = max(self._claimed, epoch)
        if not self._raising and self._claimed >= self.epoch:
            self._raising = True
            self._spawn(self._raise(), "raise epoch")

    async def _raise(self) -> None:
        """Lead above the highest epoch that is claimed; what is claimed meanwhile waits for the pause's end."""
        while self._claimed >= self.epoch:
            try:
                self.new_epoch(await self._callbacks.raise_epoch(self._claimed))
            except NereidError as error:
                logger.warning("epoch not raised", extra={"above": self._claimed, "problem": str(error)})
                await asyncio.sleep(RAISE_RETRY_S)
            else:
                logger.warning("epoch raised", extra={"epoch": self.epoch})
                await asyncio.sleep(self._raise_pause_s)
        self._raising = False

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        if self._closed:
            work.close()
            return
        task = asyncio.create_task(work, name=f"downstream {name}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("downstream task failed", exc_info=task.exception())


def _shown(obj: Object | None, uid: str, row: TaskRow) -> Object:
    """Return the resource as the API has it, or what is known of one that is gone.

    Its managers' records and its list of nodes are left out: with the latter each node would be told of all others.
    """
    if obj is None:
        metadata = {"uid": uid, "namespace": row.namespace, "name": row.name, "generation": row.generation}
        return {"kind": row.kind, "metadata": metadata, "spec": row.spec or {}}
    shown = {**obj, "metadata": {key: value for key, value in obj["metadata"].items() if key != "managedFields"}}
    if "status" in obj:
        shown["status"] = {key: value for key, value in obj["status"].items() if key != "heldBy"}
    return shown
