# SPDX-License-Identifier: Apache-2.0
import asyncio
import time
from collections.abc import Callable

import pytest

from nereid_cloud.cluster.kinds import LEASE
from nereid_cloud.cluster.local import LocalCluster
from nereid_cloud.cluster.port import Object, Ref
from nereid_cloud.gm.leader import Leader, LeaseSettings
from nereid_cloud.gm.names import EPOCH_ANNOTATION
from nereid_shared.errors import Conflict

REF = Ref(kind=LEASE, name="nereid-gm", namespace="default")


WAIT_S = 30.0


def candidate(
    cluster: LocalCluster, identity: str, *, seen: int = 0, lease_s: float = 1.0,
    clock: Callable[[], float] = time.monotonic,
) -> Leader:  # fmt: skip
    return Leader(cluster, LeaseSettings(identity=identity, lease_s=lease_s), seen_epoch=seen, clock=clock)


def standing() -> float:
    """A clock by which no renewal is ever too late."""
    return 0.0


def lease(cluster: LocalCluster) -> Object:
    return cluster.get(REF)


async def test_the_first_leader_makes_the_lease(cluster: LocalCluster) -> None:
    assert await candidate(cluster, "a").acquire() == 1
    assert lease(cluster)["spec"]["holderIdentity"] == "a"
    assert lease(cluster)["metadata"]["annotations"][EPOCH_ANNOTATION] == "1"


async def test_the_same_holder_leads_at_a_higher_epoch_after_its_restart(cluster: LocalCluster) -> None:
    await candidate(cluster, "a").acquire()
    assert await candidate(cluster, "a").acquire() == 2


async def test_the_epoch_is_above_what_any_node_has_seen(cluster: LocalCluster) -> None:
    assert await candidate(cluster, "a", seen=41).acquire() == 42
    assert await candidate(cluster, "a", seen=99).acquire() == 100
    cluster.delete(REF)
    assert await candidate(cluster, "a", seen=100).acquire() == 101


@pytest.mark.parametrize("forged", ["9223372036854775806", str(10**26), "9" * 5000, str(2**53 - 2), "abc", "-4"])
async def test_an_epoch_that_nobody_counted_to_is_not_believed(cluster: LocalCluster, forged: str) -> None:
    await candidate(cluster, "a", seen=41).acquire()
    cluster.patch(REF, {"metadata": {"annotations": {EPOCH_ANNOTATION: forged}}})
    assert await candidate(cluster, "a", seen=42).acquire() == 43


@pytest.mark.slow
async def test_a_follower_waits_while_the_leader_renews(cluster: LocalCluster) -> None:
    def version() -> int:
        return int(lease(cluster)["metadata"]["resourceVersion"])

    # To the follower each renewal, and nothing else, takes two leases' time.
    leader = candidate(cluster, "a", clock=standing)
    follower = candidate(cluster, "b", clock=lambda: 2.0 * version())
    await leader.acquire()
    begun = version()
    holding = asyncio.create_task(leader.hold(lambda _: None))
    following = asyncio.create_task(follower.acquire())
    async with asyncio.timeout(WAIT_S):
        while version() < begun + 8:
            await asyncio.sleep(0.05)
    assert not following.done()
    assert not holding.done()
    holding.cancel()
    following.cancel()


async def test_a_follower_takes_over_when_the_leader_is_silent(cluster: LocalCluster) -> None:
    await candidate(cluster, "a").acquire()
    assert await asyncio.wait_for(candidate(cluster, "b").acquire(), WAIT_S) == 2
    assert lease(cluster)["spec"]["leaseTransitions"] == 2


async def test_a_released_lease_is_taken_at_once(cluster: LocalCluster) -> None:
    leader = candidate(cluster, "a", lease_s=60)
    await leader.acquire()
    await leader.release()
    assert await asyncio.wait_for(candidate(cluster, "b", lease_s=60).acquire(), WAIT_S) == 2


async def test_a_leader_that_was_replaced_stops(cluster: LocalCluster) -> None:
    old = candidate(cluster, "a")
    await old.acquire()
    await asyncio.wait_for(candidate(cluster, "b").acquire(), WAIT_S)
    await asyncio.wait_for(old.hold(lambda _: None), WAIT_S)
    with pytest.raises(Conflict):
        await old.raise_epoch(above=old.epoch)
    await old.release()
    assert lease(cluster)["spec"]["holderIdentity"] == "b"


async def test_the_same_identity_elsewhere_makes_the_first_one_stop(cluster: LocalCluster) -> None:
    first = candidate(cluster, "a")
    await first.acquire()
    await candidate(cluster, "a").acquire()
    await asyncio.wait_for(first.hold(lambda _: None), WAIT_S)


async def test_a_lease_deleted_under_its_holder_comes_back_at_a_higher_epoch(cluster: LocalCluster) -> None:
    leader = candidate(cluster, "a", clock=standing)
    await leader.acquire()
    told: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    holding = asyncio.create_task(leader.hold(told.set_result))
    cluster.delete(REF)
    assert await asyncio.wait_for(told, WAIT_S) == 2
    assert lease(cluster)["metadata"]["annotations"][EPOCH_ANNOTATION] == "2"
    holding.cancel()


async def test_somebody_elses_label_on_the_lease_changes_nothing(cluster: LocalCluster) -> None:
    leader = candidate(cluster, "a", clock=standing)
    await leader.acquire()
    holding = asyncio.create_task(leader.hold(lambda _: None))
    before = cluster.patch(REF, {"metadata": {"labels": {"seen": "yes"}}})["spec"]["renewTime"]

    async def renewed() -> None:
        while lease(cluster)["spec"]["renewTime"] == before:
            await asyncio.sleep(0.05)

    await asyncio.wait_for(renewed(), WAIT_S)
    assert not holding.done()
    assert leader.epoch == 1
    assert lease(cluster)["metadata"]["labels"] == {"seen": "yes"}
    holding.cancel()


async def test_the_epoch_is_raised_above_what_was_seen(cluster: LocalCluster) -> None:
    leader = candidate(cluster, "a")
    await leader.acquire()
    assert await leader.raise_epoch(above=7) == 8
    assert await leader.raise_epoch(above=3) == 8
    assert lease(cluster)["metadata"]["annotations"][EPOCH_ANNOTATION] == "8"
