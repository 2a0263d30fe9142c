# SPDX-License-Identifier: Apache-2.0
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import PurePosixPath

import pytest
from tests.cloud.gm.peers import add_node, dataset
from tests.cloud.gm.test_downstream import downstream

from nereid_cloud.cluster.kinds import DATASET, NODE
from nereid_cloud.cluster.local import LocalCluster
from nereid_cloud.cluster.port import Object, Ref
from nereid_cloud.cluster.readiness import condition_of
from nereid_cloud.gm.datasets import DatasetController
from nereid_cloud.gm.events import Recorder
from nereid_cloud.gm.holding import Holding
from nereid_cloud.gm.informer import Informer, Key
from nereid_cloud.gm.observed import Observed
from nereid_cloud.gm.policy import Policy
from nereid_shared.messages import TaskStatus

SOON_AFTER_BOOT_S = 5.0
REF = Ref(kind=DATASET, name="d", namespace="default")
KEY = Key("default", "d")
ANYWHERE = Policy()


@asynccontextmanager
async def controlled(
    cluster: LocalCluster, *, clock: Callable[[], float], interval_s: float = 1.0, policy: Policy = ANYWHERE
) -> AsyncIterator[tuple[DatasetController, Observed]]:
    """The controller of a GlobalManager that has just started."""
    recorder, down = Recorder(cluster), downstream()
    observed = Observed(timeout_s=90, clock=clock)
    async with Informer(cluster, DATASET) as datasets, Informer(cluster, NODE) as nodes, down:
        for informer in (datasets, nodes):
            await informer.wait_synced()
        holding = Holding(
            cluster, objects=datasets, nodes=nodes, observed=observed, downstream=down, recorder=recorder, timeout_s=1
        )
        controller = DatasetController(
            cluster, datasets=datasets, nodes=nodes, holding=holding, downstream=down, observed=observed,
            recorder=recorder, settle_s=0, interval_s=interval_s, policy=policy, clock=clock,
        )  # fmt: skip
        yield controller, observed


async def look(cluster: LocalCluster) -> Object:
    """One look; returns the condition that it leaves."""
    async with controlled(cluster, clock=lambda: SOON_AFTER_BOOT_S) as (controller, _):
        await controller.reconcile(KEY)
        return condition_of(cluster.get(REF), "Ready")


@pytest.mark.parametrize(
    ("url", "allowed"),
    [("/srv/data/index.csv", True), ("/tls.key", False), ("/proc/self/environ", False), ("file:///etc/passwd", False),
     ("/srv/../etc/passwd", False)],
)  # fmt: skip
async def test_no_path_is_counted_that_workers_may_not_read(cluster: LocalCluster, url: str, allowed: bool) -> None:
    add_node(cluster, "edge-0")
    cluster.create({**(made := dataset("d", "edge-0")), "spec": {**made["spec"], "dataUrl": url}})
    policy = Policy(host_roots=(PurePosixPath("/srv"),))
    async with controlled(cluster, clock=lambda: SOON_AFTER_BOOT_S, policy=policy) as (controller, _):
        await controller.reconcile(KEY)
        obj = cluster.get(REF)
        assert (condition_of(obj, "Ready")["reason"] == "PathNotAllowed") is not allowed
        assert (obj["status"]["heldBy"] == ["edge-0"]) is allowed


async def test_counts_alone_are_written_at_most_once_an_interval(cluster: LocalCluster) -> None:
    add_node(cluster, "edge-0")
    uid = cluster.create(dataset("d", "edge-0"))["metadata"]["uid"]
    now = [SOON_AFTER_BOOT_S]
    async with controlled(cluster, clock=lambda: now[0], interval_s=10.0) as (controller, observed):
        written = []
        for count in range(30):
            said = TaskStatus(phase="dataset", status="running", boot="b", number=count, number_of_samples=count)
            observed.speaker("edge-0").on_status(uid, said, now=now[0])
            wait_s = await controller.reconcile(KEY)
            assert wait_s is not None
            if cluster.get(REF)["status"].get("numberOfSamples") == count:
                written.append(now[0] - SOON_AFTER_BOOT_S)
            else:
                assert 0 < wait_s <= 10.0, "it is looked at again when the interval is over"
            now[0] += 1.0
        assert written == [0.0, 10.0, 20.0]


async def test_the_first_look_after_a_start_is_written_however_short_the_machine_is_up(cluster: LocalCluster) -> None:
    add_node(cluster, "edge-0")
    cluster.create(dataset("d", "edge-0"))
    left = await look(cluster)
    assert left["reason"] == "NodeOffline"
    old = {**left, "lastHeartbeatTime": "2026-01-01T00:00:00Z"}
    cluster.patch(REF, {"status": {"conditions": [old]}}, subresource="status")
    assert (await look(cluster))["lastHeartbeatTime"] >= left["lastHeartbeatTime"]
