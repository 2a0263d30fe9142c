# SPDX-License-Identifier: Apache-2.0
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

SOON_AFTER_BOOT_S = 5.0
REF = Ref(kind=DATASET, name="d", namespace="default")


async def look(cluster: LocalCluster) -> Object:
    """One look of a GlobalManager that has just started; returns the condition that it leaves."""
    recorder, down = Recorder(cluster), downstream()
    observed = Observed(timeout_s=90, clock=lambda: SOON_AFTER_BOOT_S)
    async with Informer(cluster, DATASET) as datasets, Informer(cluster, NODE) as nodes, down:
        for informer in (datasets, nodes):
            await informer.wait_synced()
        controller = DatasetController(
            cluster,
            datasets=datasets,
            nodes=nodes,
            holding=Holding(
                cluster,
                objects=datasets,
                nodes=nodes,
                observed=observed,
                downstream=down,
                recorder=recorder,
                timeout_s=1,
            ),
            downstream=down,
            observed=observed,
            recorder=recorder,
            settle_s=0,
            clock=lambda: SOON_AFTER_BOOT_S,
        )
        await controller.reconcile(Key("default", "d"))
        return condition_of(cluster.get(REF), "Ready")


async def test_the_first_look_after_a_start_is_written_however_short_the_machine_is_up(cluster: LocalCluster) -> None:
    add_node(cluster, "edge-0")
    cluster.create(dataset("d", "edge-0"))
    left = await look(cluster)
    assert left["reason"] == "NodeOffline"
    old = {**left, "lastHeartbeatTime": "2026-01-01T00:00:00Z"}
    cluster.patch(REF, {"status": {"conditions": [old]}}, subresource="status")
    assert (await look(cluster))["lastHeartbeatTime"] >= left["lastHeartbeatTime"]
