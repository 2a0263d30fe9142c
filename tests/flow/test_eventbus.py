# SPDX-License-Identifier: Apache-2.0
"""LocalController and worker on the broker that KubeEdge's EventBus uses too: neither sees nor disturbs the other."""

import asyncio
import getpass
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from msgspec.structs import replace
from paho.mqtt.enums import CallbackAPIVersion
from tests.conftest import MosquittoFactory
from tests.edge.peers import CloudPeer, GmPeer, Lab, answered_by_the_ledger
from tests.edge.rows import SERVICE_ID, SERVICE_UID, WORKER, document, service_row
from tests.mosquitto import Mosquitto, free_port
from tests.worker.scenes import EASY, HARD, Worker, running, write_dataset, write_model

from nereid_shared.digests import task_hash
from nereid_shared.messages import TaskRow

pytestmark = pytest.mark.slow  # each test starts processes

TIMEOUT_S = 30.0

# As EventBus subscribes (v1.23), with one Rule for the topic `orders` of namespace `default`.
SUBSCRIPTIONS = (
    "$hw/events/device/+/+/state/update",
    "$hw/events/device/+/+/twin/+",
    "$hw/events/node/+/membership/get",
    "$hw/events/upload/#",
    "SYS/dis/upload_records",
    "+/user/#",
    "default/orders",
)
# What devices say to it, and what it says to them.
TO_EVENTBUS = (
    "$hw/events/device/default/camera/state/update",
    "$hw/events/device/default/camera/twin/update",
    "$hw/events/device/default/camera/twin/get",
    "$hw/events/node/edge-0/membership/get",
    "$hw/events/upload/records",
    "SYS/dis/upload_records",
    "factory/user/line/1",
    "default/orders",
)
FROM_EVENTBUS = (
    "$hw/events/device/default/camera/state/update/result",
    "$hw/events/device/default/camera/twin/update/delta",
    "$hw/events/node/edge-0/membership/updated",
    "default/alarms",
)


class Client:
    """One of EventBus's connections, or a device's: MQTT 3.1.1, clean session, anonymous."""

    def __init__(self, broker: Mosquitto, name: str, *filters: str) -> None:
        self.got: list[str] = []
        self.disconnects = 0
        self._ready, self._loop = asyncio.Event(), asyncio.get_running_loop()
        self._filters, self._broker = filters, broker
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=f"{name}-{time.time_ns()}", clean_session=True,
            protocol=mqtt.MQTTv311,
        )  # fmt: skip
        self._client.on_connect = lambda *_: self._subscribe()
        self._client.on_subscribe = lambda *_: self._is_ready()
        self._client.on_message = lambda _client, _data, message: self.got.append(message.topic)
        self._client.on_disconnect = lambda *_: self._count()

    async def __aenter__(self) -> "Client":
        self._client.connect(self._broker.host, self._broker.port, keepalive=30)
        self._client.loop_start()
        async with asyncio.timeout(TIMEOUT_S):
            await self._ready.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._client.on_disconnect = None
        self._client.disconnect()
        self._client.loop_stop()

    def say(self, topic: str, payload: str) -> None:
        """Publish at QoS 0, as EventBus does by default."""
        self._client.publish(topic, payload)

    def _subscribe(self) -> None:
        if self._filters:
            self._client.subscribe([(one, 1) for one in self._filters])
        else:
            self._is_ready()

    def _is_ready(self) -> None:
        self._loop.call_soon_threadsafe(self._ready.set)

    def _count(self) -> None:
        self.disconnects += 1


@pytest.fixture
def node_broker(mosquitto: MosquittoFactory, tmp_path: Path) -> Mosquitto:
    """A broker as KubeEdge ships it: anonymous, no ACL, all defaults."""
    port = free_port()
    config = tmp_path / "eventbus.conf"
    config.write_text(f"user {getpass.getuser()}\nlistener {port} 127.0.0.1\nallow_anonymous true\n")
    return mosquitto(port=port, config_file=config)


@pytest.fixture
def lab(mosquitto: MosquittoFactory, node_broker: Mosquitto, tmp_path: Path) -> Lab:
    return Lab(mosquitto(), node_broker, tmp_path / "lc")


@pytest.fixture
async def gm(lab: Lab) -> AsyncIterator[GmPeer]:
    peer = GmPeer(lab.cloud)
    async with peer.link:
        await peer.link.wait_connected()
        yield peer


@pytest.fixture
async def cloud(lab: Lab) -> AsyncIterator[CloudPeer]:
    peer = CloudPeer(lab.cloud)
    async with peer.link:
        await peer.link.wait_connected()
        yield peer


def task_of(folder: Path, greys: list[int]) -> TaskRow:
    rule = {"name": "Margin", "parameters": [{"key": "threshold", "value": "0.5"}]}
    row = service_row(dataset={"name": "frames"}, hardExampleAlgorithm=rule, deadline="1m")
    assert row.spec is not None
    refs = {
        **row.refs,
        "models": {
            "little": {
                "uid": "m", "generation": 1,
                "spec": {"modelUrl": str(write_model(folder / "model")), "format": "tflite"},
            }
        },
        "datasets": {
            "frames": {
                "uid": "d", "generation": 1,
                "spec": {"dataUrl": str(write_dataset(folder / "data", greys)), "format": "csv"},
            }
        },
    }  # fmt: skip
    return replace(row, refs=refs, hash=task_hash(row.spec, refs))


@contextmanager
def worker_on(broker: Mosquitto, folder: Path) -> Iterator[Worker]:
    env = {"NEREID_WORKER": WORKER, "NEREID_SERVICE": SERVICE_ID}
    with running(Worker(broker.url, folder / "worker", env=env)) as worker:
        yield worker


async def test_a_service_and_eventbus_share_a_broker_and_do_not_meet(
    lab: Lab, gm: GmPeer, cloud: CloudPeer, node_broker: Mosquitto, tmp_path: Path
) -> None:
    greys = [EASY, HARD, EASY, EASY, HARD] * 40
    desired = document({SERVICE_UID: task_of(tmp_path, greys)})
    stop = asyncio.Event()
    said = 0

    async def traffic(device: Client, publisher: Client) -> None:
        nonlocal said
        while not stop.is_set():
            for topic in TO_EVENTBUS:
                device.say(topic, '{"event_id": "", "timestamp": 0, "twin": {}}')
            for topic in FROM_EVENTBUS:
                publisher.say(topic, '{"twin": {}}')
            said += 1
            await asyncio.sleep(0.005)

    async with (
        Client(node_broker, "hub-client-sub", *SUBSCRIPTIONS) as subscriber,
        Client(node_broker, "hub-client-pub") as publisher,
        Client(node_broker, "mapper", *FROM_EVENTBUS) as device,
        lab.controller() as controller,
    ):
        talking = asyncio.create_task(traffic(device, publisher))
        await gm.desire(desired)
        with worker_on(node_broker, tmp_path) as worker:
            await gm.until(
                lambda: gm.ledger(SERVICE_UID).answered == 80 and answered_by_the_ledger(gm.ledger(SERVICE_UID))
            )
            events = worker.answers()
            assert worker.stop() == 0
        stop.set()
        await talking
        async with asyncio.timeout(TIMEOUT_S):
            while len(subscriber.got) < said * len(TO_EVENTBUS) or len(device.got) < said * len(FROM_EVENTBUS):
                await asyncio.sleep(0.01)
        assert controller.problem == ""
    # EventBus and its devices saw all of theirs, and nothing of ours.
    assert sorted(set(subscriber.got)) == sorted(TO_EVENTBUS)
    assert sorted(set(device.got)) == sorted(FROM_EVENTBUS)
    assert len(subscriber.got) == said * len(TO_EVENTBUS)
    assert (subscriber.disconnects, publisher.disconnects, device.disconnects) == (0, 0, 0)
    # And the service counted its own 200 frames, each once.
    ledger = gm.ledger(SERVICE_UID)
    assert (ledger.seen, ledger.hard, ledger.failed) == (200, 80, {})
    assert len([event for event in events if event["event"] == "edge"]) == 200
    assert set(cloud.seen) == set(range(1, 81))


async def test_a_node_keeps_nothing_of_eventbus_in_the_cloud(
    lab: Lab, gm: GmPeer, node_broker: Mosquitto, tmp_path: Path
) -> None:
    """The LocalController carries its own topics between the brokers, nothing else that its wildcards might catch."""
    others: list[str] = []
    await gm.link.subscribe("#", lambda message: others.append(message.topic))
    async with lab.controller(), Client(node_broker, "mapper") as device:
        await gm.until(lambda: gm.states)
        for topic in (*TO_EVENTBUS, "neptune/user/a", "workers/w/info", f"{WORKER}/info"):
            device.say(topic, "{}")
        await gm.desire(document({}))
        await gm.applied(document({}))
    assert [topic for topic in others if not topic.startswith(("neptune/nodes/edge-0/", "neptune/gm/"))] == []
