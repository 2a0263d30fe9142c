# SPDX-License-Identifier: Apache-2.0
import asyncio
import time

from tests.cloud.gm.peers import add_node

from nereid_cloud.cluster.kinds import DATASET, NODE
from nereid_cloud.cluster.local import LocalCluster
from nereid_cloud.cluster.port import Object
from nereid_cloud.gm.downstream import Callbacks, Downstream
from nereid_cloud.gm.events import Recorder
from nereid_cloud.gm.holding import Holding
from nereid_cloud.gm.informer import Informer
from nereid_cloud.gm.observed import Observed

HELD: Object = {"metadata": {"uid": "u"}, "status": {"heldBy": ["edge-0", "edge-1", "no-more"]}}


async def raise_epoch(above: int) -> int:
    return above + 1


async def test_a_node_is_awaited_while_it_may_hold_what_it_shall_not(cluster: LocalCluster) -> None:
    for name in ("edge-0", "edge-1"):
        add_node(cluster, name)
    callbacks = Callbacks(node_exists=lambda _: True, raise_epoch=raise_epoch, on_report=lambda _node, _report: None)
    async with Informer(cluster, NODE) as nodes, Informer(cluster, DATASET) as datasets:
        await asyncio.wait_for(nodes.wait_synced(), 30)
        holding = Holding(
            cluster, objects=datasets, nodes=nodes, observed=Observed(timeout_s=1, clock=time.monotonic),
            downstream=Downstream(cluster="c", identity="gm", epoch=1, callbacks=callbacks),
            recorder=Recorder(cluster), timeout_s=1,
        )  # fmt: skip
        assert holding.still_held_by(HELD, wanted=["edge-1"]) == {"edge-0", "edge-1"}
        assert (holding.awaiting("edge-0"), holding.awaiting("edge-1"), holding.awaiting("no-more")) == (["u"], [], [])
        assert holding.still_held_by(HELD, wanted=["edge-0", "edge-1"]) == {"edge-0", "edge-1"}
        assert holding.awaiting("edge-0") == []
        holding.still_held_by(HELD, wanted=[])
        holding.forget("u")
        assert holding.awaiting("edge-0") == holding.awaiting("edge-1") == []
