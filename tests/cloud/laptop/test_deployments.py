# SPDX-License-Identifier: Apache-2.0
"""The laptop's Deployment controller: what each turn decides, and what it does when Pods fail."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nereid_cloud.cluster import kinds
from nereid_cloud.cluster.kinds import ref_of
from nereid_cloud.cluster.local import LocalCluster
from nereid_cloud.cluster.port import Object
from nereid_cloud.cluster.readiness import is_ready
from nereid_cloud.laptop.deployments import DeploymentController, Rollout

Create = Callable[..., Object]
LABELS = {"app": "big"}


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    opened = LocalCluster(tmp_path / "cluster.db")
    yield opened
    opened.close()


@pytest.fixture
def create(cluster: LocalCluster) -> Create:
    def make(**spec: Any) -> Object:
        template = {
            "metadata": {"labels": LABELS, "annotations": {"why": "because"}},
            "spec": {"containers": [{"name": "main", "image": "i:1"}]},
        }
        return cluster.create(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": "big"},
                "spec": {"selector": {"matchLabels": LABELS}, "template": template, **spec},
            }
        )

    return make


def pods(cluster: LocalCluster) -> list[Object]:
    return cluster.list(kinds.POD).items


def set_status(cluster: LocalCluster, pod: Object, **status: Any) -> None:
    cluster.patch(ref_of(pod), {"status": status}, subresource="status")


def make_ready(cluster: LocalCluster, pod: Object) -> None:
    set_status(cluster, pod, phase="Running", conditions=[{"type": "Ready", "status": "True"}])


def pod(name: str, *, ready: bool) -> Object:
    conditions = [{"type": "Ready", "status": str(ready)}]
    metadata = {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"metadata": metadata, "status": {"conditions": conditions}}


@given(
    desired=st.integers(0, 6),
    surge=st.integers(0, 3),
    unavailable=st.integers(0, 3),
    current=st.lists(st.booleans(), max_size=8),
    old=st.lists(st.booleans(), max_size=8),
)
def test_a_turn_keeps_enough_ready_and_never_makes_too_many(
    *, desired: int, surge: int, unavailable: int, current: list[bool], old: list[bool]
) -> None:
    rollout = Rollout(
        desired=desired,
        surge=surge,
        unavailable=unavailable,
        current=tuple(pod(f"new-{number}", ready=ready) for number, ready in enumerate(current)),
        old=tuple(pod(f"old-{number}", ready=ready) for number, ready in enumerate(old)),
    )
    gone = list(rollout.superfluous())
    left = [pod for pod in (*rollout.current, *rollout.old) if pod not in gone]
    ready_before = sum(current) + sum(old)
    assert sum(map(is_ready, left)) >= min(ready_before, desired - unavailable)
    assert rollout.missing() == 0 or len(current) + len(old) + rollout.missing() <= desired + surge
    assert len(current) + rollout.missing() <= max(desired, len(current))


def test_a_pod_is_of_its_template(cluster: LocalCluster, create: Create) -> None:
    deployment = create()
    DeploymentController(cluster).reconcile()
    (made,) = pods(cluster)
    assert made["spec"]["containers"] == [{"name": "main", "image": "i:1"}]
    assert made["metadata"]["annotations"] == {"why": "because"}
    assert made["metadata"]["labels"].items() >= LABELS.items()
    assert made["metadata"]["ownerReferences"][0]["uid"] == deployment["metadata"]["uid"]


def test_a_turn_with_nothing_to_do_writes_nothing(cluster: LocalCluster, create: Create) -> None:
    create(replicas=2)
    controller = DeploymentController(cluster)
    controller.reconcile()
    controller.reconcile()
    before = cluster.list(kinds.POD).resource_version
    controller.reconcile()
    assert cluster.list(kinds.POD).resource_version == before


def test_a_share_that_rounds_to_none_still_rolls(cluster: LocalCluster, create: Create) -> None:
    deployment = create(strategy={"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "25%"}})
    controller = DeploymentController(cluster)
    controller.reconcile()
    make_ready(cluster, pods(cluster)[0])
    template = {"spec": {"containers": [{"name": "main", "image": "i:2"}]}}
    cluster.patch(ref_of(deployment), {"spec": {"template": template}})
    controller.reconcile()
    controller.reconcile()
    assert [found["spec"]["containers"][0]["image"] for found in pods(cluster)] == ["i:2"]


def test_recreate_ends_all_before_it_begins_anew(cluster: LocalCluster, create: Create) -> None:
    deployment = create(strategy={"type": "Recreate"})
    controller = DeploymentController(cluster)
    controller.reconcile()
    (old,) = pods(cluster)
    # Bound, so that it ends with grace as on a node.
    cluster.patch(ref_of(old), {"spec": {"nodeName": "cloud"}})
    template = {"spec": {"containers": [{"name": "main", "image": "i:2"}]}}
    cluster.patch(ref_of(deployment), {"spec": {"template": template}})
    controller.reconcile()
    controller.reconcile()
    (ending,) = pods(cluster)
    assert ending["metadata"]["deletionTimestamp"]
    cluster.delete(ref_of(old), grace_s=0)
    controller.reconcile()
    (new,) = pods(cluster)
    assert new["spec"]["containers"][0]["image"] == "i:2"


def test_pods_that_fail_again_and_again_are_replaced_ever_more_slowly(cluster: LocalCluster, create: Create) -> None:
    create()
    clock = Clock()
    controller = DeploymentController(cluster, clock=clock)
    controller.reconcile()
    waited: list[float] = []
    for _ in range(4):
        (failing,) = pods(cluster)
        set_status(cluster, failing, phase="Failed")
        controller.reconcile()
        assert pods(cluster) == []
        begun = clock.now_s
        while not pods(cluster):
            clock.now_s += 0.5
            controller.reconcile()
        waited.append(clock.now_s - begun)
    assert waited == [1.0, 2.0, 4.0, 8.0]


def test_a_pod_that_was_ready_ends_the_back_off(cluster: LocalCluster, create: Create) -> None:
    create()
    clock = Clock()
    controller = DeploymentController(cluster, clock=clock)
    for _ in range(3):
        controller.reconcile()
        (made,) = pods(cluster)
        make_ready(cluster, made)
        controller.reconcile()
        set_status(cluster, made, phase="Failed", conditions=[])
        controller.reconcile()
        clock.now_s += 1.0


def test_pods_of_others_are_left_alone(cluster: LocalCluster, create: Create) -> None:
    spec = {"containers": [{"name": "main", "image": "i"}]}
    cluster.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "alien", "labels": LABELS}, "spec": spec})
    create(replicas=0)
    DeploymentController(cluster).reconcile()
    assert [found["metadata"]["name"] for found in pods(cluster)] == ["alien"]
