# SPDX-License-Identifier: Apache-2.0
"""The edge worker's side of its broker: one thread with one link, so that inference never waits for the network.

Down come the task, the cloud's answers and what the LocalController has accepted; up go hard samples from the spool and
the worker's info. The inference thread only appends to the spool and rings (`notify`).
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from nereid_shared import topics
from nereid_shared.errors import LinkDown, MessageInvalid, TemporaryError
from nereid_shared.link import Link, LinkSettings, Message, Will
from nereid_shared.messages import Accepted, Task, WorkerInfo
from nereid_shared.samples import Result
from nereid_worker.sender import Sender
from nereid_worker.settings import Settings
from nereid_worker.spool import Spool

log = logging.getLogger(__name__)

TICK_S = 0.25


class Uplink:
    """A thread that keeps the link to the edge broker.

    Args:
        info: makes the info body: (status "" for the current one, number of this boot's message).
        on_task: called in the link's thread with each task that comes, the first included.
        on_result: called in the link's thread with each answer of this service and node.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        spool: Spool,
        stream: str,
        info: Callable[[int], WorkerInfo],
        on_task: Callable[[Task], None],
        on_result: Callable[[Result], None],
    ) -> None:
        self._settings = settings
        self._spool, self._stream = spool, stream
        self._info, self._on_task, self._on_result = info, on_task, on_result
        oldest = spool.oldest_seq
        self._sender = Sender(accepted=0 if oldest is None else oldest - 1)
        self._number = 0
        self._samples = topics.SAMPLES.of(service=settings.service, node=settings.node)
        self._info_topic = topics.WORKER_INFO.of(worker=settings.worker)
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._link: Link | None = None
        self._rung = False
        self._started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="uplink", daemon=True)
        self.space = threading.Event()

    @property
    def accepted(self) -> int:
        """Number of the last sample that the LC has committed."""
        return self._sender.accepted

    @property
    def connected(self) -> bool:
        """Whether the edge broker is there."""
        return self._link is not None and self._link.connected

    def start(self) -> None:
        """Start the thread; returns when its loop runs, connected or not."""
        self._thread.start()
        self._started.result()

    def stop(self) -> None:
        """Say goodbye to the broker and end the thread."""
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def notify(self) -> None:
        """Tell the thread that the spool has a new sample. Cheap; callable from any thread."""
        if not self._rung and self._loop is not None:
            self._rung = True
            self._loop.call_soon_threadsafe(self._pump)

    def report(self) -> None:
        """Publish the info body now, because the status changed."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._publish_info)

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except Exception:
            log.exception("the uplink ended")
            raise

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        worker = self._settings.worker
        self._link = Link(
            LinkSettings.from_url(self._settings.broker, client_id=f"nereid-worker-{worker}"),
            subscriptions={
                topics.TASK.of(worker=worker): self._take_task,
                topics.ACCEPTED.of(worker=worker): self._take_accepted,
                topics.RESULTS.of(service=self._settings.service, node=self._settings.node): self._take_result,
            },
            will=lambda _: Will(topic=self._info_topic, payload=self._goodbye(), retain=True),
            on_connect=self._connected,
        )
        async with self._link:
            self._started.set_result(None)
            ticks = asyncio.create_task(self._tick(), name="ticks")
            await self._stop.wait()
            ticks.cancel()
            try:
                async with asyncio.timeout(2.0):
                    await self._link.publish(self._info_topic, self._goodbye(), retain=True)
            except (TimeoutError, TemporaryError):
                log.info("left without a goodbye", extra={"worker": worker})

    async def _tick(self) -> None:
        due = 0.0
        while True:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            self._sender.on_timer(now)
            self._pump()
            if now >= due:
                due = now + self._settings.info_interval_s
                self._publish_info()

    async def _connected(self, link: Link) -> None:
        self._sender.connected(time.monotonic())
        self._publish_info()
        self._pump()

    def _goodbye(self) -> bytes:
        return self._info(0).model_copy(update={"status": "offline"}).encode()

    def _publish_info(self) -> None:
        if self._link is None or not self._link.connected:
            return
        self._number += 1
        try:
            self._link.publish_nowait(self._info_topic, self._info(self._number).encode(), retain=True)
        except TemporaryError:
            log.debug("info not sent; the next one follows")

    def _pump(self) -> None:
        self._rung = False
        link = self._link
        while link is not None and link.connected and self._sender.may_send():
            record = self._spool.after(self._sender.sent)
            if record is None:
                return
            seq, body = record
            try:
                generation = self._sender.published(seq, time.monotonic())
                link.publish_nowait(self._samples, body, on_ack=partial(self._on_ack, generation))
            except LinkDown:
                self._sender.disconnected()
                return
            except TemporaryError:
                self._sender.acknowledged(generation)
                self._sender.sent = seq - 1
                return

    def _on_ack(self, generation: int, _reason: int | None) -> None:
        self._sender.acknowledged(generation)
        self._pump()

    def _take_task(self, message: Message) -> None:
        if message.payload:
            self._on_task(Task.decode(message.payload, max_bytes=topics.TASK.max_bytes, topic=message.topic))

    def _take_accepted(self, message: Message) -> None:
        body = Accepted.decode(message.payload, max_bytes=topics.ACCEPTED.max_bytes, topic=message.topic)
        if body.stream != self._stream:
            return
        if body.seq > self._sender.sent:
            raise MessageInvalid(f"{message.topic}: {body.seq} was never sent")
        if self._sender.on_accepted(body.seq, time.monotonic()):
            self._spool.release(body.seq)
            self.space.set()

    def _take_result(self, message: Message) -> None:
        self._on_result(Result.decode(message.payload, max_bytes=topics.RESULTS.max_bytes))
