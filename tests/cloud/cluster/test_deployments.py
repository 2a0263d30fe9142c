# SPDX-License-Identifier: Apache-2.0
"""The contract of Deployments: Pods of the right number and template, sooner or later."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from nereid_cloud.cluster import kinds
from nereid_cloud.cluster.kinds import ref_of
from nereid_cloud.cluster.port import Cluster, Object
from nereid_cloud.laptop import controllers

from .conftest import eventually

LABELS = {"app": "big"}


@pytest.fixture(autouse=True)
def controlled(cluster: Cluster, is_local: bool) -> Iterator[None]:
    """A LocalCluster's controllers; an API server has its own."""
    stop = threading.Event()
    thread = threading.Thread(target=controllers.run, args=(cluster, stop))
    if is_local:
        thread.start()
    yield
    stop.set()
    if is_local:
        thread.join(10)


@pytest.fixture
def deployment(cluster: Cluster, namespace: str) -> Object:
    return cluster.create(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "big", "namespace": namespace},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": LABELS},
                "template": {
                    "metadata": {"labels": LABELS},
                    "spec": {
                        "containers": [{"name": "main", "image": "localhost/none:1"}],
                        # A node that there is not: the Pods stay where the test can speak for them.
                        "nodeSelector": {"kubernetes.io/hostname": "absent"},
                    },
                },
            },
        }
    )


def pods(cluster: Cluster, deployment: Object) -> list[Object]:
    namespace = deployment["metadata"]["namespace"]
    found = cluster.list(kinds.POD, namespace=namespace, labels="app=big").items
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def wait_for_pods(cluster: Cluster, deployment: Object, count: int) -> list[Object]:
    found: list[Object] = eventually(lambda: len(found := pods(cluster, deployment)) == count and (found or True))
    return found


def make_ready(cluster: Cluster, pod: Object) -> None:
    conditions: list[dict[str, Any]] = [
        {"type": "Ready", "status": "True", "lastTransitionTime": pod["metadata"]["creationTimestamp"]}
    ]
    cluster.patch(ref_of(pod), {"status": {"phase": "Running", "conditions": conditions}}, subresource="status")


def status(cluster: Cluster, deployment: Object) -> dict[str, Any]:
    found: dict[str, Any] = cluster.get(ref_of(deployment)).get("status", {})
    return found


def test_a_deployment_gets_its_pods(cluster: Cluster, deployment: Object) -> None:
    for pod in wait_for_pods(cluster, deployment, 2):
        assert pod["metadata"]["name"].startswith("big-")
        assert pod["metadata"]["labels"]["pod-template-hash"]
        (owner,) = pod["metadata"]["ownerReferences"]
        assert owner["controller"]


def test_a_deployment_says_how_many_are_ready(cluster: Cluster, deployment: Object) -> None:
    first, second = wait_for_pods(cluster, deployment, 2)
    eventually(lambda: status(cluster, deployment).get("replicas") == 2)
    assert status(cluster, deployment).get("readyReplicas", 0) == 0
    make_ready(cluster, first)
    eventually(lambda: status(cluster, deployment).get("readyReplicas") == 1)
    make_ready(cluster, second)
    eventually(lambda: status(cluster, deployment).get("availableReplicas") == 2)
    assert status(cluster, deployment)["observedGeneration"] == 1
    available = [c for c in status(cluster, deployment)["conditions"] if c["type"] == "Available"]
    assert [condition["status"] for condition in available] == ["True"]


def test_a_pod_that_is_gone_is_replaced(cluster: Cluster, deployment: Object) -> None:
    lost, kept = wait_for_pods(cluster, deployment, 2)
    cluster.delete(ref_of(lost))
    eventually(lambda: lost["metadata"]["name"] not in {pod["metadata"]["name"] for pod in pods(cluster, deployment)})
    names = {pod["metadata"]["name"] for pod in wait_for_pods(cluster, deployment, 2)}
    assert kept["metadata"]["name"] in names


def test_a_deployment_scales_up_and_down(cluster: Cluster, deployment: Object) -> None:
    wait_for_pods(cluster, deployment, 2)
    cluster.patch(ref_of(deployment), {"spec": {"replicas": 4}})
    ready = wait_for_pods(cluster, deployment, 4)[0]
    make_ready(cluster, ready)
    cluster.patch(ref_of(deployment), {"spec": {"replicas": 1}})
    (left,) = wait_for_pods(cluster, deployment, 1)
    assert left["metadata"]["uid"] == ready["metadata"]["uid"]
    cluster.patch(ref_of(deployment), {"spec": {"replicas": 0}})
    eventually(lambda: not pods(cluster, deployment))


def test_a_new_template_replaces_the_pods_while_enough_stay_ready(cluster: Cluster, deployment: Object) -> None:
    old = wait_for_pods(cluster, deployment, 2)
    for pod in old:
        make_ready(cluster, pod)
    eventually(lambda: status(cluster, deployment).get("availableReplicas") == 2)
    template = {"spec": {"containers": [{"name": "main", "image": "localhost/none:2"}]}}
    cluster.patch(ref_of(deployment), {"spec": {"template": template}})
    before = {pod["metadata"]["uid"] for pod in old}

    def fresh() -> list[Object]:
        return [pod for pod in pods(cluster, deployment) if pod["metadata"]["uid"] not in before]

    # One more than the desired two, and no ready one goes before it is ready.
    (first,) = eventually(fresh)
    assert len(pods(cluster, deployment)) == 3
    make_ready(cluster, first)
    (second,) = eventually(lambda: [p for p in fresh() if p["metadata"]["uid"] != first["metadata"]["uid"]])
    make_ready(cluster, second)
    eventually(lambda: {pod["metadata"]["uid"] for pod in pods(cluster, deployment)}.isdisjoint(before))
    assert {pod["spec"]["containers"][0]["image"] for pod in pods(cluster, deployment)} == {"localhost/none:2"}
    eventually(lambda: status(cluster, deployment).get("updatedReplicas") == 2)


def test_a_failed_pod_is_replaced(cluster: Cluster, deployment: Object) -> None:
    failed, _ = wait_for_pods(cluster, deployment, 2)
    cluster.patch(ref_of(failed), {"status": {"phase": "Failed"}}, subresource="status")

    def living() -> list[Object]:
        return [pod for pod in pods(cluster, deployment) if pod["status"]["phase"] != "Failed"]

    eventually(lambda: len(living()) == 2)
    assert failed["metadata"]["uid"] not in {pod["metadata"]["uid"] for pod in living()}


def test_pods_go_with_their_deployment(cluster: Cluster, deployment: Object) -> None:
    wait_for_pods(cluster, deployment, 2)
    cluster.delete(ref_of(deployment))
    eventually(lambda: not pods(cluster, deployment))


def test_a_pod_that_no_node_takes_says_so(cluster: Cluster, deployment: Object) -> None:
    def condition() -> dict[str, Any] | None:
        found = pods(cluster, deployment)
        conditions = found[0]["status"].get("conditions", []) if found else []
        return next((item for item in conditions if item["type"] == "PodScheduled"), None)

    said = eventually(condition)
    assert (said["status"], said["reason"]) == ("False", "Unschedulable")
    assert "available" in said["message"]
