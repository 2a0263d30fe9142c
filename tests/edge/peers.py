# SPDX-License-Identifier: Apache-2.0
"""The LC's peers as far as the protocol shows them: a GlobalManager, a cloud worker, an edge worker."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from tests.edge.rows import CLUSTER, SERVICE_ID, WORKER
from tests.mosquitto import Mosquitto

from nereid_edge.controller import LocalController
from nereid_edge.folder import StateFolder
from nereid_edge.settings import Settings
from nereid_shared import samples, topics
from nereid_shared.errors import TemporaryError
from nereid_shared.link import Link, Message
from nereid_shared.link_settings import LinkSettings, Will
from nereid_shared.messages import (
    Accepted,
    Desired,
    GmAlive,
    Ledger,
    ModelOutput,
    NodeAlive,
    NodeState,
    Sync,
    Task,
    TaskStatus,
    WorkerInfo,
    WorkerStatus,
)
from nereid_shared.samples import Counts, Result, Sample

M = TypeVar("M", NodeAlive, NodeState, TaskStatus, Sync)

NODE = "edge-0"
TIMEOUT_S = 30.0
BIG = 2**20


class Heard:
    """Something that changes with messages, and can be waited for."""

    def __init__(self) -> None:
        self._news = asyncio.Event()

    def ring(self) -> None:
        self._news.set()

    async def until(self, condition: Callable[[], object], *, timeout_s: float = TIMEOUT_S) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._news.clear()
                await self._news.wait()


class GmPeer(Heard):
    """Publishes documents and remembers what the node says."""

    def __init__(self, broker: Mosquitto) -> None:
        super().__init__()
        self.alive: list[NodeAlive] = []
        self.states: list[NodeState] = []
        self.statuses: list[TaskStatus] = []
        self.syncs: list[Sync] = []
        self.link = Link(
            LinkSettings.from_url(broker.url, client_id="gm"),
            subscriptions={
                topics.NODE_ALIVE.of(node=NODE): self._on(NodeAlive, self.alive),
                topics.STATE.of(node=NODE): self._on(NodeState, self.states),
                topics.STATUS.filter(node=NODE): self._on(TaskStatus, self.statuses),
                topics.SYNC.of(node=NODE): self._on(Sync, self.syncs),
            },
            on_connect=self._speak,
        )

    async def _speak(self, link: Link) -> None:
        """Say at each connection that the leader is there, as it does: the node may have spoken to nobody."""
        alive = GmAlive(status="online", cluster=CLUSTER, leader="gm", epoch=1)
        await link.publish(topics.GM_ALIVE.of(), alive.encode(), retain=True)

    def _on(self, kind: type[M], into: list[M]) -> Callable[[Message], None]:
        def take(message: Message) -> None:
            into.append(kind.decode(message.payload, max_bytes=BIG))
            self.ring()

        return take

    async def desire(self, document: Desired) -> None:
        await self.link.publish(topics.DESIRED.of(node=NODE), document.encode(), retain=True)

    async def applied(self, document: Desired) -> NodeState:
        def is_it() -> bool:
            last = self.states[-1] if self.states else None
            return last is not None and (last.epoch, last.rev, last.digest) == (
                document.epoch, document.rev, document.digest,
            ) and last.tasks is not None  # fmt: skip

        await self.until(is_it)
        return self.states[-1]

    def status(self, uid: str) -> TaskStatus:
        return next((s for s in reversed(self.statuses) if s.uid == uid), TaskStatus(phase="", status=""))

    def ledger(self, uid: str) -> Ledger:
        return self.status(uid).ledger or Ledger()


class CloudPeer(Heard):
    """Answers every sample with label "big" where `answering`."""

    def __init__(self, broker: Mosquitto, *, answering: bool = True, error: str = "") -> None:
        super().__init__()
        self.answering, self.error = answering, error
        self.seen: list[int] = []
        self.link = Link(
            LinkSettings.from_url(broker.url, client_id="cloud-worker"),
            subscriptions={topics.shared(topics.SAMPLES.filter(service=SERVICE_ID), group="secret"): self._take},
        )

    def _take(self, message: Message) -> None:
        sample = Sample.decode(message.payload, max_bytes=topics.SAMPLES.max_bytes)
        self.seen.append(sample.seq)
        if self.answering:
            with contextlib.suppress(TemporaryError):
                self.answer(sample)
        self.ring()

    def answer(self, sample: Sample) -> None:
        result = Result(
            stream=sample.stream, seq=sample.seq, digest=sample.digest, key=sample.key, captured_at=sample.captured_at,
            label="" if self.error else "big", score=0.9, model="m", error=self.error,
        )  # fmt: skip
        topic = topics.RESULTS.of(service=SERVICE_ID, node=NODE)
        self.link.publish_nowait(topic, result.encode())


@dataclass
class EdgePeer(Heard):
    """An edge worker: numbers samples, repeats what is not accepted, remembers answers."""

    broker: Mosquitto
    boot: str = "boot-1"
    stream: str = "stream-1"
    client: str = "edge-worker"
    accepted: int = 0
    number: int = 0
    sent: dict[int, bytes] = field(default_factory=dict)
    tasks: list[Task | None] = field(default_factory=list)
    answers: dict[int, list[Result]] = field(default_factory=dict)
    models: list[ModelOutput] = field(default_factory=list)
    easy: int = 0

    def __post_init__(self) -> None:
        Heard.__init__(self)
        self.link = Link(
            LinkSettings.from_url(self.broker.url, client_id=self.client),
            subscriptions={
                topics.TASK.of(worker=WORKER): self._on_task,
                topics.ACCEPTED.of(worker=WORKER): self._on_accepted,
                topics.RESULTS.of(service=SERVICE_ID, node=NODE): self.on_result,
            },
            will=lambda _: Will(topic=topics.WORKER_INFO.of(worker=WORKER), payload=self.info("offline").encode()),
        )

    def info(self, status: WorkerStatus, *, task_hash: str = "") -> WorkerInfo:
        self.number += 1
        hard = len(self.sent)
        return WorkerInfo(
            name=WORKER, namespace="default", owner_name="digits", owner_kind="jointinferenceservice", status=status,
            service=SERVICE_ID, node=NODE, boot=self.boot, number=self.number, task_hash=task_hash, stream=self.stream,
            accepted=self.accepted, models=list(self.models),
            ledger=Ledger(seen=self.easy + hard + 1, easy=self.easy, hard=hard, failed={"bad": 1}, skipped=2),
        )  # fmt: skip

    async def say(self, status: WorkerStatus, *, task_hash: str = "") -> None:
        body = self.info(status, task_hash=task_hash).encode()
        await self.link.publish(topics.WORKER_INFO.of(worker=WORKER), body, retain=True)

    def sample(self, seq: int, *, remaining_ms: int = 60_000, label: str = "little") -> Sample:
        payload = b"p" * 2000 + str(seq).encode()
        return Sample(
            stream=self.stream, seq=seq, digest=samples.digest_of(payload), key=f"frame-{seq}", captured_at=1.0,
            remaining_ms=remaining_ms, label=label, score=0.5,
            counts=Counts(seen=seq + self.easy, easy=self.easy, hard=seq, failed=0), encoding="jpeg", payload=payload,
        )  # fmt: skip

    async def send(self, *seqs: int, remaining_ms: int = 60_000, label: str = "little") -> None:
        for seq in seqs:
            self.sent[seq] = self.sample(seq, remaining_ms=remaining_ms, label=label).encode()
            await self.link.publish(topics.SAMPLES.of(service=SERVICE_ID, node=NODE), self.sent[seq])

    async def send_until_accepted(self, last: int) -> None:
        """Repeat what is not accepted until all of it is, as a worker does."""
        async with asyncio.timeout(TIMEOUT_S):
            while self.accepted < last:
                for seq in sorted(s for s in self.sent if self.accepted < s <= last):
                    await self.link.publish(topics.SAMPLES.of(service=SERVICE_ID, node=NODE), self.sent[seq])
                with contextlib.suppress(TimeoutError):
                    await self.until(lambda: self.accepted >= last, timeout_s=0.5)

    def _on_task(self, message: Message) -> None:
        self.tasks.append(Task.decode(message.payload, max_bytes=BIG) if message.payload else None)
        self.ring()

    def _on_accepted(self, message: Message) -> None:
        body = Accepted.decode(message.payload, max_bytes=BIG)
        if body.stream == self.stream:
            self.accepted = max(self.accepted, body.seq)
        self.ring()

    def on_result(self, message: Message) -> None:
        result = Result.decode(message.payload, max_bytes=BIG)
        self.answers.setdefault(result.seq, []).append(result)
        self.ring()


class Lab:
    """Two brokers and an LC's settings."""

    def __init__(self, cloud: Mosquitto, edge: Mosquitto, state: Path) -> None:
        self.cloud, self.edge, self.state = cloud, edge, state
        self.settings = Settings(
            node=NODE,
            state=state,
            cloud=LinkSettings.from_url(cloud.url, client_id="lc"),
            edge=LinkSettings.from_url(edge.url, client_id="lc"),
            status_interval_s=0.2,
        )

    @asynccontextmanager
    async def controller(self, **more: object) -> AsyncIterator[LocalController]:
        with StateFolder(self.state, node=NODE) as folder:
            made = LocalController(replace(self.settings, **more), folder)  # type: ignore[arg-type]
            running = asyncio.create_task(made.run())
            try:
                yield made
            finally:
                made.stop()
                async with asyncio.timeout(TIMEOUT_S):
                    await running

    def argv(self) -> list[str]:
        """The command line of the same LC as a process."""
        return [
            "-m", "nereid_edge", "--node", NODE, "--state", str(self.state), "--cloud-broker", self.cloud.url,
            "--edge-broker", self.edge.url, "--status-interval", "200ms",
        ]  # fmt: skip


def answered_by_the_ledger(ledger: Ledger) -> bool:
    """Check the identities, which hold in every message."""
    assert ledger.seen == ledger.easy + ledger.hard + sum(ledger.failed.values())
    assert ledger.hard == ledger.answered + sum(ledger.dropped.values()) + ledger.pending
    assert ledger.corrected <= ledger.late <= ledger.answered
    assert ledger.changed <= ledger.answered
    return True
