# SPDX-License-Identifier: Apache-2.0
"""The baseline of `bench.round_trip`: bare paho clients that echo through two brokers and a relay.

``python -m bench.echo relay EDGE_PORT CLOUD_PORT`` forwards between two brokers, ``python -m bench.echo answer
CLOUD_PORT`` answers; both end with SIGTERM. Each process is one thread over `select`, which publishes in the turn in
which a message came: paho's own threads would be slower, and flatter what is compared with them.
"""

import select
import socket
import sys
from collections import deque
from typing import Any, Final

import cv2
import numpy as np
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

# Whole answers are as long as what was sent, short ones as long as the product's own; "decoded" ones cost a codec.
WHOLE: Final = "bench/up/whole"
SHORT: Final = "bench/up/short"
DECODED: Final = "bench/up/decoded"
UP: Final = "bench/up/#"
DOWN: Final = "bench/down"
SHORT_BYTES: Final = 300
_TIMEOUT_S: Final = 10.0


class BareClient:
    """paho's client with TCP_NODELAY and at most one subscription, without a thread of its own."""

    def __init__(self, port: int, subscription: str = "") -> None:
        self.came: deque[tuple[str, bytes]] = deque()
        self._client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.on_socket_open = _without_delay
        self._client.on_message = self._take
        self._connected = self._subscribed = False
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.connect("127.0.0.1", port, keepalive=0)
        while not self._connected:
            self.pump()
        if subscription:
            self._client.subscribe(subscription, 1)
            while not self._subscribed:
                self.pump()

    def fileno(self) -> int:
        """The socket's, for `select`."""
        sock = self._client.socket()
        assert sock is not None, "the broker closed the connection"
        return int(sock.fileno())

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish with QoS 1; written at once."""
        self._client.publish(topic, payload, 1)
        self._flush()

    def publish_retained(self, topic: str, payload: bytes) -> None:
        """Publish with QoS 1, retained; returns when the broker has it."""
        info = self._client.publish(topic, payload, 1, retain=True)
        while not info.is_published():
            self.pump()

    def receive(self) -> bytes:
        """Return the next message's payload."""
        while not self.came:
            self.pump()
        return self.came.popleft()[1]

    def pump(self) -> None:
        """Wait for the socket and read what is there."""
        assert select.select([self], [], [], _TIMEOUT_S)[0], "the echo does not answer"
        self.read()

    def read(self) -> None:
        """Read what is there."""
        self._client.loop_read()
        self._flush()

    def _flush(self) -> None:
        while self._client.want_write():
            self._client.loop_write()

    def _take(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        self.came.append((message.topic, bytes(message.payload)))

    def _on_connect(self, *_: Any) -> None:
        self._connected = True

    def _on_subscribe(self, *_: Any) -> None:
        self._subscribed = True


def decode(payload: bytes) -> None:
    """Spend what either side of the product spends on a picture before its model."""
    picture = cv2.imdecode(np.frombuffer(payload, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    cv2.resize(picture, (8, 8), interpolation=cv2.INTER_LINEAR)


def main() -> None:
    """Serve until SIGTERM."""
    if sys.argv[1] == "relay":
        _relay(BareClient(int(sys.argv[2]), UP), BareClient(int(sys.argv[3]), DOWN))
    else:
        _answer(BareClient(int(sys.argv[2]), UP))


def _relay(edge: BareClient, cloud: BareClient) -> None:
    while True:
        for client in select.select([edge, cloud], [], [])[0]:
            client.read()
            while client.came:
                (cloud if client is edge else edge).publish(*client.came.popleft())


def _answer(cloud: BareClient) -> None:
    while True:
        select.select([cloud], [], [])
        cloud.read()
        while cloud.came:
            topic, payload = cloud.came.popleft()
            if topic == DECODED:
                decode(payload)
            cloud.publish(DOWN, payload if topic == WHOLE else payload[:SHORT_BYTES])


def _without_delay(_client: Client, _data: Any, sock: Any) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


if __name__ == "__main__":
    main()
