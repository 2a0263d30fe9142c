# SPDX-License-Identifier: Apache-2.0
"""A GlobalManager's first look at what a fleet holds: the Lease is renewed meanwhile, and others' changes count."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest
from tests.cloud.gm.peers import model, node, service, service_ref

from nereid_cloud.cluster.kinds import DATASET, DEPLOYMENT, JOINT_INFERENCE_SERVICE, MODEL, NODE, POD, SERVICE
from nereid_cloud.cluster.local import LocalCluster
from nereid_cloud.cluster.port import Object
from nereid_cloud.gm.downstream import Callbacks, Downstream
from nereid_cloud.gm.events import Recorder
from nereid_cloud.gm.holding import Holding
from nereid_cloud.gm.informer import Informer
from nereid_cloud.gm.jointinference import Caches, ServiceController
from nereid_cloud.gm.observed import Observed
from nereid_cloud.gm.placement import Placement
from nereid_cloud.gm.policy import Policy
from nereid_cloud.gm.reporting import ServiceReporter
from nereid_cloud.gm.resolving import MADE_AT_ONCE

FLEET = tuple(f"edge-{number:03}" for number in range(3 * MADE_AT_ONCE))
LATE = "edge-late"


class Primed(NamedTuple):
    controller: ServiceController
    downstream: Downstream
    services: Informer

    @property
    def held(self) -> frozenset[str]:
        return self.downstream.nodes_of(self.services.items()[0]["metadata"]["uid"])


async def raise_epoch(above: int) -> int:
    return above + 1


@pytest.fixture
async def fleet(cluster: LocalCluster) -> AsyncIterator[Primed]:
    """A service whose record names a fleet, before anything is assigned."""
    for name in (*FLEET, LATE):
        cluster.create(node(name, zone="a"))
    for made in (node("cloud"), model("little"), model("big"), service(nodeSelector={"zone": "a"})):
        cluster.create(made)
    cluster.patch(service_ref(), {"status": {"heldBy": list(FLEET)}}, subresource="status")
    callbacks = Callbacks(node_exists=lambda _: True, raise_epoch=raise_epoch, on_report=lambda _node, _report: None)
    downstream = Downstream(cluster="c", identity="gm", epoch=1, callbacks=callbacks)
    observed, recorder = Observed(timeout_s=1, clock=time.monotonic), Recorder(cluster)
    async with contextlib.AsyncExitStack() as stack:
        kinds = (JOINT_INFERENCE_SERVICE, MODEL, DATASET, NODE, POD, DEPLOYMENT, SERVICE)
        cached = [await stack.enter_async_context(Informer(cluster, kind)) for kind in kinds]
        services, models, datasets, nodes, pods, deployments, exposed = cached
        for informer in cached:
            await asyncio.wait_for(informer.wait_synced(), 30)
        controller = ServiceController(
            caches=Caches(services=services, models=models, datasets=datasets, nodes=nodes),
            holding=Holding(
                cluster, objects=services, nodes=nodes, observed=observed, downstream=downstream, recorder=recorder,
                timeout_s=1,
            ),
            placement=Placement(
                cluster, pods=pods, deployments=deployments, services=exposed, recorder=recorder, broker="b",
                policy=Policy(),
            ),
            reporter=ServiceReporter(
                cluster, services=services, observed=observed, recorder=recorder, interval_s=1, settle_s=1
            ),
            downstream=downstream, observed=observed, policy=Policy(),
        )  # fmt: skip
        yield Primed(controller, downstream, services)


async def turns_of(work: "asyncio.Task[None]") -> int:
    turns = 0
    while not work.done():
        turns += 1
        await asyncio.sleep(0)
    work.result()
    return turns


async def test_a_fleets_record_leaves_others_their_turn(fleet: Primed) -> None:
    assert await turns_of(asyncio.create_task(fleet.controller.prime())) >= len(FLEET) // MADE_AT_ONCE
    assert fleet.held == set(FLEET)


async def test_what_is_claimed_meanwhile_is_assigned_too(fleet: Primed) -> None:
    work = asyncio.create_task(fleet.controller.prime())
    await asyncio.sleep(0)
    (raw,) = fleet.services.items()
    claimed: Object = {**raw, "status": {"heldBy": [*FLEET, LATE]}}
    fleet.services.written(raw, claimed)
    assert fleet.held == set()  # or it was over before anybody had a turn
    await turns_of(work)
    assert fleet.held == {*FLEET, LATE}
