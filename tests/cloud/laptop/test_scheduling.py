# SPDX-License-Identifier: Apache-2.0
"""Which node a Pod comes to on a laptop."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nereid_cloud.cluster import kinds
from nereid_cloud.cluster.kinds import ref_of
from nereid_cloud.cluster.local import LocalCluster
from nereid_cloud.cluster.port import Object, Ref
from nereid_cloud.laptop.scheduling import schedule


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    opened = LocalCluster(tmp_path / "cluster.db")
    yield opened
    opened.close()


def add_node(cluster: LocalCluster, name: str, *, ready: bool = True, **labels: str) -> Object:
    return cluster.create(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **labels}},
            "status": {"conditions": [{"type": "Ready", "status": str(ready)}]},
        }
    )


def add_pod(cluster: LocalCluster, name: str, **spec: Any) -> Object:
    return cluster.create(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {"containers": [{"name": "main", "image": "i"}], **spec},
        }
    )


def node_of(cluster: LocalCluster, pod: Object) -> str | None:
    found: str | None = cluster.get(ref_of(pod))["spec"].get("nodeName")
    return found


def scheduled(cluster: LocalCluster, pod: Object) -> dict[str, Any]:
    (condition,) = cluster.get(ref_of(pod))["status"]["conditions"]
    return {key: value for key, value in condition.items() if key != "lastTransitionTime"}


@pytest.mark.parametrize(
    ("operator", "values", "comes_to"),
    [("Exists", [], "edge-0"), ("DoesNotExist", [], "cloud"), ("In", ["yes"], "edge-0"), ("NotIn", ["yes"], "cloud")],
)
def test_a_pod_comes_to_a_node_that_its_affinity_allows(
    cluster: LocalCluster, operator: str, values: list[str], comes_to: str
) -> None:
    add_node(cluster, "cloud")
    add_node(cluster, "edge-0", edge="yes")
    term = {"matchExpressions": [{"key": "edge", "operator": operator, "values": values}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    pod = add_pod(cluster, "worker", affinity={"nodeAffinity": required})
    schedule(cluster)
    assert node_of(cluster, pod) == comes_to


def test_a_pod_comes_to_the_node_that_it_selects(cluster: LocalCluster) -> None:
    add_node(cluster, "cloud")
    add_node(cluster, "edge-0")
    pod = add_pod(cluster, "worker", nodeSelector={"kubernetes.io/hostname": "edge-0"})
    schedule(cluster)
    assert node_of(cluster, pod) == "edge-0"
    assert scheduled(cluster, pod) == {"type": "PodScheduled", "status": "True"}


def test_a_pod_with_a_choice_comes_to_the_node_with_the_fewest(cluster: LocalCluster) -> None:
    add_node(cluster, "a")
    add_node(cluster, "b")
    placed = [add_pod(cluster, f"worker-{number}") for number in range(4)]
    schedule(cluster)
    assert [node_of(cluster, pod) for pod in placed] == ["a", "b", "a", "b"]


def test_a_pod_that_no_node_takes_says_why_until_one_does(cluster: LocalCluster) -> None:
    add_node(cluster, "cloud")
    add_node(cluster, "edge-0", ready=False)
    pod = add_pod(cluster, "worker", nodeSelector={"kubernetes.io/hostname": "edge-0"})
    schedule(cluster)
    assert node_of(cluster, pod) is None
    assert scheduled(cluster, pod) == {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, "
        "1 node(s) were not ready.",
    }
    version = cluster.get(ref_of(pod))["metadata"]["resourceVersion"]
    schedule(cluster)
    assert cluster.get(ref_of(pod))["metadata"]["resourceVersion"] == version
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    cluster.patch(Ref(kind=kinds.NODE, name="edge-0"), {"status": ready}, subresource="status")
    schedule(cluster)
    assert node_of(cluster, pod) == "edge-0"


def test_a_cordoned_node_takes_none(cluster: LocalCluster) -> None:
    cordoned = add_node(cluster, "cloud")
    cluster.patch(ref_of(cordoned), {"spec": {"unschedulable": True}})
    pod = add_pod(cluster, "worker")
    schedule(cluster)
    assert node_of(cluster, pod) is None
