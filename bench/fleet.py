# SPDX-License-Identifier: Apache-2.0
"""Thousands of LocalControllers as the cloud sees them: real connections, real wills, the protocol's own state machine.

Each node judges, acknowledges and beats by `nereid_edge.desired.DesiredState`, which recomputes hashes and digests, and
comes back from a lost connection by the back-off of `nereid_shared.link`. What is left out is what only the node pays
for: its disk, its edge broker, its samples. A worker is said to run as soon as its task is applied.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterable
from itertools import count
from typing import Final

from bench.wire import Wire, open_wire
from nereid_edge.desired import Applied, DesiredState, Due, Verdict
from nereid_shared import topics
from nereid_shared.kinds import KINDS
from nereid_shared.messages import (
    Desired,
    GmAlive,
    Ledger,
    NodeAlive,
    NodeState,
    Output,
    Revision,
    Sync,
    TaskInfo,
    TaskState,
    TaskStatus,
)
from nereid_shared.reconnecting import Reconnects

KEEPALIVE_S: Final = 20
HEARTBEAT_S: Final = 30.0
# As many TCP connections are made at once; the kernel's queue of a listener is not endless.
_CONNECTING: Final = 200
CONNECT_S: Final = 5.0

OnState = Callable[["Node", NodeState], None]


class Node:
    """One node's LocalController."""

    def __init__(self, fleet: "Fleet", name: str) -> None:
        self.name = name
        self.machine = DesiredState(Applied(), rng=fleet.rng, heartbeat_s=HEARTBEAT_S)
        self._fleet, self._boot = fleet, f"{fleet.rng.getrandbits(64):016x}"
        self._wire: Wire | None = None
        self._numbers = count(1)
        self.connections = 0
        self._tries = Reconnects(tls=False, patience_s=CONNECT_S)
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def connect(self) -> None:
        """Connect; the rest follows by itself, the next connection too."""
        self.connections += 1
        name = self.name
        subscriptions = [
            topics.RESULTS.filter(node=name), topics.DESIRED.of(node=name), topics.INSERT.filter(node=name),
            topics.DELETE.filter(node=name), topics.GM_ALIVE.of(),
        ]  # fmt: skip
        will = topics.NODE_ALIVE.of(node=name), self._alive("offline")
        self._since = time.monotonic()
        try:
            async with self._fleet.connecting:
                self._wire = await open_wire(
                    self, port=self._fleet.port, client_id=name, will=will, subscriptions=subscriptions,
                    keepalive_s=KEEPALIVE_S,
                )  # fmt: skip
        except OSError:
            self.on_lost()

    def drop(self) -> None:
        """Lose the connection."""
        if self._wire is not None:
            self._wire.abort()

    def on_ready(self) -> None:
        """Speak first: birth, state in full, and each task's status."""
        self._fleet.connected.add(self.name)
        self._publish(topics.NODE_ALIVE.of(node=self.name), self._alive("online"), retain=True)
        self.machine.connected(time.monotonic())
        self._speak()
        self._tell_statuses()

    def on_lost(self) -> None:
        """Come back as `nereid_shared.link.Link` does."""
        self._wire = None
        self._fleet.connected.discard(self.name)
        self.machine.disconnected()
        if self._timer is not None:
            self._timer.cancel()
        self._fleet.later(self._tries.pause_s(lasted_s=time.monotonic() - self._since), self)

    def on_message(self, topic: str, payload: bytes, *, retained: bool) -> None:
        """Take what the GlobalManager says."""
        self._fleet.received += 1
        now = time.monotonic()
        if not payload:
            return
        if topic.endswith("/downstream/desired"):
            document = Desired.decode(payload, max_bytes=topics.DESIRED.max_bytes)
            judged = self.machine.document(document, now)
            if judged.verdict is Verdict.APPLY:
                self.machine.stored(judged.document, now)
                self._fleet.on_applied(self)
                self._tell_statuses()
        elif topic == topics.GM_ALIVE.of():
            alive = GmAlive.decode(payload, max_bytes=topics.GM_ALIVE.max_bytes)
            if alive.status == "online":
                self.machine.gm_alive(alive.cluster, alive.epoch, now, retained=retained)
        elif not retained:
            event = Revision.decode(payload, max_bytes=topics.INSERT.max_bytes)
            self.machine.event(event.cluster, event.epoch, event.rev, now)
        self._wake()

    def _wake(self) -> None:
        due_at = self.machine.due_at()
        if self._timer is not None:
            self._timer.cancel()
        if due_at is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, due_at - time.monotonic()), self._speak)

    def _speak(self) -> None:
        due = self.machine.due(time.monotonic())
        if due.full or due.heartbeat:
            state = self._state(due)
            self._publish(
                topics.STATE.of(node=self.name), state.encode(), retain=True,
                on_ack=lambda: self._fleet.on_state(self, state),
            )  # fmt: skip
        if due.sync:
            applied = self.machine.applied
            sync = Sync(
                cluster=applied.cluster, epoch=applied.epoch, rev=applied.rev, digest=applied.digest,
                want_specs=list(due.want_specs),
            )  # fmt: skip
            self._fleet.syncs += 1
            self._publish(topics.SYNC.of(node=self.name), sync.encode())
        if due.statuses or due.heartbeat:
            self._tell_statuses()
        self._wake()

    def _state(self, due: Due) -> NodeState:
        applied = self.machine.applied
        tasks = {uid: TaskState(generation=row.generation, condition="Running") for uid, row in applied.tasks.items()}
        return NodeState(
            boot=self._boot, number=next(self._numbers), cluster=applied.cluster, epoch=applied.epoch,
            rev=applied.rev, digest=applied.digest, tasks=tasks if due.full else None, reason=self.machine.reason,
        )  # fmt: skip

    def _tell_statuses(self) -> None:
        for uid, row in self.machine.applied.tasks.items():
            topic = topics.STATUS.of(
                node=self.name, namespace=row.namespace, plural=KINDS[row.kind].plural, name=row.name
            )
            body = TaskStatus(
                phase="inference", status="running", boot=self._boot, number=next(self._numbers), uid=uid,
                generation=row.generation, worker=str(row.refs.get("worker", "")), update_time=_SOME_TIME,
                ledger=_SOME_COUNTS, output=Output(task_info=_SOME_INFO),
            )  # fmt: skip
            self._publish(topic, body.encode())

    def _alive(self, status: str) -> bytes:
        return NodeAlive(
            status="online" if status == "online" else "offline", install=self.name, boot=self._boot,
            connection=self.connections, version="bench",
        ).encode()  # fmt: skip

    def _publish(
        self, topic: str, payload: bytes, *, retain: bool = False, on_ack: Callable[[], None] | None = None
    ) -> None:
        if self._wire is not None:
            self._fleet.published += 1
            self._wire.publish(topic, payload, retain=retain, on_ack=on_ack)


class Fleet:
    """All nodes of a simulation, on the running event loop.

    Args:
        names: of the nodes.
        port: the cloud broker's.

    Attributes:
        connected: nodes whose subscriptions stand.
        on_state: told of each state that the broker has acknowledged.
        on_applied: told of each document that a node has taken.
        published, received: messages that went up and that came down; `syncs` are among the former.
    """

    def __init__(self, names: Iterable[str], *, port: int) -> None:
        self.port, self.rng = port, random.Random(1)  # noqa: S311 - jitter
        self.connecting = asyncio.Semaphore(_CONNECTING)
        self.connected: set[str] = set()
        self.on_state: OnState = lambda _node, _state: None
        self.on_applied: Callable[[Node], None] = lambda _node: None
        self.published = self.received = self.syncs = 0
        self.nodes = [Node(self, name) for name in names]
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Let all nodes connect."""
        for node in self.nodes:
            self._connect(node)

    def drop(self) -> None:
        """Cut all connections at once."""
        for node in self.nodes:
            node.drop()

    def later(self, delay_s: float, node: Node) -> None:
        """Let a node connect again."""
        if not self._closed:
            asyncio.get_running_loop().call_later(delay_s, self._connect, node)

    async def close(self) -> None:
        """End all connections."""
        self._closed = True
        self.drop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _connect(self, node: Node) -> None:
        if not self._closed:
            task = asyncio.create_task(node.connect(), name=f"connect {node.name}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


_SOME_TIME: Final = "2026-01-01T00:00:00Z"
_SOME_INFO: Final = TaskInfo(
    inference_number=1000, hard_example_number=200, upload_cloud_ratio=0.2, start_time=_SOME_TIME,
    current_time=_SOME_TIME, update_time=_SOME_TIME,
)  # fmt: skip
_SOME_COUNTS: Final = Ledger(
    seen=1000, easy=800, hard=200, sent=200, answered=190, dropped={"expired": 10}, bytes_up=4_000_000,
    bytes_down=40_000, latency={"edge": {10: 500, 11: 300, 12: 200}, "cloud": {20: 100, 22: 90}},
)  # fmt: skip
