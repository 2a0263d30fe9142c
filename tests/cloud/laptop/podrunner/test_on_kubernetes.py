# SPDX-License-Identifier: Apache-2.0
"""The PodRunner as the kubelet of a real API server: scheduler and controllers are Kubernetes' own."""

import asyncio
import os
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cloud.laptop.podrunner.runners import (
    NODE,
    PATIENT,
    Runners,
    alive,
    annotated,
    container,
    pid,
    running,
    until,
    until_gone,
)
from tests.cluster.control_plane import ApiServer
from tests.proxy import Proxy

from nereid_cloud.cluster import kinds, local_logs
from nereid_cloud.cluster.kubernetes import KubernetesCluster
from nereid_cloud.cluster.port import Object, Ref

pytestmark = pytest.mark.cluster


@pytest.fixture
def kubernetes(own_server: ApiServer) -> Iterator[KubernetesCluster]:
    cluster = KubernetesCluster(kubeconfig=own_server.kubeconfig)
    yield cluster
    cluster.close()


@pytest.fixture
def namespace(kubernetes: KubernetesCluster) -> Iterator[str]:
    name = f"podrunner-{secrets.token_hex(4)}"
    kubernetes.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    kubernetes.delete(Ref(kind=kinds.NAMESPACE, name=name))


def deployment(namespace: str) -> Object:
    labels = {"app": "patient"}
    spec = {
        "nodeSelector": {"kubernetes.io/hostname": NODE},
        "terminationGracePeriodSeconds": 5,
        "containers": [{"name": "main", "image": "none", "command": ["python", "-c", PATIENT]}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "patient", "namespace": namespace},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def test_a_deployments_pod_runs_and_ends(
    kubernetes: KubernetesCluster, own_server: ApiServer, runners: Runners, namespace: str
) -> None:
    made = kubernetes.create(deployment(namespace))

    runner = runners("--kubeconfig", str(own_server.kubeconfig))
    until(kubernetes, made, lambda obj: obj.get("status", {}).get("availableReplicas") == 1)

    (pod,) = kubernetes.list(kinds.POD, namespace=namespace).items
    assert pod["spec"]["nodeName"] == NODE
    ref = Ref(kind=kinds.POD, name=pod["metadata"]["name"], namespace=namespace)
    pod = until(kubernetes, ref, lambda obj: running(obj) and annotated(obj))
    assert alive(pid(pod))
    log = local_logs.container_log(pod, "", previous=False)
    assert next(local_logs.lines(log, tail=None, follow=True, ended=lambda: False)) == "here"

    kubernetes.delete(Ref(kind=kinds.DEPLOYMENT, name="patient", namespace=namespace))
    until_gone(kubernetes, ref)

    assert not alive(pid(pod))
    runner.stop()
    assert not list(runner.pods.iterdir())


@pytest.mark.slow
async def test_what_happens_while_the_api_is_cut_off_is_told_afterwards(
    kubernetes: KubernetesCluster, own_server: ApiServer, runners: Runners, namespace: str, tmp_path: Path
) -> None:
    kubernetes.create(deployment(namespace))
    async with Proxy(int(own_server.url.rpartition(":")[2])) as proxy:
        through = tmp_path / "through-the-proxy"
        through.write_text(own_server.kubeconfig.read_text().replace(own_server.url, f"https://127.0.0.1:{proxy.port}"))
        runner = runners("--kubeconfig", str(through))
        while not (pods := kubernetes.list(kinds.POD, namespace=namespace).items):
            await asyncio.sleep(0.05)
        ref = Ref(kind=kinds.POD, name=pods[0]["metadata"]["name"], namespace=namespace)
        seen = await asyncio.to_thread(until, kubernetes, ref, running)

        proxy.silence()
        proxy.cut()
        os.kill(pid(seen), signal.SIGKILL)
        async with asyncio.timeout(20):
            while not list(runner.pods.glob("*/containers/main/1/started.json")):
                await asyncio.sleep(0.05)
            while "report delayed" not in (tmp_path / "podrunner.log").read_text():
                await asyncio.sleep(0.05)
        assert container(kubernetes.get(ref))["restartCount"] == 0
        proxy.resume()

        now = await asyncio.to_thread(until, kubernetes, ref, lambda obj: container(obj)["restartCount"] == 1)
        assert container(now)["lastState"]["terminated"]["exitCode"] == 137
        await asyncio.to_thread(runner.stop)


def test_a_crash_looping_pod_is_told_as_kubernetes_tells_it(
    kubernetes: KubernetesCluster, own_server: ApiServer, runners: Runners, namespace: str
) -> None:
    made = deployment(namespace)
    made["spec"]["template"]["spec"]["containers"][0]["command"] = ["python", "-c", "raise SystemExit(4)"]
    kubernetes.create(made)

    runners("--kubeconfig", str(own_server.kubeconfig))
    replicas = until(kubernetes, made, lambda obj: obj.get("status", {}).get("unavailableReplicas") == 1)
    assert "readyReplicas" not in replicas["status"]
    while not (pods := kubernetes.list(kinds.POD, namespace=namespace).items):
        until(kubernetes, made, lambda obj: obj["status"].get("replicas") == 1)
    ref = Ref(kind=kinds.POD, name=pods[0]["metadata"]["name"], namespace=namespace)
    crashing = until(
        kubernetes,
        ref,
        lambda obj: container(obj).get("state", {}).get("waiting", {}).get("reason") == "CrashLoopBackOff",
    )

    assert container(crashing)["lastState"]["terminated"]["exitCode"] == 4
    assert crashing["status"]["phase"] == "Running"
    kubernetes.delete(Ref(kind=kinds.DEPLOYMENT, name="patient", namespace=namespace))
    until_gone(kubernetes, ref)
