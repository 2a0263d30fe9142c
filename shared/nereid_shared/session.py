# SPDX-License-Identifier: Apache-2.0
"""One MQTT 5 connection: paho's client, driven by the event loop. `nereid_shared.link` makes one per connection.

paho parses and writes packets; this module owns the socket's readiness, the window of unacknowledged publishes and
the time-outs. paho calls back while it holds a lock that is not reentrant, so its callbacks only note what happened;
the notes are worked off after it has returned. Nothing here reconnects, and a session that has ended is never reused.
"""

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MessageType, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from nereid_shared import topics
from nereid_shared.errors import LinkBusy, LinkDown, MessageTooLarge, SubscribeRefused
from nereid_shared.link_settings import LinkSettings, Will

logger = logging.getLogger(__name__)

OnAck = Callable[[int | None], None]

# A PUBACK's reason codes; 0x80 and above are failures in every MQTT 5 packet.
DELIVERED: Final = 0x00
NO_SUBSCRIBER: Final = 0x10
FAILURE: Final = 0x80

# Fixed header 5, topic length 2, packet id 2, properties 1: we send none.
_PUBLISH_OVERHEAD_BYTES: Final = 10
# One busy connection must not starve the loop's other sockets.
_READS_PER_TURN: Final = 32
_GOODBYE_TIMEOUT_S: Final = 1.0
_READ_AHEAD_BYTES: Final = 16_384
_QOS_BITS: Final = 0x06
_QOS_1: Final = 0x02
_PUBACK_HEAD: Final = b"\x40\x02"  # type, and two more bytes: no reason is success, no length is no properties


class Received(NamedTuple):
    """One PUBLISH as it came; the topic need not be text."""

    topic: bytes
    payload: bytes
    retain: bool
    mid: int


@dataclass(frozen=True, slots=True)
class _Queued:
    topic: str
    payload: bytes
    retain: bool
    on_ack: OnAck | None


class _Client(Client):
    """paho's client with two changes: cheap packets, and a TLS handshake that fails or is cancelled leaks no socket.

    What nearly every packet is (a PUBLISH without properties, its PUBACK) goes past paho's bookkeeping for
    retransmission, of which a session that never resumes has no use, and past its objects, locks and single-byte
    reads: two thirds of what a message costs.
    """

    tls: ssl.SSLContext | None = None
    on_plain: Callable[[Received], None]
    on_puback: Callable[[int, int], None]
    _opening: socket.socket | None = None
    _given_up = False
    _ahead = b""
    _ahead_at = 0

    @property
    def has_read_ahead(self) -> bool:
        """Whether bytes that were read from the socket wait for `loop_read`."""
        return self._ahead_at < len(self._ahead)

    def next_mid(self) -> int:
        """Return the next packet id; SUBSCRIBE takes its own from the same row."""
        return self._mid_generate()

    def send_plain(self, mid: int, topic: bytes, payload: bytes, retain: bool) -> bool:
        """Write a PUBLISH of QoS 1; False where the connection is gone.

        Raises:
            ValueError: the topic is none that one can publish to.
        """
        self._raise_for_invalid_topic(topic)
        code = self._send_publish(mid, topic, payload, topics.QOS, retain)
        return code == MQTTErrorCode.MQTT_ERR_SUCCESS

    def send_acks(self, acks: bytes) -> None:
        """Write several PUBACKs at once."""
        self._packet_queue(MessageType.PUBACK, acks, 0, topics.QOS)

    def _sock_recv(self, bufsize: int) -> bytes:
        if not self.has_read_ahead:
            came = super()._sock_recv(max(bufsize, _READ_AHEAD_BYTES))
            if len(came) <= bufsize:
                return came
            self._ahead, self._ahead_at = came, 0
        start = self._ahead_at
        self._ahead_at = min(start + bufsize, len(self._ahead))
        return self._ahead[start : self._ahead_at]

    def _handle_publish(self) -> MQTTErrorCode:
        command, packet = self._in_packet["command"], self._in_packet["packet"]
        end = 2 + int.from_bytes(packet[:2], "big")
        # After topic and packet id: the properties' length.
        if command & _QOS_BITS != _QOS_1 or packet[end + 2 : end + 3] != b"\x00":
            return super()._handle_publish()
        payload = bytes(memoryview(packet)[end + 3 :])
        mid = int.from_bytes(packet[end : end + 2], "big")
        self.on_plain(Received(bytes(packet[2:end]), payload, bool(command & 1), mid))
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _handle_pubackcomp(self, cmd: Literal["PUBACK", "PUBCOMP"]) -> MQTTErrorCode:
        packet = self._in_packet["packet"]
        if cmd != "PUBACK" or len(packet) < 2:
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        self.on_puback(int.from_bytes(packet[:2], "big"), packet[2] if len(packet) > 2 else 0)
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def cancel_opening(self) -> None:
        """End a handshake that runs in another thread, or is about to begin there."""
        self._given_up = True
        opening = self._opening
        if opening is not None:
            with contextlib.suppress(OSError):
                # Not SSLSocket's own, which would take the TLS state from under the handshake.
                socket.socket.shutdown(opening, socket.SHUT_RDWR)

    def _create_socket(self) -> socket.socket:
        sock = socket.create_connection((self.host, self.port), timeout=self.connect_timeout)
        if self.tls is None:
            return sock
        try:
            sock = self.tls.wrap_socket(sock, server_hostname=self.host, do_handshake_on_connect=False)
            self._opening = sock
            if self._given_up:
                raise ConnectionAbortedError("given up")
            sock.do_handshake()
        except BaseException:
            sock.close()
            raise
        finally:
            self._opening = None
        return sock


class Session:
    """One connection from CONNECT to its end.

    Args:
        settings: see `LinkSettings`.
        will: see `Will`.
        on_message: gets each message; the receiver calls `ack` once it has been processed.

    Attributes:
        ended: done when the connection is gone, with the reason as its result.
        sent_connect: whether the broker may have seen the CONNECT, and holds our will.
    """

    def __init__(
        self, settings: LinkSettings, *, will: Will | None, on_message: Callable[["Session", Received], None]
    ) -> None:
        self._settings = settings
        self._on_message = on_message
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[str] = self._loop.create_future()
        self.sent_connect = False
        self._up = False
        self._notes: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._connack: asyncio.Future[Properties | None] = self._loop.create_future()
        self._answers: dict[int, asyncio.Future[list[ReasonCode]]] = {}
        self._inflight: dict[int, OnAck | None] = {}
        self._queued: deque[_Queued] = deque()
        self._queued_bytes = 0
        self._room = asyncio.Event()
        self._room.set()
        self._window = settings.max_inflight
        self._limit_bytes = settings.max_packet_bytes
        self._socket: socket.socket | None = None
        self._registered = False
        self._writing = False
        self._reading = False
        self._acks = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._client = self._make_client(will)

    @property
    def up(self) -> bool:
        """Whether the broker has accepted the connection and it has not ended."""
        return self._up

    async def open(self) -> None:
        """Connect, and return when the broker has accepted.

        Raises:
            LinkDown: no connection, no answer in time, or the broker refused; the message says which.
        """
        attempt: Future[None] = Future()
        attempt.set_running_or_notify_cancel()
        # A daemon: a name server or a TLS peer that hangs must not hold up the end of the process.
        threading.Thread(target=self._connect_for, args=(attempt,), name="link-connect", daemon=True).start()
        try:
            await asyncio.wrap_future(attempt)
        except asyncio.CancelledError:
            # The thread cannot be stopped: end its handshake, and close what it has opened once it is done.
            self._client.cancel_opening()
            attempt.add_done_callback(lambda _: self._close_unregistered())
            raise
        except (OSError, ValueError) as error:
            raise LinkDown(f"{self._settings.host}:{self._settings.port}: {error}") from error
        self.sent_connect = True
        self._register()
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                limits = await self._connack
        except TimeoutError as error:
            raise LinkDown("the broker did not answer CONNECT") from error
        self._limit_bytes = min(self._limit_bytes, getattr(limits, "MaximumPacketSize", self._limit_bytes))
        self._window = min(self._window, getattr(limits, "ReceiveMaximum", self._window))

    async def subscribe(self, filters: Sequence[str]) -> None:
        """Subscribe, and return when the broker has acknowledged every filter.

        Raises:
            SubscribeRefused: the broker refused one of them.
            LinkDown: the connection ended first, or no answer came in time.
        """
        self._require_up()
        options = SubscribeOptions(qos=topics.QOS)
        try:
            code, mid = self._client.subscribe([(filter_, options) for filter_ in filters])
        except ValueError as error:
            raise SubscribeRefused(f"{filters}: {error}") from error
        reasons = await self._answer(code, mid, "SUBSCRIBE")
        refused = {f: str(r) for f, r in zip(filters, reasons, strict=False) if r.value >= FAILURE}
        if refused:
            raise SubscribeRefused(f"the broker refused {refused}")

    async def unsubscribe(self, filter_: str) -> None:
        """Unsubscribe, and return when the broker has acknowledged it.

        Raises:
            LinkDown: the connection ended first, or no answer came in time.
        """
        self._require_up()
        code, mid = self._client.unsubscribe(filter_)
        await self._answer(code, mid, "UNSUBSCRIBE")

    def publish(self, topic: str, payload: bytes, *, retain: bool, on_ack: OnAck | None) -> None:
        """Send, or queue behind the window; `on_ack` gets the PUBACK's reason code, or None when the connection ends.

        Raises:
            LinkDown, LinkBusy, MessageTooLarge: nothing was sent and `on_ack` will not be called.
        """
        self._require_up()
        self._check_size(topic, payload)
        if len(self._inflight) < self._window and not self._queued:
            self._send(topic, payload, retain, on_ack)
            return
        if not self._room.is_set():
            raise LinkBusy(f"{topic}: {len(self._queued)} publishes wait for the broker")
        self._queued.append(_Queued(topic, payload, retain, on_ack))
        self._queued_bytes += len(payload)
        self._note_room()

    async def room(self) -> None:
        """Return when `publish` would not raise `LinkBusy`, or the connection has ended."""
        await self._room.wait()

    def ack(self, mid: int) -> None:
        """Acknowledge a message of this connection; without effect after its end."""
        if self._up:
            self._acks += _PUBACK_HEAD + mid.to_bytes(2, "big")
            # Those of one turn travel together: a write costs more than all else about an acknowledgement.
            if not self._reading:
                self._send_acks()

    def _send_acks(self) -> None:
        if self._acks and self._up:
            self._client.send_acks(bytes(self._acks))
            self._flush_later()
        self._acks.clear()

    async def leave(self) -> None:
        """Send DISCONNECT and return when the broker has closed the connection: the will is then discarded."""
        if not self._up or self._socket is None:
            self.abort("left")
            return
        # A duplicate keeps the connection open while paho closes its own: a close with unread data would reset it,
        # and the broker could then miss the DISCONNECT and publish the will.
        with socket.socket(fileno=os.dup(self._socket.fileno())) as duplicate:
            duplicate.setblocking(False)
            self._client.disconnect()
            self._flush_later()
            try:
                async with asyncio.timeout(_GOODBYE_TIMEOUT_S):
                    await asyncio.shield(self.ended)
                    while await self._loop.sock_recv(duplicate, 65_536):
                        pass
            except (TimeoutError, OSError):
                logger.debug("the broker did not close in time")
            finally:
                self.abort("left")

    def abort(self, reason: str) -> None:
        """Close without DISCONNECT: the broker publishes the will."""
        self._unregister()
        self._close_unregistered()
        self._end(reason)

    def _make_client(self, will: Will | None) -> "_Client":
        settings = self._settings
        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=settings.client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.connect_timeout = settings.connect_timeout_s
        if settings.username:
            client.username_pw_set(settings.username, settings.password or None)
        if will is not None:
            client.will_set(will.topic, will.payload, qos=topics.QOS, retain=will.retain)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = lambda _client, _data, message: self._note(self._deliver, _received(message))
        client.on_plain = lambda received: self._note(self._deliver, received)
        client.on_puback = lambda mid, code: self._note(self._acked, mid, code)
        client.on_subscribe = lambda _client, _data, mid, codes, _properties: self._note(self._answered, mid, codes)
        client.on_unsubscribe = client.on_subscribe
        return client

    def _connect_for(self, attempt: Future[None]) -> None:
        try:
            self._connect()
        except (OSError, ValueError) as error:
            attempt.set_exception(error)
        else:
            attempt.set_result(None)

    def _connect(self) -> None:
        """Open TCP and TLS and write CONNECT; blocking, runs in a thread of its own."""
        settings, client = self._settings, self._client
        if settings.tls is not None:
            client.tls = settings.tls.context()
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.ReceiveMaximum = settings.receive_max
        properties.MaximumPacketSize = settings.max_packet_bytes
        # No TopicAliasMaximum: paho would hand out messages with empty topics.
        client.connect_async(
            settings.host, settings.port, keepalive=settings.keepalive_s, clean_start=True, properties=properties
        )
        # One side alone with Nagle's algorithm adds 44 ms to each round trip.
        client.on_socket_open = _without_delay
        client.reconnect()

    def _register(self) -> None:
        sock = self._client.socket()
        if not isinstance(sock, socket.socket):
            raise LinkDown("the broker closed the connection at once")
        self._socket, self._registered = sock, True
        self._client.on_socket_close = lambda _client, _data, _sock: self._unregister()
        self._loop.add_reader(sock, self._readable)
        self._tick()

    def _unregister(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        sock, self._socket = self._socket, None
        if sock is not None:
            self._loop.remove_reader(sock)
            self._loop.remove_writer(sock)
        self._writing = False

    def _close_unregistered(self) -> None:
        self._client.on_socket_close = None
        sock = self._client.socket()
        if sock is not None:
            sock.close()

    def _readable(self) -> None:
        self._reading = True
        for _ in range(_READS_PER_TURN):
            self._client.loop_read()
            progress = bool(self._notes)
            self._work_off_notes()
            # Once more after progress: what came meanwhile is cheaper to take now than with a wake-up of its own.
            if self._socket is None or not (progress or self._buffered()):
                break
        else:
            if self._buffered():
                self._loop.call_soon(self._readable_again)
        self._reading = False
        self._send_acks()
        self._flush_later()

    def _readable_again(self) -> None:
        if self._socket is not None:
            self._readable()

    def _buffered(self) -> bool:
        # What was read ahead, or a TLS record that was read in part, no longer makes the socket readable.
        return self._client.has_read_ahead or (isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0)

    def _writable(self) -> None:
        self._client.loop_write()
        if self._socket is not None and not self._client.want_write():
            self._writing = False
            self._loop.remove_writer(self._socket)

    def _flush_later(self) -> None:
        # paho writes at once; what the socket did not take waits here for it to become writable.
        if not self._writing and self._socket is not None and self._client.want_write():
            self._writing = True
            self._loop.add_writer(self._socket, self._writable)

    def _tick(self) -> None:
        self._client.loop_misc()
        if self._socket is not None:
            self._flush_later()
            self._timer = self._loop.call_later(min(1.0, self._settings.keepalive_s / 4), self._tick)

    def _note(self, what: Callable[..., None], *args: Any) -> None:
        self._notes.append((what, args))

    def _work_off_notes(self) -> None:
        while self._notes:
            what, args = self._notes.popleft()
            what(*args)

    def _on_connect(
        self, _client: Client, _data: Any, _flags: ConnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        if self._connack.done():
            return
        if code.is_failure:
            self._connack.set_exception(LinkDown(f"the broker refused the connection: {code}"))
        else:
            self._up = True
            self._connack.set_result(properties)

    def _on_disconnect(
        self, _client: Client, _data: Any, flags: DisconnectFlags, code: ReasonCode, _properties: Properties | None
    ) -> None:
        if not self._registered:
            return  # still in the connecting thread, whose own outcome says it
        self._up = False
        who = "the broker disconnected us" if flags.is_disconnect_packet_from_server else "connection lost"
        self._loop.call_soon(self._end, f"{who}: {code}")

    def _deliver(self, message: Received) -> None:
        self._on_message(self, message)

    def _acked(self, mid: int, code: int) -> None:
        on_ack = self._inflight.pop(mid, None)
        while self._queued and len(self._inflight) < self._window and self._up:
            queued = self._queued.popleft()
            self._queued_bytes -= len(queued.payload)
            try:
                self._send(queued.topic, queued.payload, queued.retain, queued.on_ack)
            except LinkDown:
                self._queued.appendleft(queued)
                break
        self._note_room()
        _report(on_ack, code)

    def _answered(self, mid: int, codes: list[ReasonCode]) -> None:
        answer = self._answers.pop(mid, None)
        if answer is not None and not answer.done():
            answer.set_result(codes)

    async def _answer(self, code: MQTTErrorCode, mid: int | None, what: str) -> list[ReasonCode]:
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS or mid is None:
            raise LinkDown(f"{what}: {code.name}")
        answer = self._answers[mid] = self._loop.create_future()
        self._flush_later()
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                codes: list[ReasonCode] = await answer
                return codes
        except TimeoutError as error:
            raise LinkDown(f"the broker did not answer {what}") from error
        finally:
            self._answers.pop(mid, None)

    def _check_size(self, topic: str, payload: bytes) -> None:
        """Raise `MessageTooLarge` where the packet would exceed the broker's bound or our own."""
        name_bytes = len(topic) if topic.isascii() else len(topic.encode())
        overhead = _PUBLISH_OVERHEAD_BYTES + name_bytes
        if len(payload) + overhead > self._limit_bytes:
            raise MessageTooLarge(topic, size_bytes=len(payload), limit_bytes=self._limit_bytes - overhead)

    def _send(self, topic: str, payload: bytes, retain: bool, on_ack: OnAck | None) -> None:
        mid = self._next_mid()
        if not self._client.send_plain(mid, topic.encode(), payload, retain):
            raise LinkDown(f"{topic}: the connection ended")
        self._inflight[mid] = on_ack
        self._flush_later()

    def _next_mid(self) -> int:
        # After 65,535 further packets an id can meet an old one that is still in flight.
        while (mid := self._client.next_mid()) in self._inflight:
            pass
        return mid

    def _note_room(self) -> None:
        settings = self._settings
        if len(self._queued) < settings.max_queued and self._queued_bytes < settings.max_queued_bytes:
            self._room.set()
        else:
            self._room.clear()

    def _require_up(self) -> None:
        if not self._up:
            raise LinkDown("not connected")

    def _end(self, reason: str) -> None:
        self._up = False
        if self.ended.done():
            return
        self.ended.set_result(reason)
        if not self._connack.done():
            self._connack.set_exception(LinkDown(reason))
            # Where nobody waits for it any more, its exception counts as seen.
            self._connack.exception()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(LinkDown(reason))
        waiting = [*self._inflight.values(), *(queued.on_ack for queued in self._queued)]
        self._inflight.clear()
        self._queued.clear()
        self._room.set()
        for on_ack in waiting:
            _report(on_ack, None)


def _received(message: MQTTMessage) -> Received:
    return Received(message._topic, bytes(message.payload), message.retain, message.mid)


def _without_delay(_client: Client, _data: Any, sock: Any) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _report(on_ack: OnAck | None, code: int | None) -> None:
    if on_ack is None:
        return
    try:
        on_ack(code)
    except Exception:  # the caller's mistake must not end everybody's connection
        logger.exception("on_ack raised")


def reason_name(code: int) -> str:
    """Return the name of a PUBACK's reason code, or its number where MQTT 5 has none for it."""
    try:
        return str(ReasonCode(PacketTypes.PUBACK, identifier=code))
    except KeyError:
        return f"reason {code}"
