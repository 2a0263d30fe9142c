# SPDX-License-Identifier: Apache-2.0
"""The tests' own node is a real one: it runs containers, which outlive its parts."""

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from tests.cluster.fixtures import RealCluster
from tests.cluster.kubectl import Kubectl
from tests.cluster.node import Node
from tests.flow.patience import until

from nereid_cloud.cluster.kinds import POD
from nereid_cloud.cluster.kubernetes import KubernetesCluster
from nereid_cloud.cluster.port import Ref
from nereid_shared.errors import NotFound

pytestmark = [pytest.mark.node, pytest.mark.slow, pytest.mark.timeout(180)]

IMAGE = "localhost/pause:1"


@pytest.fixture
def kubectl(real_cluster: RealCluster) -> Iterator[Kubectl]:
    tool = Kubectl(real_cluster.server.kubectl, namespace="node-test")
    tool("create", "namespace", tool.namespace)
    until(lambda: tool.run("get", "serviceaccount", "default").returncode == 0, "the service account")
    yield tool
    tool("delete", "namespace", tool.namespace, "--timeout=60s", timeout_s=90)


@pytest.fixture
def node(real_cluster: RealCluster) -> Node:
    if real_cluster.node is None:
        pytest.skip("the node is not ours to be killed: unset KUBECONFIG and EDGE_NODE")
    return real_cluster.node


def pod(name: str, **spec: Any) -> str:
    containers = [{"name": "main", "image": IMAGE, "imagePullPolicy": "IfNotPresent"}]
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"containers": containers, "terminationGracePeriodSeconds": 1, **spec},
        }
    )


def container(kubectl: Kubectl, name: str) -> tuple[str, int]:
    """Return the id of a Pod's container and how often it was started anew."""
    (status,) = kubectl.json("pod", name)["status"]["containerStatuses"]
    return status["containerID"], status["restartCount"]


def test_a_pod_runs_in_a_container_and_goes(node: Node, kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=pod("one"))
    kubectl("wait", "--for=condition=Ready", "pod/one", "--timeout=60s")
    found = kubectl.json("pod", "one")
    assert found["spec"]["nodeName"] == node.name
    assert container(kubectl, "one")[0].startswith("containerd://")
    assert found["status"]["podIP"] != found["status"]["hostIP"]
    kubectl("delete", "pod/one", "--timeout=30s")


@pytest.mark.usefixtures("node")  # a user's KubeEdge node has no logs by default
def test_a_containers_log_is_followed_until_it_ends(real_cluster: RealCluster, kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=pod("one"))
    kubectl("wait", "--for=condition=Ready", "pod/one", "--timeout=60s")
    ref = Ref(kind=POD, name="one", namespace=kubectl.namespace)
    with closing(KubernetesCluster(kubeconfig=real_cluster.server.kubeconfig)) as cluster:
        assert list(cluster.logs(ref, tail=1)) == ["paused"]
        lines = cluster.logs(ref, follow=True)
        assert next(lines) == "paused"
        kubectl("delete", "pod/one", "--wait=false")
        assert list(lines) == []
        # The log ends with the container; the Pod goes when the kubelet has said so.
        kubectl("wait", "--for=delete", "pod/one", "--timeout=60s")
        with pytest.raises(NotFound):
            cluster.logs(ref)


def test_a_container_outlives_its_kubelet_and_its_containerd(node: Node, kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=pod("one", hostNetwork=True))
    kubectl("wait", "--for=condition=Ready", "pod/one", "--timeout=60s")
    before = container(kubectl, "one")
    node.kill("kubelet")
    node.kill("containerd")
    node.start_containerd()
    node.start_kubelet()
    kubectl("apply", "-f", "-", stdin=pod("two"))
    kubectl("wait", "--for=condition=Ready", "pod/two", "--timeout=90s", timeout_s=120)
    assert container(kubectl, "one") == before
