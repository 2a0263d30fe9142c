# SPDX-License-Identifier: Apache-2.0
"""The certificates of `nereid certs` on a real broker with the shipped configuration."""

import asyncio
import base64
import stat
import subprocess
from pathlib import Path

import pytest
import yaml
from tests.cloud.cli.conftest import TIMEOUT_S, command
from tests.conftest import MosquittoFactory
from tests.mosquitto import Mosquitto, free_port

from nereid_shared import topics
from nereid_shared.errors import PublishRefused
from nereid_shared.link import Link, LinkSettings, Message, TlsFiles

pytestmark = pytest.mark.slow  # each test starts processes

FILES = Path(__file__).parents[3] / "mosquitto"
SERVICE = "helmets-0123abcd"


def made(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command("certs", *arguments), capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def unpacked(folder: Path) -> dict[tuple[str, str], TlsFiles]:
    """Write what the Secrets hold, as a kubelet would mount it; by namespace and name."""
    found = {}
    for secret in yaml.safe_load_all((folder / "secrets.yaml").read_text()):
        namespace, name = secret["metadata"]["namespace"], secret["metadata"]["name"]
        mount = folder / "mounts" / namespace / name
        mount.mkdir(parents=True)
        for key, value in secret["data"].items():
            (mount / key).write_bytes(base64.b64decode(value))
        found[namespace, name] = TlsFiles(ca=mount / "ca.crt", cert=mount / "tls.crt", key=mount / "tls.key")
    return found


def of_node(folder: Path, node: str) -> TlsFiles:
    place = folder / "nodes" / node
    return TlsFiles(ca=place / "ca.crt", cert=place / "tls.crt", key=place / "tls.key")


def deployed(tmp_path: Path, mosquitto: MosquittoFactory, certs: TlsFiles) -> tuple[Mosquitto, int, int]:
    assert certs.cert is not None
    nodes, services = free_port(), free_port()
    text = (FILES / "cloud.conf").read_text()
    for old, new in {
        "listener 8883": f"listener {nodes}",
        "listener 8884": f"listener {services}",
        "/mosquitto/certs": str(certs.cert.parent),
        "/mosquitto/config": str(FILES),
        "/mosquitto/data/": f"{tmp_path}/",
    }.items():
        text = text.replace(old, new)
    config = tmp_path / "cloud.conf"
    config.write_text(f"{text}\nuser root\n")
    return mosquitto(port=nodes, config_file=config), nodes, services


async def test_all_that_it_makes_is_what_the_brokers_acl_knows(tmp_path: Path, mosquitto: MosquittoFactory) -> None:
    folder = tmp_path / "certs"
    done = made(str(folder), "--broker", "127.0.0.1", "--node", "edge-0", "--node", "edge-1", "-n", "vision")
    assert done.returncode == 0, done.stderr
    secrets = unpacked(folder)
    assert set(secrets) == {
        ("nereid", "nereid-broker-tls"), ("nereid", "nereid-gm-tls"), ("vision", "nereid-worker-tls"),
    }  # fmt: skip
    _, nodes, services = deployed(tmp_path, mosquitto, secrets["nereid", "nereid-broker-tls"])
    inbox: asyncio.Queue[Message] = asyncio.Queue()

    def link(who: str, tls: TlsFiles, port: int, **more: object) -> Link:
        settings = LinkSettings.from_url(f"mqtts://127.0.0.1:{port}", client_id=who, tls=tls)
        return Link(settings, **more)  # type: ignore[arg-type] # the link's own options

    samples = topics.SAMPLES.of(service=SERVICE, node="edge-0")
    manager = link("gm", secrets["nereid", "nereid-gm-tls"], services)
    node = link("n", of_node(folder, "edge-0"), nodes)
    worker_tls = secrets["vision", "nereid-worker-tls"]
    worker = link("w", worker_tls, services, subscriptions={f"$share/g/{samples}": inbox.put_nowait})
    async with asyncio.timeout(TIMEOUT_S), manager, node, worker:
        for one in (manager, node, worker):
            await one.wait_connected()
        assert await manager.publish(topics.DESIRED.of(node="edge-0"), b"{}") in {0, 0x10}
        await node.publish(samples, b"one")
        assert (await inbox.get()).payload == b"one"
        with pytest.raises(PublishRefused):
            await node.publish(topics.STATE.of(node="edge-1"), b"{}")


def test_a_second_run_adds_nodes_and_keeps_the_authority(tmp_path: Path) -> None:
    made(str(tmp_path), "--broker", "cloud.example.org", "--node", "edge-0")
    first = {name: (tmp_path / "nodes" / "edge-0" / name).read_text() for name in ("ca.crt", "tls.crt", "tls.key")}
    done = made(str(tmp_path), "--node", "edge-1")
    assert done.returncode == 0, done.stderr
    assert {name: (tmp_path / "nodes" / "edge-0" / name).read_text() for name in first} == first
    assert (tmp_path / "nodes" / "edge-1" / "ca.crt").read_text() == first["ca.crt"]


def test_the_brokers_certificate_has_its_names_inside_and_outside_the_cluster(tmp_path: Path) -> None:
    made(str(tmp_path), "--broker", "cloud.example.org", "--broker", "192.0.2.7")
    shown = subprocess.run(
        ["openssl", "x509", "-noout", "-ext", "subjectAltName", "-in", tmp_path / "ca" / "tls.crt"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for name in ("DNS:cloud.example.org", "IP Address:192.0.2.7", "DNS:nereid-broker.nereid.svc"):
        assert name in shown


def test_no_key_can_be_read_by_others(tmp_path: Path) -> None:
    made(str(tmp_path), "--broker", "b", "--node", "edge-0")
    secret = [tmp_path / "secrets.yaml", *tmp_path.rglob("*.key")]
    assert len(secret) == 7
    assert [file for file in secret if stat.S_IMODE(file.stat().st_mode) & 0o077] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--node", "edge-0"], "where do nodes reach the cloud broker?"),
        (["--broker", "mqtts://b:8883"], "without scheme and port"),
        (["--broker", "b\nkeyUsage=x"], "neither a name nor an address"),
        (["--broker", "b", "--node", "Edge_0"], "--node"),
        (["--broker", "b", "-n", "Vision"], "no namespace"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_written(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = made(str(tmp_path / "certs"), *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "certs").exists()
