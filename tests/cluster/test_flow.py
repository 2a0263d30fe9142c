# SPDX-License-Identifier: Apache-2.0
"""The shipped sample on a real API server, from `kubectl apply` to nothing left."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.control_plane import ApiServer
from tests.cluster.faults import FaultProxy
from tests.cluster.kubectl import Kubectl
from tests.cluster.system import CLOUD, EDGE, System, sample
from tests.flow import processes
from tests.flow.patience import until

from nereid_shared.link import Link, LinkSettings, Message

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(480)]

PICTURES = 150
_READY = "--for=condition=Ready"


@contextmanager
def running(system: System, kubectl: Kubectl) -> Iterator[System]:
    """The system while its nodes are Ready; nothing of it is left afterwards."""
    try:
        with system:
            for node in (CLOUD, EDGE):
                kubectl("wait", "--for=create", f"node/{node}", "--timeout=60s")
                kubectl("wait", _READY, f"node/{node}", "--timeout=60s")
            yield system
    finally:
        kubectl("delete", "node", "--ignore-not-found", CLOUD, EDGE)
    processes.assert_none_left(system.state)


@pytest.fixture
def system(own_server: ApiServer, kubectl: Kubectl, tmp_path: Path) -> Iterator[System]:
    with running(System(own_server.kubeconfig, namespace=kubectl.namespace, folder=tmp_path), kubectl) as up:
        yield up


@pytest.fixture
def troubled(own_server: ApiServer, kubectl: Kubectl, tmp_path: Path) -> Iterator[System]:
    """A system whose GlobalManager has a bad API server: one request in eight fails, watches are cut each second."""
    stop = threading.Event()

    def cut(proxy: FaultProxy) -> None:
        while not stop.wait(1):
            proxy.cut_watches()

    with FaultProxy(own_server.kubeconfig) as proxy:
        proxy.every = lambda number, _request: (429, 500)[number % 16 // 8] if number % 8 == 0 else 0
        gm = proxy.kubeconfig(tmp_path)
        system = System(own_server.kubeconfig, namespace=kubectl.namespace, folder=tmp_path, gm_kubeconfig=gm)
        cutting = threading.Thread(target=cut, args=(proxy,))
        cutting.start()
        try:
            with running(system, kubectl) as up:
                yield up
        finally:
            stop.set()
            cutting.join()


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    """The sample's file, with paths that exist here."""
    file = tmp_path / "digits.yaml"
    file.write_text(sample(tmp_path / "digits", pictures=PICTURES))
    return str(file)


def metrics(kubectl: Kubectl) -> dict[str, str]:
    status = kubectl.json("jis", "digits").get("status") or {}
    return {metric["key"]: metric["value"] for metric in status.get("metrics") or ()}


def count(kubectl: Kubectl, key: str) -> int:
    return int(metrics(kubectl).get(key, "0"))


def answers(system: System) -> list[dict[str, Any]]:
    files = system.state.glob("nodes/*/var/lib/nereid/workers/*/answers.jsonl")
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


async def retained(url: str) -> dict[str, bytes]:
    """Return what a broker keeps: all of it comes before what is sent after subscribing."""
    kept: dict[str, bytes] = {}
    end = asyncio.Event()

    def take(message: Message) -> None:
        if message.topic == "test/end":
            end.set()
        elif message.retain and message.payload:
            kept[message.topic] = message.payload

    async with Link(LinkSettings.from_url(url, client_id="test-eyes"), subscriptions={"#": take}) as link:
        await link.wait_connected()
        await link.publish("test/end", b"")
        async with asyncio.timeout(10):
            await end.wait()
    return kept


def left_behind(system: System) -> set[str]:
    """The topics of services and workers that a broker still keeps."""
    in_cloud, at_edge = asyncio.run(retained(system.cloud_broker.url)), asyncio.run(retained(system.edge_broker.url))
    return {topic for topic in (*in_cloud, *at_edge) if "/services/" in topic or "/workers/" in topic}


def test_the_sample_is_applied_answered_counted_and_deleted(system: System, kubectl: Kubectl, manifest: str) -> None:
    live_and_die(system, kubectl, manifest)
    assert "Running" in kubectl("events", "--for=jis/digits")


def test_a_bad_api_server_changes_nothing_of_it(troubled: System, kubectl: Kubectl, manifest: str) -> None:
    live_and_die(troubled, kubectl, manifest)


def live_and_die(system: System, kubectl: Kubectl, manifest: str) -> None:
    """Apply the sample, see it answer and count, delete it, and see no Pod, task or worker's topic left."""
    kubectl("apply", "-f", manifest)
    kubectl("wait", _READY, "jis/digits", "datasets.edgeai.io/digits-edge-0", "--timeout=60s", timeout_s=90)
    until(lambda: count(kubectl, "seen") == PICTURES, "all pictures to be seen")
    until(lambda: count(kubectl, "pending") == 0 and count(kubectl, "answered") > 0, "the cloud's answers")

    told = {key: int(value) for key, value in metrics(kubectl).items() if value.isdigit()}
    written = answers(system)
    by_edge = [answer for answer in written if answer["event"] == "edge"]
    by_cloud = [answer for answer in written if answer["event"] in {"answer", "correction"}]
    assert told["easy"] + told["hard"] == told["seen"] == PICTURES
    assert told["hard"] == told["answered"] > 0
    assert len({answer["key"] for answer in by_edge}) == PICTURES
    assert len({answer["key"] for answer in by_cloud if answer["tier"] == "cloud"}) == told["answered"]

    headings, (name, *columns) = kubectl.table("jis")
    assert (headings[0], name) == ("NAME", "digits")
    assert "Running" in columns
    assert str(PICTURES) in kubectl("get", "datasets.edgeai.io")
    pods = kubectl.json("pods")["items"]
    assert {pod["spec"]["nodeName"] for pod in pods} == {CLOUD, EDGE}

    kubectl("delete", "-f", manifest, "--timeout=60s", timeout_s=90)
    until(lambda: not kubectl.json("pods,deployments,replicasets")["items"], "the Pods to be gone")
    until(lambda: not left_behind(system), "the service's and workers' topics to be cleared")
    in_cloud = asyncio.run(retained(system.cloud_broker.url))
    desired = json.loads(in_cloud[f"neptune/nodes/{EDGE}/downstream/desired"])
    assert kubectl.namespace not in {task["namespace"] for task in desired["tasks"].values()}
