# SPDX-License-Identifier: Apache-2.0
"""One MQTT 5 connection in as little as it takes, so that a process can hold thousands of them.

QoS 1 both ways, clean start, a will, subscriptions given up front. No retries and no flow control of its own: what a
real client does beyond this costs the client, not the broker or the GlobalManager that are measured.
"""

import asyncio
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Final, Protocol, cast

_CONNECT: Final = 0x10
_CONNACK: Final = 0x20
_PUBLISH: Final = 0x30
_PUBACK: Final = 0x40
_SUBSCRIBE: Final = 0x82
_SUBACK: Final = 0x90
_PINGREQ: Final = b"\xc0\x00"
_RETAIN: Final = 0x01
_QOS_1: Final = 0x02
# Clean start; a will of QoS 1 that is retained.
_CONNECT_FLAGS: Final = 0x02 | 0x04 | 0x08 | 0x20
_NO_PROPERTIES: Final = b"\x00"


class Peer(Protocol):
    """Who speaks through a connection."""

    def on_ready(self) -> None:
        """The subscriptions are acknowledged."""

    def on_message(self, topic: str, payload: bytes, *, retained: bool) -> None:
        """A message came; it is acknowledged when this returns."""

    def on_lost(self) -> None:
        """The connection is gone, or the broker refused it."""


class Wire(asyncio.Protocol):
    """The connection; `open_wire` makes one."""

    def __init__(
        self, peer: Peer, *, client_id: str, will: tuple[str, bytes], subscriptions: Sequence[str], keepalive_s: int
    ) -> None:
        self._peer, self._client_id, self._will = peer, client_id, will
        self._subscriptions, self._keepalive_s = subscriptions, keepalive_s
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._numbers = cycle(range(1, 65536))
        self._unacknowledged: dict[int, Callable[[], None] | None] = {}
        self._ping: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say who it is."""
        self._transport = cast("asyncio.Transport", transport)
        topic, payload = self._will
        head = _text("MQTT") + bytes([5, _CONNECT_FLAGS]) + self._keepalive_s.to_bytes(2) + _NO_PROPERTIES
        will = _NO_PROPERTIES + _text(topic) + len(payload).to_bytes(2) + payload
        self._transport.write(_packet(_CONNECT, head + _text(self._client_id) + will))

    def connection_lost(self, _exception: Exception | None) -> None:
        """Tell the peer."""
        if self._ping is not None:
            self._ping.cancel()
        self._transport = None
        self._peer.on_lost()

    def abort(self) -> None:
        """Drop the connection without a word: the broker publishes the will."""
        if self._transport is not None:
            self._transport.abort()

    def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, on_ack: Callable[[], None] | None = None
    ) -> None:
        """Publish; `on_ack` is called at the broker's PUBACK, never where the connection goes before it."""
        if self._transport is None:
            return
        number = next(self._numbers)
        self._unacknowledged[number] = on_ack
        head = _PUBLISH | _QOS_1 | (_RETAIN if retain else 0)
        self._transport.write(_packet(head, _text(topic) + number.to_bytes(2) + _NO_PROPERTIES + payload))

    def data_received(self, data: bytes) -> None:
        """Take whatever packets are complete."""
        buffer = self._buffer
        buffer += data
        start = 0
        while (found := _header(buffer, start)) is not None:
            body, end = found
            if end > len(buffer):
                break
            self._take(buffer[start], bytes(buffer[body:end]))
            start = end
        del buffer[:start]

    def _take(self, kind: int, body: bytes) -> None:
        if kind & 0xF0 == _PUBLISH:
            self._take_message(kind, body)
        elif kind == _PUBACK:
            on_ack = self._unacknowledged.pop(int.from_bytes(body[:2]), None)
            if on_ack is not None:
                on_ack()
        elif kind == _CONNACK and body[1] == 0:
            filters = b"".join(_text(one) + b"\x01" for one in self._subscriptions)
            self._send(_packet(_SUBSCRIBE, next(self._numbers).to_bytes(2) + _NO_PROPERTIES + filters))
            self._keep_alive()
        elif kind == _CONNACK:
            self.abort()
        elif kind == _SUBACK:
            self._peer.on_ready()

    def _take_message(self, kind: int, body: bytes) -> None:
        size = int.from_bytes(body[:2])
        topic, at = body[2 : 2 + size].decode(), 2 + size
        number = body[at : at + 2] if kind & 0x06 else b""
        at += len(number)
        properties = _length(body, at)
        assert properties is not None
        self._peer.on_message(topic, body[properties[1] + properties[0] :], retained=bool(kind & _RETAIN))
        if number:
            self._send(_packet(_PUBACK, number))

    def _keep_alive(self) -> None:
        self._send(_PINGREQ)
        self._ping = asyncio.get_running_loop().call_later(self._keepalive_s, self._keep_alive)

    def _send(self, packet: bytes) -> None:
        if self._transport is not None:
            self._transport.write(packet)


async def open_wire(
    peer: Peer, *, port: int, client_id: str, will: tuple[str, bytes], subscriptions: Sequence[str], keepalive_s: int
) -> Wire:
    """Connect to a broker of this machine; what follows goes to the peer.

    Raises:
        OSError: nothing listens there.
    """
    _, wire = await asyncio.get_running_loop().create_connection(
        lambda: Wire(peer, client_id=client_id, will=will, subscriptions=subscriptions, keepalive_s=keepalive_s),
        "127.0.0.1",
        port,
    )
    return wire


def _text(value: str) -> bytes:
    encoded = value.encode()
    return len(encoded).to_bytes(2) + encoded


def _packet(head: int, body: bytes) -> bytes:
    length, left = bytearray(), len(body)
    while True:
        left, low = left >> 7, left & 0x7F
        length.append(low | (0x80 if left else 0))
        if not left:
            return bytes([head]) + length + body


def _header(buffer: bytearray, start: int) -> tuple[int, int] | None:
    """Return where a packet's body begins and ends, None where that cannot be told yet."""
    found = _length(buffer, start + 1) if start < len(buffer) else None
    return None if found is None else (found[1], found[1] + found[0])


def _length(data: bytes | bytearray, at: int) -> tuple[int, int] | None:
    """Return a variable-length integer and where what follows it begins; None where it is incomplete."""
    value = shift = 0
    while at < len(data):
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at
    return None
