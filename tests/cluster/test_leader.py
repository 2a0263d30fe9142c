# SPDX-License-Identifier: Apache-2.0
"""The leader's Lease on a real API server, and on one that fails."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.cluster.control_plane import ApiServer
from tests.cluster.faults import FaultProxy, Request
from tests.cluster.kubectl import Kubectl

from nereid_cloud.cluster.kubernetes import KubernetesCluster
from nereid_cloud.gm.leader import Leader, LeaseSettings
from nereid_shared.errors import Conflict

pytestmark = pytest.mark.cluster

WITHIN_S = 30.0


@pytest.fixture
def proxy(api_server: ApiServer) -> Iterator[FaultProxy]:
    with FaultProxy(api_server.kubeconfig) as between:
        yield between


@pytest.fixture
def cluster(proxy: FaultProxy, tmp_path: Path) -> Iterator[KubernetesCluster]:
    with closing(KubernetesCluster(kubeconfig=proxy.kubeconfig(tmp_path))) as through:
        yield through


def candidate(
    cluster: KubernetesCluster, kubectl: Kubectl, identity: str, *, lease_s: float = 2.0,
    clock: Callable[[], float] = time.monotonic,
) -> Leader:  # fmt: skip
    return Leader(cluster, LeaseSettings(identity=identity, namespace=kubectl.namespace, lease_s=lease_s), clock=clock)


async def acquired(leader: Leader) -> int:
    return await asyncio.wait_for(leader.acquire(), WITHIN_S)


async def test_the_epoch_rises_with_each_leader_and_a_release_lets_the_next_in_at_once(
    cluster: KubernetesCluster, kubectl: Kubectl
) -> None:
    first = candidate(cluster, kubectl, "first", lease_s=60)
    assert await acquired(first) == 1
    await first.release()
    assert kubectl.json("lease", "nereid-gm")["spec"].get("holderIdentity", "") == ""
    assert await asyncio.wait_for(candidate(cluster, kubectl, "second", lease_s=60).acquire(), WITHIN_S) == 2


async def test_of_two_candidates_one_leads_and_the_other_follows_its_silence(
    cluster: KubernetesCluster, kubectl: Kubectl
) -> None:
    both = [asyncio.create_task(candidate(cluster, kubectl, name).acquire()) for name in ("one", "two")]
    assert sorted(await asyncio.wait_for(asyncio.gather(*both), WITHIN_S)) == [1, 2]


async def test_a_lease_deleted_under_its_holder_comes_back_at_a_higher_epoch(
    cluster: KubernetesCluster, kubectl: Kubectl
) -> None:
    leader = candidate(cluster, kubectl, "one")
    await acquired(leader)
    told: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    holding = asyncio.create_task(leader.hold(told.set_result))
    await asyncio.to_thread(kubectl, "delete", "lease", "nereid-gm")
    assert await asyncio.wait_for(told, WITHIN_S) == 2
    holding.cancel()


async def test_a_renewal_that_fails_now_and_then_costs_no_leadership(
    cluster: KubernetesCluster, kubectl: Kubectl, proxy: FaultProxy
) -> None:
    leader = candidate(cluster, kubectl, "one", lease_s=3.0, clock=lambda: 0.0)  # by it no renewal is ever too late
    await acquired(leader)
    holding = asyncio.create_task(leader.hold(lambda _: None))
    before = kubectl.json("lease", "nereid-gm")["spec"]["renewTime"]
    proxy.refuse(500, "InternalError", when=is_write)
    proxy.refuse(429, "TooManyRequests", when=is_write, retry_after_s=0)
    async with asyncio.timeout(WITHIN_S):
        while (await asyncio.to_thread(kubectl.json, "lease", "nereid-gm"))["spec"]["renewTime"] == before:
            await asyncio.sleep(0.05)
    assert sum(is_write(request) for request in proxy.requests) >= 4
    assert not holding.done()
    holding.cancel()


async def test_a_leader_that_cannot_renew_stops_before_another_starts(
    cluster: KubernetesCluster, api_server: ApiServer, kubectl: Kubectl, proxy: FaultProxy
) -> None:
    old = candidate(cluster, kubectl, "old")
    await acquired(old)
    with closing(KubernetesCluster(kubeconfig=api_server.kubeconfig)) as direct:
        proxy.refuse(500, "InternalError", when=lambda _request: True, times=1_000)
        holding = asyncio.create_task(old.hold(lambda _: None))
        # Its time goes slowly until the old one has stopped: 20 s, and then no more.
        young = candidate(
            direct, kubectl, "young", clock=lambda: time.monotonic() / 10 + (3600.0 if holding.done() else 0.0)
        )
        taking = asyncio.create_task(young.acquire())
        await asyncio.wait_for(holding, WITHIN_S)
        assert not taking.done()
        assert await asyncio.wait_for(taking, WITHIN_S) == 2
        proxy.refuse_nothing()
        with pytest.raises(Conflict):
            await old.raise_epoch(above=old.epoch)


def is_write(request: Request) -> bool:
    return request.method in {"PUT", "POST"}
