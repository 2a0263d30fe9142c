# SPDX-License-Identifier: Apache-2.0
"""When a silent node counts as lost."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nereid_cloud.cluster import kinds
from nereid_cloud.cluster.local import LocalCluster
from nereid_cloud.cluster.port import Ref
from nereid_cloud.laptop.node_lifecycle import LEASES, NodeLifecycle

NODE = Ref(kind=kinds.NODE, name="edge-0")
LEASE = Ref(kind=kinds.LEASE, name="edge-0", namespace=LEASES)


class Node:
    """A node whose kubelet the test plays, and the clock of who watches over it."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster, self.now_s, self._renewals = cluster, 0.0, 0
        self.lifecycle = NodeLifecycle(cluster, grace_s=5.0, clock=lambda: self.now_s)
        ready = {"conditions": [{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "False"}]}
        cluster.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "edge-0"}, "status": ready})
        metadata = {"name": "edge-0", "namespace": LEASES}
        cluster.create({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": {}})

    def renew(self) -> None:
        self._renewals += 1
        renewed = f"2000-01-01T00:00:00.{self._renewals:06d}Z"
        self.cluster.patch(LEASE, {"spec": {"renewTime": renewed}})

    def wait(self, seconds: float) -> None:
        """Let time pass, looked at twice a second."""
        for _ in range(int(2 * seconds)):
            self.now_s += 0.5
            self.lifecycle.reconcile()

    def ready(self) -> str:
        conditions: list[dict[str, Any]] = self.cluster.get(NODE)["status"]["conditions"]
        (found,) = (item["status"] for item in conditions if item["type"] == "Ready")
        return str(found)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    cluster = LocalCluster(tmp_path / "cluster.db")
    yield Node(cluster)
    cluster.close()


def test_a_silent_node_becomes_unknown_and_keeps_its_other_conditions(node: Node) -> None:
    node.renew()
    node.wait(4)
    assert node.ready() == "True"
    node.wait(3)
    assert node.ready() == "Unknown"
    ready, pressure = node.cluster.get(NODE)["status"]["conditions"]
    assert ready["reason"] == "NodeStatusUnknown"
    assert pressure == {"type": "DiskPressure", "status": "False"}


def test_a_node_that_renews_stays_ready_whatever_its_clock_says(node: Node) -> None:
    for _ in range(10):
        node.renew()
        node.wait(2)
    assert node.ready() == "True"


def test_a_node_that_renews_slowly_gets_three_of_its_intervals(node: Node) -> None:
    for _ in range(3):
        node.renew()
        node.wait(4)
    node.wait(5)
    assert node.ready() == "True"
    node.wait(6)
    assert node.ready() == "Unknown"


def test_a_node_that_said_not_ready_itself_is_believed(node: Node) -> None:
    said = {"conditions": [{"type": "Ready", "status": "False", "reason": "PodRunnerStopped"}]}
    node.cluster.patch(NODE, {"status": said}, subresource="status")
    node.wait(10)
    assert node.ready() == "False"


def test_pods_of_a_node_that_is_gone_are_cleared_after_a_while(node: Node) -> None:
    spec = {"nodeName": "edge-0", "containers": [{"name": "main", "image": "i"}]}
    node.cluster.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "worker"}, "spec": spec})
    node.wait(60)
    assert len(node.cluster.list(kinds.POD).items) == 1
    node.cluster.delete(NODE)
    node.wait(30)
    assert len(node.cluster.list(kinds.POD).items) == 1
    node.wait(12)
    assert node.cluster.list(kinds.POD).items == []
