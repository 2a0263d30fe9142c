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
from dataclasses import replace
from functools import partial
from typing import Final

from msgspec import structs

from nereid_shared import topics
from nereid_shared.errors import LinkDown, MessageInvalid, MessageTooLarge, TemporaryError
from nereid_shared.health import answering
from nereid_shared.link import NO_SUBSCRIBER, Link, LinkSettings, Message, Will
from nereid_shared.messages import Accepted, Task, WorkerInfo
from nereid_shared.samples import Result, Sample
from nereid_worker.encoding import from_spool
from nereid_worker.page import Page
from nereid_worker.sender import Sender
from nereid_worker.settings import Settings
from nereid_worker.spool import Spool

logger = logging.getLogger(__name__)

TICK_S: Final = 0.25
GOODBYE_S: Final = 2.0
HEARTBEAT_EVERY: Final = 10
"""Info without news goes at every tenth interval: the LC says again then what the worker may have missed."""


class Uplink:
    """A thread that keeps the link to the edge broker.

    Args:
        info: makes the info body from its number within this boot; called in the link's thread.
        on_task: called in the link's thread with each task that comes, the first included.
        on_result: called in the link's thread with each answer of this service and node.
        on_room: called in the link's thread when the spool has got smaller.
        on_failure: called in the link's thread when it ends although nobody stopped it.
        problem: returns why the worker is not ready, "" where it is; called in the link's thread for each probe.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        info: Callable[[int], WorkerInfo],
        on_task: Callable[[Task], None],
        on_result: Callable[[Result], None],
        on_room: Callable[[], None],
        on_failure: Callable[[], None],
        problem: Callable[[], str] = str,
    ) -> None:
        self._settings = settings
        self._info, self._on_task, self._on_result = info, on_task, on_result
        self._on_room, self._on_failure, self._problem = on_room, on_failure, problem
        self._page: Page | None = None
        self._spool: Spool | None = None
        self._sender = Sender()
        self._number = 0
        self._said: WorkerInfo | None = None
        self._said_at = 0.0
        self._samples = topics.SAMPLES.of(service=settings.service, node=settings.node)
        self._info_topic = topics.WORKER_INFO.of(worker=settings.worker)
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._link: Link | None = None
        self._rung = False
        self._started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="uplink", daemon=True)

    @property
    def accepted(self) -> int:
        """Number of the last sample that the LC has committed."""
        return self._sender.accepted

    def start(self) -> None:
        """Start the thread, unless it runs already; returns when its loop runs, connected or not.

        Raises:
            UserError: the broker's URL is none.
        """
        if not self._started.done():
            self._thread.start()
        self._started.result()

    def attach(self, page: Page, spool: Spool) -> None:
        """Send what the spool holds from now on."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._attach, page, spool)

    def stop(self) -> None:
        """Publish the info a last time and end the thread."""
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
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._publish_info)

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except Exception as error:
            if not self._started.done():
                self._started.set_exception(error)
                return
            logger.exception("the uplink ended")
            self._on_failure()

    async def _main(self) -> None:
        worker = self._settings.worker
        self._link = Link(
            LinkSettings.from_url(
                self._settings.broker,
                client_id=f"nereid-worker-{worker}",
                tls=self._settings.tls,
                keepalive_s=self._settings.keepalive_s,
            ),
            subscriptions={
                topics.TASK.of(worker=worker): self._take_task,
                topics.ACCEPTED.of(worker=worker): self._take_accepted,
                topics.RESULTS.of(service=self._settings.service, node=self._settings.node): self._take_result,
            },
            will=lambda _: Will(topic=self._info_topic, payload=self._last_will(), retain=True),
            on_connect=self._connected,
        )
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with answering(self._settings.health, self._problem), self._link:
            self._started.set_result(None)
            ticks = asyncio.create_task(self._tick(), name="ticks")
            stopped = asyncio.create_task(self._stop.wait(), name="stop")
            done, _ = await asyncio.wait((ticks, stopped), return_when=asyncio.FIRST_COMPLETED)
            ticks.cancel()
            stopped.cancel()
            if ticks in done:
                ticks.result()
            await self._say_goodbye(self._link)

    async def _say_goodbye(self, link: Link) -> None:
        self._number += 1
        try:
            async with asyncio.timeout(GOODBYE_S):
                await link.publish(self._info_topic, self._info(self._number).encode(), retain=True)
        except (TimeoutError, TemporaryError):
            logger.info("left without a goodbye", extra={"worker": self._settings.worker})

    async def _tick(self) -> None:
        due = 0.0
        while True:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            self._sender.on_timer(now)
            self._pump()
            if now >= due:
                due = now + self._settings.info_interval_s
                self._publish_info(only_news=now - self._said_at < HEARTBEAT_EVERY * self._settings.info_interval_s)

    async def _connected(self, link: Link) -> None:
        self._sender.connected(time.monotonic())
        self._number += 1
        await link.publish(self._info_topic, self._info(self._number).encode(), retain=True)
        self._pump()

    def _last_will(self) -> bytes:
        # No counts: by the time the broker publishes it they are old.
        will = structs.replace(self._info(0), status="offline", reason="", message="", ledger=None, task_info=None)
        return will.encode()

    def _attach(self, page: Page, spool: Spool) -> None:
        self._page, self._spool = page, spool
        self._sender = Sender()
        self._skip_lost(page, spool)
        # Where there is no connection the first publish finds out, and the next connection starts the sender again.
        self._sender.connected(time.monotonic())
        self._pump()

    def _skip_lost(self, page: Page, spool: Spool) -> bool:
        """Go on behind samples that were counted and are not in the spool: accepted before, or lost by a power cut.

        The LC takes what the info then calls accepted, and it has not, for forgotten, and counts it as such.
        """
        # In this order: what is counted is in the spool before.
        counted, oldest = page.committed_seq, spool.oldest_seq
        return self._sender.on_accepted(counted if oldest is None else oldest - 1, time.monotonic())

    def _publish_info(self, *, only_news: bool = False) -> None:
        if self._link is None or not self._link.connected:
            return
        info = self._info(self._number + 1)
        said = structs.replace(info, number=0, task_info=None)  # what it says but for its number and its time
        if only_news and said == self._said:
            return
        self._number += 1
        try:
            self._link.publish_nowait(self._info_topic, info.encode(), retain=True)
        except TemporaryError:
            logger.debug("info not sent; the next one follows")
        else:
            self._said, self._said_at = said, time.monotonic()

    def _pump(self) -> None:
        self._rung = False
        link, page, spool, sender = self._link, self._page, self._spool, self._sender
        if link is None or page is None or spool is None:
            return
        # What is in the spool but not yet in the page could be forgotten by a kill, and its number given again.
        while sender.sent < page.committed_seq and sender.may_send():
            record = spool.after(sender.sent)
            if record is None:
                return
            seq, spooled = record
            generation = sender.published(seq, time.monotonic())
            try:
                body = from_spool(spooled, stream=page.stream, seq=seq, now_s=time.monotonic())
                self._publish(link, body, partial(self._on_ack, generation))
            except LinkDown:
                sender.disconnected()
                return
            except TemporaryError:
                sender.acknowledged(generation)
                sender.sent = seq - 1
                return

    def _publish(self, link: Link, body: bytes, on_ack: Callable[[int | None], None]) -> None:
        try:
            link.publish_nowait(self._samples, body, on_ack=on_ack)
        except MessageTooLarge as error:
            # The numbers must stay without gaps: the sample goes without its pixels, is refused, and counted as such.
            logger.error("the broker takes no packets of this size", extra={"problem": str(error)})
            sample = Sample.decode(body, max_bytes=len(body))
            link.publish_nowait(self._samples, replace(sample, payload=b"").encode(), on_ack=on_ack)

    def _on_ack(self, generation: int, reason: int | None) -> None:
        self._sender.acknowledged(generation, nobody=reason == NO_SUBSCRIBER)
        self._pump()

    def _take_task(self, message: Message) -> None:
        if message.payload:
            self._sender.peer_is_back(time.monotonic())
            self._on_task(Task.decode(message.payload, max_bytes=topics.TASK.max_bytes, topic=message.topic))

    def _take_accepted(self, message: Message) -> None:
        body = Accepted.decode(message.payload, max_bytes=topics.ACCEPTED.max_bytes, topic=message.topic)
        page, spool = self._page, self._spool
        if page is None or spool is None or body.stream != page.stream:
            return
        if body.seq > page.committed_seq:
            raise MessageInvalid(f"{message.topic}: sample {body.seq} is accepted, the last one was {page.seq}")
        if self._sender.on_accepted(body.seq, time.monotonic()):
            spool.release(body.seq)
            if self._skip_lost(page, spool):
                logger.warning("hard samples are lost: the spool was damaged", extra={"up_to": self._sender.accepted})
                self._publish_info()
            self._on_room()
            self._pump()

    def _take_result(self, message: Message) -> None:
        self._on_result(Result.decode(message.payload, max_bytes=topics.RESULTS.max_bytes))
