# SPDX-License-Identifier: Apache-2.0
"""The link to a broker: it stays connected, keeps its subscriptions, and says what became of each publish.

The only module besides `nereid_shared.session` that knows the MQTT client. Every connection is a new session with a
clean start: what must survive a connection is in the caller's hands (protocol, principles 4 and 5).
"""

import asyncio
import inspect
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from paho.mqtt.client import topic_matches_sub

from nereid_shared.errors import (
    LinkBusy,
    LinkDown,
    MessageInvalid,
    MessageTooLarge,
    NereidError,
    PublishRefused,
)
from nereid_shared.link_settings import LinkSettings, TlsFiles, Will
from nereid_shared.reconnecting import Reconnects
from nereid_shared.session import DELIVERED, FAILURE, NO_SUBSCRIBER, OnAck, Received, Session, reason_name

__all__ = ["DELIVERED", "FAILURE", "NO_SUBSCRIBER", "Handler", "Link", "LinkSettings", "Message", "TlsFiles", "Will"]

logger = logging.getLogger(__name__)

_ROUTES_KEPT: Final = 4096


class Message(NamedTuple):
    """One message as it came; `retain` says that it is the broker's memory, of unknown age."""

    topic: str
    payload: bytes
    retain: bool


Handler = Callable[[Message], Awaitable[None] | None]
OnConnect = Callable[["Link"], Awaitable[None]]


class _Unfinished(NamedTuple):
    awaitable: Awaitable[None]
    session: Session
    mid: int
    topic: str


class _Subscription:
    """One filter with its handler, and what the handler has not finished yet, oldest first."""

    __slots__ = ("filter", "handler", "pattern", "unfinished")

    def __init__(self, filter_: str, handler: Handler) -> None:
        self.filter = filter_
        self.handler = handler
        self.pattern = filter_.split("/", 2)[2] if filter_.startswith("$share/") else filter_
        self.unfinished: deque[_Unfinished] = deque()


class Link:
    """A supervised connection to one broker; use it as an async context manager.

    Entering starts the connecting and does not wait for it. Each connection: CONNECT with a fresh will, subscriptions
    with their SUBACK checked, then `on_connect`; only after that `wait_connected` returns. `publish` works from the
    SUBACK on, so that `on_connect` can publish a birth message. Leaving sends DISCONNECT, so the will is not published.

    A message goes to the first subscription that matches its topic. Its handler returns None when it has processed
    the message, or an awaitable; the PUBACK is sent when that is done. Awaitables are awaited one after the other per
    subscription: a handler that is ``async def`` runs one message at a time, one that returns a future sees the next
    message at once. `MessageInvalid` and `MessageTooLarge` make a message a dead letter: counted, logged and
    acknowledged; any other exception is logged with its traceback and acknowledged.

    Args:
        settings: where the broker is.
        subscriptions: handlers by filter; ``$share/{group}/…`` is one too.
        will: the will, or what makes it from the connection's number.
        on_connect: awaited on each connection; when it raises, the connection is given up and tried again.

    Attributes:
        connections: number of the current connection, 1 for the first: how many CONNECTs a broker may have seen.
        dead_letters: messages that their handlers refused.
        failures: messages whose handlers raised something else.
        unrouted: messages that no subscription wanted any more.
        overflowed: unacknowledged messages of ended connections, dropped because their handler hangs.
        last_error: why there is no connection, or why the last one ended.
    """

    def __init__(
        self,
        settings: LinkSettings,
        *,
        subscriptions: Mapping[str, Handler] | None = None,
        will: Will | Callable[[int], Will] | None = None,
        on_connect: OnConnect | None = None,
    ) -> None:
        self.settings = settings
        self.connections = 0
        self.dead_letters = 0
        self.failures = 0
        self.unrouted = 0
        self.overflowed = 0
        self.last_error = ""
        self._will = will
        self._on_connect = on_connect
        self._subscriptions = {filter_: _Subscription(filter_, h) for filter_, h in (subscriptions or {}).items()}
        self._routes: dict[str, _Subscription | None] = {}
        self._session: Session | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._finishers: set[asyncio.Task[None]] = set()
        self._up_since = math.inf
        self._is_up = asyncio.Event()
        self._is_down = asyncio.Event()
        self._is_down.set()
        self._left = False

    async def __aenter__(self) -> Self:
        self._supervisor = asyncio.create_task(self._supervise(), name=f"link {self.settings.client_id}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left = True
        assert self._supervisor is not None  # noqa: S101 - set on entering
        for task in (self._supervisor, *self._finishers):
            task.cancel()
        await asyncio.gather(self._supervisor, *self._finishers, return_exceptions=True)
        for subscription in self._subscriptions.values():
            while subscription.unfinished:
                _discard(subscription.unfinished.popleft())
        self._is_up.set()
        self._is_down.set()

    @property
    def connected(self) -> bool:
        """Whether the subscriptions stand and `on_connect` is done."""
        return self._session is not None and self._session.up and self._is_up.is_set()

    async def wait_connected(self, *, after: int = 0) -> int:
        """Return the connection's number once it is usable and higher than `after`.

        Raises:
            LinkDown: the link was left.
        """
        while True:
            await self._is_up.wait()
            if self._left:
                raise LinkDown("the link was left")
            if self.connections > after:
                return self.connections
            await self._is_down.wait()

    async def wait_disconnected(self) -> None:
        """Return when there is no usable connection."""
        await self._is_down.wait()

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """Publish with QoS 1 and return the PUBACK's reason code: `DELIVERED`, or `NO_SUBSCRIBER`.

        Waits while the queue behind the window is full.

        Raises:
            LinkDown: there is no connection, or it ended before the PUBACK; the message may have arrived.
            PublishRefused: the broker answered with a failure.
            MessageTooLarge: the packet would exceed the broker's bound or our own.
        """
        acked: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

        def on_ack(code: int | None) -> None:
            if not acked.done():
                acked.set_result(code)

        while True:
            session = self._current()
            try:
                session.publish(topic, payload, retain=retain, on_ack=on_ack)
                break
            except LinkBusy:
                await session.room()
        code = await acked
        if code is None:
            raise LinkDown(f"{topic}: the connection ended before the broker acknowledged")
        if code >= FAILURE:
            raise PublishRefused(topic, reason_code=code, reason=reason_name(code))
        return code

    def publish_nowait(self, topic: str, payload: bytes, *, retain: bool = False, on_ack: OnAck | None = None) -> None:
        """Publish without a future: `on_ack` gets the PUBACK's reason code, or None when the connection ended.

        Raises:
            LinkDown, LinkBusy, MessageTooLarge: at once; `on_ack` is then not called.
        """
        self._current().publish(topic, payload, retain=retain, on_ack=on_ack)

    async def subscribe(self, filter_: str, handler: Handler) -> None:
        """Add a subscription, or give an existing one another handler; it is made again on each connection.

        While connected, it returns when the broker has acknowledged it; else at once.

        Raises:
            SubscribeRefused: the broker refused; the subscription is not kept.
        """
        self._subscriptions[filter_] = _Subscription(filter_, handler)
        self._routes.clear()
        session = self._session
        if session is None or not session.up:
            return
        try:
            await session.subscribe([filter_])
        except LinkDown:
            # An answer that does not come is a broken connection; the next one makes the subscription.
            session.abort("no answer to SUBSCRIBE")
        except NereidError:
            self._subscriptions.pop(filter_, None)
            self._routes.clear()
            raise

    async def unsubscribe(self, filter_: str) -> None:
        """Remove a subscription; its handler gets no further message."""
        self._subscriptions.pop(filter_, None)
        self._routes.clear()
        session = self._session
        if session is None or not session.up:
            return
        try:
            await session.unsubscribe(filter_)
        except LinkDown:
            session.abort("no answer to UNSUBSCRIBE")

    def abort(self) -> None:
        """Drop the connection without DISCONNECT, so that the broker publishes the will; it is made again."""
        if self._session is not None:
            self._session.abort("aborted")

    def _current(self) -> Session:
        session = self._session
        if session is None or not session.up:
            raise LinkDown(self.last_error or "not connected")
        return session

    async def _supervise(self) -> None:
        tries = Reconnects(tls=self.settings.tls is not None, patience_s=self.settings.connect_timeout_s)
        while True:
            self._up_since = math.inf
            try:
                await self._live_one_connection(tries.patience_s)
            except NereidError as error:
                self._tell(str(error))
            except Exception:  # the supervisor: on_connect's mistake ends one connection, not the link
                logger.exception("connection given up", extra={"client_id": self.settings.client_id})
                self.last_error = "on_connect raised"
            await asyncio.sleep(tries.pause_s(lasted_s=max(0.0, time.monotonic() - self._up_since)))

    async def _live_one_connection(self, patience_s: float) -> None:
        number = self.connections + 1
        will = self._will(number) if callable(self._will) else self._will
        session = Session(replace(self.settings, connect_timeout_s=patience_s), will=will, on_message=self._on_message)
        try:
            try:
                await session.open()
            finally:
                if session.sent_connect:
                    self.connections = number
            self._session = session
            if self._subscriptions:
                await session.subscribe(list(self._subscriptions))
            if self._on_connect is not None:
                await _unless_ended(self._on_connect(self), session)
            if session.up:
                self.last_error = ""
                self._up_since = time.monotonic()
                self._is_down.clear()
                self._is_up.set()
                logger.info("connected", extra={"client_id": self.settings.client_id, "connection": number})
            self._tell(await asyncio.shield(session.ended))
        except asyncio.CancelledError:
            await session.leave()
            raise
        finally:
            session.abort("given up")
            self._session = None
            self._is_up.clear()
            self._is_down.set()

    def _tell(self, problem: str) -> None:
        # Once per problem: a broker that is away for an hour is one line, not hundreds.
        if problem != self.last_error:
            logger.warning("no connection", extra={"client_id": self.settings.client_id, "problem": problem})
        self.last_error = problem

    def _on_message(self, session: Session, raw: Received) -> None:
        try:
            topic = raw.topic.decode()
        except UnicodeDecodeError as error:
            self._count_failure("", MessageInvalid(f"topic: {error}"))
            session.ack(raw.mid)
            return
        message = Message(topic, raw.payload, raw.retain)
        subscription = self._route(message.topic)
        if subscription is None:
            self.unrouted += 1
            session.ack(raw.mid)
            return
        try:
            unfinished = subscription.handler(message)
        except Exception as error:  # noqa: BLE001 - one message must not end the link; logged with its traceback
            self._count_failure(message.topic, error)
            unfinished = None
        if unfinished is None:
            session.ack(raw.mid)
            return
        subscription.unfinished.append(_Unfinished(unfinished, session, raw.mid, message.topic))
        self._bound(subscription)
        if len(subscription.unfinished) == 1:
            task = asyncio.create_task(self._finish(subscription), name=f"link handler {subscription.filter}")
            self._finishers.add(task)
            task.add_done_callback(self._finishers.discard)

    def _bound(self, subscription: _Subscription) -> None:
        # What is left over from ended connections piles up where a handler hangs while the connection comes and goes.
        # The first is being awaited; those of this connection are the broker's to bound (2.0.11 goes beyond our
        # ReceiveMaximum at times), and dropping one would leave it unacknowledged for good.
        if len(subscription.unfinished) <= 2 * self.settings.receive_max:
            return
        for number, one in enumerate(subscription.unfinished):
            if number > 0 and one.session is not self._session:
                del subscription.unfinished[number]
                _discard(one)
                self.overflowed += 1
                logger.warning("message of an ended connection dropped", extra={"topic": one.topic})
                return

    async def _finish(self, subscription: _Subscription) -> None:
        while subscription.unfinished:
            one = subscription.unfinished[0]
            try:
                await one.awaitable
            except asyncio.CancelledError:
                if self._left:
                    raise
                logger.warning("handler was cancelled", extra={"topic": one.topic})
            except Exception as error:  # noqa: BLE001 - as in _on_message
                self._count_failure(one.topic, error)
            subscription.unfinished.popleft()
            one.session.ack(one.mid)

    def _count_failure(self, topic: str, error: Exception) -> None:
        if isinstance(error, MessageInvalid | MessageTooLarge):
            self.dead_letters += 1
            logger.warning("dead letter", extra={"topic": topic, "problem": str(error)})
        else:
            self.failures += 1
            logger.error("handler raised", extra={"topic": topic}, exc_info=error)

    def _route(self, topic: str) -> _Subscription | None:
        try:
            return self._routes[topic]
        except KeyError:
            pass
        if len(self._routes) >= _ROUTES_KEPT:
            self._routes.clear()
        candidates = self._subscriptions.values()
        found = next((one for one in candidates if topic_matches_sub(one.pattern, topic)), None)
        self._routes[topic] = found
        return found


async def _unless_ended(work: Awaitable[None], session: Session) -> None:
    """Await `work`, and cancel it when the session ends first."""
    task: asyncio.Future[None] = asyncio.ensure_future(work)
    both: tuple[asyncio.Future[Any], ...] = (task, session.ended)
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _discard(unfinished: _Unfinished) -> None:
    """Drop what was not begun, so that no coroutine warns that it was never awaited."""
    if inspect.iscoroutine(unfinished.awaitable):
        unfinished.awaitable.close()
    elif isinstance(unfinished.awaitable, asyncio.Future):
        unfinished.awaitable.cancel()
