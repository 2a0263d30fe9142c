# SPDX-License-Identifier: Apache-2.0
"""The shipped broker configurations, each started for real, and what their ACLs allow."""

import asyncio
import socket
import ssl
import string
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import MosquittoFactory
from tests.mosquitto import Mosquitto, free_port

from nereid_shared import topics
from nereid_shared.errors import PublishRefused
from nereid_shared.link import Link, LinkSettings, Message, TlsFiles, Will

FILES = Path(__file__).parents[2] / "mosquitto"
TIMEOUT_S = 30.0
SERVICE = "helmets-0123abcd"


def test_a_broker_accepts_connections_and_comes_back_on_its_port(broker: Mosquitto) -> None:
    port, pid = broker.port, broker.pid
    broker.kill()
    assert not broker.running
    broker.start()
    assert broker.port == port
    assert broker.pid != pid
    socket.create_connection((broker.host, broker.port), timeout=TIMEOUT_S).close()


class Certificates:
    """A development CA in a folder; makes what it is asked for once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._run("server", "127.0.0.1", "localhost")

    def of(self, common_name: str) -> TlsFiles:
        cert = self.folder / f"{common_name}.crt"
        if not cert.exists():
            self._run("client", common_name)
        return TlsFiles(ca=self.folder / "ca.crt", cert=cert, key=cert.with_suffix(".key"))

    def _run(self, *args: str) -> None:
        subprocess.run([FILES / "dev-ca.sh", self.folder, *args], check=True, timeout=30)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certs"))


class Deployed:
    """A broker on a shipped configuration; `link` gives a link to it as somebody."""

    def __init__(self, broker: Mosquitto, certificates: Certificates, *, nodes: int, services: int) -> None:
        self.broker = broker
        self.nodes, self.services = nodes, services
        self._certificates = certificates

    def link(self, common_name: str, *, port: int, **options: object) -> Link:
        settings = LinkSettings.from_url(
            f"mqtts://127.0.0.1:{port}", client_id=f"{common_name}-1", tls=self._certificates.of(common_name)
        )
        return Link(settings, **options)  # type: ignore[arg-type] # the tests pass the link's own options


Deploy = Callable[[str], Deployed]


@pytest.fixture
def deploy(tmp_path: Path, mosquitto: MosquittoFactory, certificates: Certificates) -> Deploy:
    """Start a broker on a configuration for clusters, its ports and paths replaced."""

    def start(name: str) -> Deployed:
        first, second = free_port(), free_port()
        text = (FILES / name).read_text()
        for old, new in {
            "listener 8883": f"listener {first}",
            "listener 11883": f"listener {first}",
            "listener 1883": f"listener {first}",
            "listener 8884": f"listener {second}",
            "/mosquitto/certs": str(certificates.folder),
            "/mosquitto/config": str(FILES),
            "/mosquitto/data/": f"{tmp_path}/",
        }.items():
            text = text.replace(old, new)
        config = tmp_path / name
        config.write_text(text + "\nuser root\n")
        more = [second] if f"listener {second}" in text else []
        broker = mosquitto(port=first, config_file=config, more_ports=more)
        return Deployed(broker, certificates, nodes=first, services=second)

    return start


@pytest.mark.parametrize("name", ["cloud-dev.conf", "edge-dev.conf"])
async def test_the_development_configurations_carry_messages(
    name: str, tmp_path: Path, mosquitto: MosquittoFactory
) -> None:
    port = free_port()
    config = tmp_path / name
    config.write_text(string.Template((FILES / name).read_text()).substitute(port=port, state=tmp_path))
    broker = mosquitto(port=port, config_file=config)
    async with Link(LinkSettings.from_url(broker.url, client_id="c")) as link:
        await link.wait_connected()
        assert await link.publish("neptune/gm/alive", b"x" * (16 * topics.MIB + 60 * topics.KIB)) == 0x10


async def test_the_edge_configuration_lets_local_processes_speak_of_workers_only(deploy: Deploy) -> None:
    deployed = deploy("edge.conf")
    async with Link(LinkSettings.from_url(f"mqtt://127.0.0.1:{deployed.nodes}", client_id="c")) as link:
        await link.wait_connected()
        await link.publish(topics.TASK.of(worker="w"), b"{}")
        await link.publish(topics.SAMPLES.of(service=SERVICE, node="n1"), b"")
        with pytest.raises(PublishRefused):
            await link.publish(topics.DESIRED.of(node="n1"), b"{}")


async def publishes(link: Link, topic: str) -> bool:
    try:
        await link.publish(topic, b"{}")
    except PublishRefused as refused:
        return refused.reason_code != 0x87
    return True


async def test_a_node_publishes_what_is_its_own_and_nothing_else(deploy: Deploy) -> None:
    deployed = deploy("cloud.conf")
    async with deployed.link("n1", port=deployed.nodes) as node:
        await node.wait_connected()
        allowed = [
            topics.NODE_ALIVE.of(node="n1"),
            topics.STATE.of(node="n1"),
            topics.SYNC.of(node="n1"),
            topics.STATUS.of(node="n1", namespace="default", plural="jointinferenceservices", name="j"),
            topics.SAMPLES.of(service=SERVICE, node="n1"),
        ]
        forbidden = [
            topics.NODE_ALIVE.of(node="n2"),
            topics.DESIRED.of(node="n1"),
            topics.SAMPLES.of(service=SERVICE, node="n2"),
            topics.RESULTS.of(service=SERVICE, node="n1"),
            topics.CLOUD_INFO.of(service=SERVICE, pod="p"),
            topics.GM_ALIVE.of(),
            "elsewhere",
        ]
        assert [t for t in allowed if not await publishes(node, t)] == []
        assert [t for t in forbidden if await publishes(node, t)] == []


async def test_a_cloud_worker_publishes_answers_and_its_info_and_nothing_else(deploy: Deploy) -> None:
    deployed = deploy("cloud.conf")
    async with deployed.link(SERVICE, port=deployed.services) as worker:
        await worker.wait_connected()
        assert await publishes(worker, topics.RESULTS.of(service=SERVICE, node="n1"))
        assert await publishes(worker, topics.CLOUD_INFO.of(service=SERVICE, pod="p"))
        assert not await publishes(worker, topics.RESULTS.of(service="other-01234567", node="n1"))
        assert not await publishes(worker, topics.SAMPLES.of(service=SERVICE, node="n1"))
        assert not await publishes(worker, topics.GM_ALIVE.of())


async def test_cloud_workers_that_share_a_certificate_answer_for_every_service(deploy: Deploy) -> None:
    deployed = deploy("cloud.conf")
    inbox: asyncio.Queue[Message] = asyncio.Queue()
    samples = topics.SAMPLES.of(service=SERVICE, node="n1")
    everything = {"$share/g/neptune/services/+/+/samples": inbox.put_nowait, "neptune/nodes/#": inbox.put_nowait}
    async with (
        deployed.link("nereid:workers", port=deployed.services, subscriptions=everything) as worker,
        deployed.link("n1", port=deployed.nodes) as node,
    ):
        await worker.wait_connected()
        await node.wait_connected()
        assert await publishes(worker, topics.RESULTS.of(service=SERVICE, node="n1"))
        assert await publishes(worker, topics.CLOUD_INFO.of(service=SERVICE, pod="p"))
        assert not await publishes(worker, samples)
        assert not await publishes(worker, topics.DESIRED.of(node="n1"))
        await node.publish(topics.STATE.of(node="n1"), b"{}")
        await node.publish(samples, b"{}")
        async with asyncio.timeout(TIMEOUT_S):
            assert (await inbox.get()).topic == samples


async def test_a_clean_restart_keeps_what_is_retained(deploy: Deploy) -> None:
    deployed = deploy("cloud.conf")
    topic = topics.DESIRED.of(node="n1")
    async with deployed.link("nereid:gm", port=deployed.services) as manager:
        await manager.wait_connected()
        await manager.publish(topic, b"document", retain=True)
    deployed.broker.stop()
    deployed.broker.start()
    inbox: asyncio.Queue[Message] = asyncio.Queue()
    async with deployed.link("n1", port=deployed.nodes, subscriptions={topic: inbox.put_nowait}):
        async with asyncio.timeout(TIMEOUT_S):
            assert (await inbox.get()).payload == b"document"


async def test_the_plain_configuration_of_the_overlay_dev_carries_messages(deploy: Deploy) -> None:
    deployed = deploy("cloud-plain.conf")
    async with Link(LinkSettings.from_url(f"mqtt://127.0.0.1:{deployed.nodes}", client_id="c")) as link:
        await link.wait_connected()
        assert await link.publish("neptune/gm/alive", b"x") == 0x10


async def test_a_node_reads_what_is_for_it_and_nothing_else(deploy: Deploy) -> None:
    deployed = deploy("cloud.conf")
    seen: list[str] = []
    last = asyncio.Event()

    def note(message: Message) -> None:
        seen.append(message.topic)
        if message.topic == topics.GM_ALIVE.of():
            last.set()

    async with (
        deployed.link("n1", port=deployed.nodes, subscriptions={"neptune/#": note}) as node,
        deployed.link("nereid:gm", port=deployed.services) as manager,
    ):
        await node.wait_connected()
        await manager.wait_connected()
        for topic in (
            topics.DESIRED.of(node="n2"),
            topics.DESIRED.of(node="n1"),
            topics.RESULTS.of(service=SERVICE, node="n2"),
            topics.RESULTS.of(service=SERVICE, node="n1"),
            topics.SAMPLES.of(service=SERVICE, node="n1"),
            topics.GM_ALIVE.of(),
        ):
            await manager.publish(topic, b"{}")
        async with asyncio.timeout(TIMEOUT_S):
            await last.wait()
    assert seen == [
        topics.DESIRED.of(node="n1"),
        topics.RESULTS.of(service=SERVICE, node="n1"),
        topics.GM_ALIVE.of(),
    ]


async def test_a_forged_will_is_not_published(deploy: Deploy) -> None:
    """Mosquitto accepts the connection, and checks the ACL when the will is due."""
    deployed = deploy("cloud.conf")
    seen: asyncio.Queue[Message] = asyncio.Queue()
    forged, honest = topics.NODE_ALIVE.of(node="n2"), topics.NODE_ALIVE.of(node="n1")

    def will(connection: int) -> Will:
        return Will(topic=forged if connection == 1 else honest, payload=b"offline")

    async with (
        deployed.link("nereid:gm", port=deployed.services, subscriptions={"neptune/#": seen.put_nowait}) as manager,
        deployed.link("n1", port=deployed.nodes, will=will) as node,
    ):
        await manager.wait_connected()
        for connection in (1, 2):
            async with asyncio.timeout(TIMEOUT_S):
                await node.wait_connected(after=connection - 1)
            node.abort()
        async with asyncio.timeout(TIMEOUT_S):
            assert (await seen.get()).topic == honest


async def test_replicas_with_one_certificate_do_not_kick_each_other_out(deploy: Deploy) -> None:
    deployed = deploy("cloud.conf")
    tls = Certificates(deployed._certificates.folder).of(SERVICE)
    one, two = (
        Link(LinkSettings.from_url(f"mqtts://127.0.0.1:{deployed.services}", client_id=name, tls=tls))
        for name in ("pod-1", "pod-2")
    )
    async with one, two:
        await one.wait_connected()
        await two.wait_connected()
        await two.publish(topics.RESULTS.of(service=SERVICE, node="n1"), b"")
        await one.publish(topics.RESULTS.of(service=SERVICE, node="n1"), b"")
        assert (one.connections, two.connections) == (1, 1)


async def test_a_client_without_a_certificate_stays_out(deploy: Deploy, certificates: Certificates) -> None:
    deployed = deploy("cloud.conf")
    nobody = LinkSettings.from_url(
        f"mqtts://127.0.0.1:{deployed.nodes}", client_id="n1", tls=TlsFiles(ca=certificates.folder / "ca.crt")
    )
    async with Link(nobody) as link:
        async with asyncio.timeout(TIMEOUT_S):
            while not link.last_error:
                await asyncio.sleep(0.01)
        assert not link.connected


async def test_large_messages_pass_tls_whole(deploy: Deploy) -> None:
    """A TLS record holds several packets, or a part of one: what was read but not parsed must not wait."""
    deployed = deploy("edge-tls.conf")
    inbox: asyncio.Queue[Message] = asyncio.Queue()
    large = bytes(range(256)) * 20_000
    topic = topics.TASK.of(worker="w")
    async with (
        deployed.link("w", port=deployed.nodes, subscriptions={topic: inbox.put_nowait}) as worker,
        deployed.link("nereid:lc", port=deployed.nodes) as controller,
    ):
        await worker.wait_connected()
        await controller.wait_connected()
        payloads = [large, *(f"{n}".encode() for n in range(200)), large]
        await asyncio.gather(*(controller.publish(topic, payload) for payload in payloads))
        for payload in payloads:
            async with asyncio.timeout(TIMEOUT_S):
                assert (await inbox.get()).payload == payload


async def test_packets_that_share_a_tls_record_are_all_read(certificates: Certificates) -> None:
    """What was read from the socket but not parsed no longer makes it readable."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        connack, pingresp, publish = b"\x20\x03\x00\x00\x00", b"\xd0\x00", b"\x32\x06\x00\x01a\x00\x01\x00"
        writer.write(connack + pingresp + publish)
        await reader.read()
        writer.close()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.folder / "tls.crt", certificates.folder / "tls.key")
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    settings = LinkSettings.from_url(
        f"mqtts://127.0.0.1:{server.sockets[0].getsockname()[1]}",
        client_id="c",
        tls=TlsFiles(ca=certificates.folder / "ca.crt"),
    )
    async with server, Link(settings) as link:
        await link.wait_connected()
        async with asyncio.timeout(TIMEOUT_S):
            while not link.unrouted:
                await asyncio.sleep(0.002)


async def test_a_worker_with_a_certificate_speaks_for_itself_only(deploy: Deploy) -> None:
    deployed = deploy("edge-tls.conf")
    async with deployed.link("w1", port=deployed.nodes) as worker:
        await worker.wait_connected()
        assert await publishes(worker, topics.WORKER_INFO.of(worker="w1"))
        assert await publishes(worker, topics.SAMPLES.of(service=SERVICE, node="n1"))
        assert not await publishes(worker, topics.WORKER_INFO.of(worker="w2"))
        assert not await publishes(worker, topics.TASK.of(worker="w1"))
        assert not await publishes(worker, topics.RESULTS.of(service=SERVICE, node="n1"))
