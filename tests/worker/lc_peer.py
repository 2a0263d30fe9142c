# SPDX-License-Identifier: Apache-2.0
"""What stands for the LocalController in a worker's tests: it accepts samples and answers by script."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Self

from nereid_shared import topics
from nereid_shared.errors import LinkDown
from nereid_shared.link import Link, LinkSettings, Message
from nereid_shared.messages import Accepted, Task, WorkerInfo
from nereid_shared.samples import Result, Sample

SERVICE, NODE, WORKER = "svc-00000001", "edge-0", "worker-a"

Behaviour = Callable[[Sample], Iterable[tuple[float, Result]]]
"""For a sample that came the first time: its answers, each with a delay in seconds."""


def answer_to(sample: Sample, label: str = "cloud", *, error: str = "") -> Result:
    """Return the cloud's answer to a sample."""
    return Result(
        stream=sample.stream, seq=sample.seq, digest=sample.digest, key=sample.key, captured_at=sample.captured_at,
        label="" if error else label, score=0.0 if error else 0.9, model="b" * 64, error=error,
    )  # fmt: skip


def at_once(sample: Sample) -> Iterator[tuple[float, Result]]:
    """Answer without delay."""
    yield 0.0, answer_to(sample)


def never(_sample: Sample) -> Iterator[tuple[float, Result]]:
    """Answer nothing."""
    yield from ()


class LcPeer:
    """A thread with a link to the edge broker. Samples are accepted in order, each answered once as `behaviour` says.

    Attributes:
        came: how often each (stream, seq) came.
        samples: the first copy of each, in the order in which they came.
        infos: the worker's info bodies.
        accept_every_s: how long acceptances are gathered before one message says them; 0 says each at once.
        accepting: False leaves samples unaccepted and unanswered, as an LC that hangs would.
    """

    def __init__(
        self, url: str, *, behaviour: Behaviour = at_once, task: Task | None = None, worker: str = WORKER
    ) -> None:
        self._worker = worker
        self.came: Counter[tuple[str, int]] = Counter()
        self.samples: list[Sample] = []
        self.infos: list[WorkerInfo] = []
        self.behaviour = behaviour
        self.accepting = True
        self.accept_every_s = 0.0
        self._to_accept: set[str] = set()
        self._task = task
        self._contiguous: dict[str, int] = {}
        self._changed = threading.Condition()
        self._stop = asyncio.Event()
        self._link = Link(
            LinkSettings.from_url(url, client_id=f"lc-of-{worker}"),
            subscriptions={
                topics.SAMPLES.of(service=SERVICE, node=NODE): self._sample,
                topics.WORKER_INFO.of(worker=self._worker): self._info,
            },
            on_connect=self._on_connect,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name="lc-peer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.wait(lambda: self._link.connected)
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def wait(self, fulfilled: Callable[[], object], timeout_s: float = 60.0) -> None:
        """Return when something is so; it is looked at whenever something came, and every 20 ms."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            if fulfilled():
                return
            with self._changed:
                self._changed.wait(0.02)
        raise AssertionError(f"waited {timeout_s} s in vain; last info: {self.infos[-1:]}, {len(self.samples)} samples")

    def wait_status(self, status: str, *, reason: str | None = None, timeout_s: float = 60.0) -> WorkerInfo:
        """Return the newest info once it has this status (and reason)."""

        def so() -> bool:
            info = self.infos[-1] if self.infos else None
            return info is not None and info.status == status and (reason is None or info.reason == reason)

        self.wait(so, timeout_s)
        return self.infos[-1]

    def give(self, task: Task) -> None:
        """Publish another task, retained."""
        self._task = task
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(self._on_connect(self._link), self._loop).result(30)

    def send(self, result: Result) -> None:
        """Publish an answer."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._publish, result)

    def accept(self, stream: str, seq: int) -> None:
        """Publish an acceptance that nothing here has led to."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._say_accepted, stream, seq)

    @property
    def last(self) -> WorkerInfo:
        return self.infos[-1]

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with self._link:
            await self._stop.wait()

    async def _on_connect(self, link: Link) -> None:
        if self._task is not None:
            await link.publish(topics.TASK.of(worker=self._worker), self._task.encode(), retain=True)

    def _info(self, message: Message) -> None:
        info = WorkerInfo.decode(message.payload, max_bytes=topics.WORKER_INFO.max_bytes)
        with self._changed:
            if info.stream:
                # As the LC does: what was accepted once, and is not known here, is forgotten.
                self._contiguous[info.stream] = max(self._contiguous.get(info.stream, 0), info.accepted)
            self.infos.append(info)
            self._changed.notify_all()

    def _sample(self, message: Message) -> None:
        if not self.accepting:
            return
        sample = Sample.decode(message.payload, max_bytes=topics.SAMPLES.max_bytes)
        identity = sample.stream, sample.seq
        contiguous = self._contiguous.get(sample.stream, 0)
        assert sample.seq <= contiguous + 1, f"{identity} came after {contiguous}"
        with self._changed:
            self.came[identity] += 1
            if sample.seq == contiguous + 1:
                self._contiguous[sample.stream] = sample.seq
                self.samples.append(sample)
            self._changed.notify_all()
        if not self._to_accept:
            asyncio.get_running_loop().call_later(self.accept_every_s, self._accept)
        self._to_accept.add(sample.stream)
        if sample.seq == contiguous + 1:
            for delay_s, result in self.behaviour(sample):
                if delay_s:
                    asyncio.get_running_loop().call_later(delay_s, self._publish, result)
                else:
                    self._publish(result)

    def _publish(self, result: Result) -> None:
        try:
            self._link.publish_nowait(topics.RESULTS.of(service=SERVICE, node=NODE), result.encode())
        except LinkDown:
            # As the LC does: an answer waits for the broker.
            asyncio.get_running_loop().call_later(0.05, self._publish, result)

    def _accept(self) -> None:
        streams, self._to_accept = self._to_accept, set()
        for stream in streams:
            self._say_accepted(stream, self._contiguous[stream])

    def _say_accepted(self, stream: str, seq: int) -> None:
        try:
            body = Accepted(stream=stream, seq=seq).encode()
            self._link.publish_nowait(topics.ACCEPTED.of(worker=self._worker), body)
        except LinkDown:
            pass  # the worker sends again what nobody accepted, and is told then
