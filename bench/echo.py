# SPDX-License-Identifier: Apache-2.0
"""The baselines of `bench.round_trip`: bare paho clients that echo through two brokers and a relay.

``python -m bench.echo relay EDGE_PORT CLOUD_PORT`` forwards between two brokers, ``python -m bench.echo answer
CLOUD_PORT`` answers; both end with SIGTERM, and serve two kinds of topics. Below ``bench/up`` paho runs as its
documentation has it, with ``loop_start``, callbacks that publish, and a caller that waits for a queue. Below
``floor/up`` one thread over `select` does everything in the turn in which a message came: no thread is ever woken,
which no client with an API for other threads can do.
"""

import queue
import select
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import cv2
import numpy as np
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

# Whole answers are as long as what was sent, short ones as long as the product's own; "decoded" ones cost a codec.
WHOLE: Final = "whole"
SHORT: Final = "short"
DECODED: Final = "decoded"
THREADS: Final = "bench"
SELECT: Final = "floor"
SHORT_BYTES: Final = 300
_TIMEOUT_S: Final = 10.0

OnMessage = Callable[["ThreadedClient", str, bytes], None]


class ThreadedClient:
    """paho's client as it is meant to be used: a network thread of its own, TCP_NODELAY, at most one subscription.

    Args:
        on_message: called in the network thread; by default messages wait for `receive`.
    """

    def __init__(self, port: int, subscription: str = "", *, on_message: OnMessage | None = None) -> None:
        self._came: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._ready = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.on_socket_open = _without_delay
        self._client.on_connect = self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.connect("127.0.0.1", port, keepalive=0)
        self._client.loop_start()
        self._wait()
        if subscription:
            self.subscribe(subscription, on_message or (lambda _self, _topic, payload: self._came.put(payload)))

    def subscribe(self, filter_: str, on_message: OnMessage) -> None:
        """Subscribe, and return when the broker has acknowledged it."""
        self._client.on_message = lambda _client, _data, it: on_message(self, it.topic, bytes(it.payload))
        self._client.subscribe(filter_, 1)
        self._wait()

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish with QoS 1."""
        self._client.publish(topic, payload, 1)

    def receive(self) -> bytes:
        """Return the next message's payload."""
        return self._came.get(timeout=_TIMEOUT_S)

    def _wait(self) -> None:
        assert self._ready.wait(_TIMEOUT_S), "the broker does not answer"
        self._ready.clear()


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
    role, way, ports = sys.argv[1], sys.argv[2], [int(port) for port in sys.argv[3:]]
    up, down = f"{way}/up/#", f"{way}/down"
    if way == THREADS:
        if role == "relay":
            _relay_in_threads(ports[0], ports[1], up, down)
        else:
            _answer_in_threads(ports[0], up, down)
        signal.pause()
    elif role == "relay":
        _relay(BareClient(ports[0], up), BareClient(ports[1], down))
    else:
        _answer(BareClient(ports[0], up), down)


def _relay_in_threads(edge_port: int, cloud_port: int, up: str, down: str) -> None:
    # Nothing comes down before something went up, which needs both.
    edge = ThreadedClient(edge_port)
    cloud = ThreadedClient(cloud_port, down, on_message=lambda _self, topic, payload: edge.publish(topic, payload))
    edge.subscribe(up, lambda _self, topic, payload: cloud.publish(topic, payload))


def _answer_in_threads(port: int, up: str, down: str) -> None:
    ThreadedClient(port, up, on_message=lambda self, topic, payload: self.publish(down, _echo(topic, payload)))


def _echo(topic: str, payload: bytes) -> bytes:
    """Return the answer to what came, as its topic's last level asks for it."""
    kind = topic.rpartition("/")[2]
    if kind == DECODED:
        decode(payload)
    return payload if kind == WHOLE else payload[:SHORT_BYTES]


def _relay(edge: BareClient, cloud: BareClient) -> None:
    while True:
        for client in select.select([edge, cloud], [], [])[0]:
            client.read()
            while client.came:
                (cloud if client is edge else edge).publish(*client.came.popleft())


def _answer(cloud: BareClient, down: str) -> None:
    while True:
        select.select([cloud], [], [])
        cloud.read()
        while cloud.came:
            cloud.publish(down, _echo(*cloud.came.popleft()))


def _without_delay(_client: Client, _data: Any, sock: Any) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


if __name__ == "__main__":
    main()
