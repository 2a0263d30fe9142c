# SPDX-License-Identifier: Apache-2.0
"""What the GlobalManager makes of killed processes, lost stores and others who write on its topics."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.cloud.gm.conftest import GmFactory
from tests.cloud.gm.peers import Eyes, Kubelet, Lc, add_node, dataset, service, service_ref
from tests.cloud.gm.test_manager import is_running
from tests.mosquitto import Mosquitto

from nereid_cloud.cluster.kinds import DATASET, JOINT_INFERENCE_SERVICE, LEASE, NODE
from nereid_cloud.cluster.local import LocalCluster
from nereid_cloud.cluster.port import Ref
from nereid_shared import topics
from nereid_shared.digests import digest_of
from nereid_shared.link import Link, LinkSettings, Message
from nereid_shared.messages import Desired, GmAlive, Ledger, NodeAlive, NodeState, TaskStatus, WorkerInfo


@asynccontextmanager
async def gm_process(state: Path, broker: str, identity: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A GlobalManager in a process of its own, killed at the end."""
    log = (state / f"{identity}.log").open("ab")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "nereid_cloud.gm", "--state", str(state), "--broker", broker, "--identity", identity,
        "--lease-seconds", "5", "--metrics-interval", "200ms",
        stderr=log,
    )  # fmt: skip
    try:
        yield process
    finally:
        log.close()
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def listener(broker: str, filter_: str, eyes: Eyes) -> AsyncIterator[tuple[Link, list[Message]]]:
    """A client that hears everything of a filter and may write anything."""
    heard: list[Message] = []

    def take(message: Message) -> None:
        heard.append(message)
        eyes.stir()

    async with Link(
        LinkSettings.from_url(broker, client_id=f"listener-{filter_[-8:]}"), subscriptions={filter_: take}
    ) as link:
        await link.wait_connected()
        yield link, heard


def holder(cluster: LocalCluster) -> str:
    return str(cluster.get(Ref(kind=LEASE, name="nereid-gm", namespace="default"))["spec"]["holderIdentity"])


@pytest.mark.slow
async def test_a_killed_gm_is_followed_by_another_at_a_higher_epoch(
    tmp_path: Path, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, kubelet: Kubelet
) -> None:
    async with Lc(broker.url, "edge-0", eyes) as lc:
        async with gm_process(tmp_path, broker.url, "first") as first:
            ready_cluster.create(service())
            await eyes.until(lambda: is_running(eyes))
            lc.ledger = Ledger(seen=3, easy=3)
            await lc.say_status()
            await eyes.until(lambda: eyes.metrics().get("seen") == "3")
            epoch = lc.documents[-1].epoch
            first.kill()
            await first.wait()
        ready_cluster.create(dataset("pictures", "edge-0"))
        async with gm_process(tmp_path, broker.url, "second"):
            await eyes.until(lambda: lc.names == {"digits", "pictures"})
            assert lc.documents[-1].epoch > epoch
            await eyes.until(lambda: is_running(eyes))
        assert all("digits" in {row.name for row in document.tasks.values()} for document in lc.documents[1:])
        assert eyes.seen_counts == sorted(eyes.seen_counts)


async def test_a_stopped_gm_releases_its_lease_and_says_goodbye(
    tmp_path: Path, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes
) -> None:
    async with listener(broker.url, topics.GM_ALIVE.of(), eyes) as (_, heard):
        async with gm_process(tmp_path, broker.url, "only") as process:
            await eyes.until(lambda: heard)
            process.terminate()
            assert await process.wait() == 0
        await eyes.until(lambda: GmAlive.decode(heard[-1].payload, max_bytes=4096).status == "offline")
        assert holder(ready_cluster) == ""


async def test_a_second_gm_waits_and_takes_over(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes
) -> None:
    ready_cluster.create(dataset("pictures", "edge-0"))
    async with Lc(broker.url, "edge-0", eyes) as lc:
        async with gm(identity="first"):
            await eyes.until(lambda: lc.names == {"pictures"})
            epoch = lc.documents[-1].epoch
            async with gm(identity="second") as second:
                assert holder(ready_cluster) == "first"
                assert not second.done()
        # `second` was a follower all the time and never spoke.
        assert {document.epoch for document in lc.documents} == {epoch}
        async with gm(identity="second"):
            await eyes.until(lambda: lc.documents[-1].epoch > epoch)


async def test_what_an_old_leader_writes_is_replaced(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes
) -> None:
    ready_cluster.create(dataset("pictures", "edge-0"))
    async with (
        gm(),
        Lc(broker.url, "edge-0", eyes) as lc,
        listener(broker.url, "neptune/gm/alive", eyes) as (link, heard),
    ):
        await eyes.until(lambda: lc.names == {"pictures"})
        last = lc.documents[-1]
        stale = Desired(cluster=last.cluster, epoch=last.epoch - 1, rev=99, digest=digest_of({}), tasks={})
        await link.publish(topics.DESIRED.of(node="edge-0"), stale.encode(), retain=True)
        await eyes.until(lambda: lc.documents[-1].rev > last.rev and lc.documents[-1].epoch == last.epoch)
        assert lc.names == {"pictures"}
        late_will = GmAlive(status="offline", cluster=last.cluster, leader="old", epoch=last.epoch - 1)
        await link.publish(topics.GM_ALIVE.of(), late_will.encode(), retain=True)
        await eyes.until(lambda: GmAlive.decode(heard[-1].payload, max_bytes=4096).status == "online")


async def test_another_leader_of_a_higher_epoch_is_outdone_by_the_holder_of_the_lease(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes
) -> None:
    async with gm(), listener(broker.url, topics.GM_ALIVE.of(), eyes) as (link, heard):
        await eyes.until(lambda: heard)
        other = GmAlive(status="online", cluster=ready_cluster.identity(), leader="other", epoch=50)
        await link.publish(topics.GM_ALIVE.of(), other.encode(), retain=True)
        await eyes.until(lambda: GmAlive.decode(heard[-1].payload, max_bytes=4096).epoch > 50)


async def test_a_forged_state_far_ahead_is_told_and_holds_nothing_up(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes
) -> None:
    ready_cluster.create(dataset("pictures", "edge-0"))
    async with Lc(broker.url, "edge-0", eyes) as lc:
        async with gm():
            await eyes.until(lambda: eyes.condition(DATASET, "pictures", "Ready")[0] == "True")
            first = lc.documents[-1]
            forged = NodeState(boot="forged", number=1, cluster=first.cluster, epoch=2**53, rev=1)
            await lc.link.publish(topics.STATE.of(node="edge-0"), forged.encode(), retain=True)
            await eyes.until(lambda: "StateAhead" in eyes.reasons())
            await lc.say_state()
            ready_cluster.create(dataset("more", "edge-0"))
            await eyes.until(lambda: eyes.condition(DATASET, "more", "Ready")[0] == "True")
            assert lc.documents[-1].epoch == first.epoch
            await lc.link.publish(topics.STATE.of(node="edge-0"), forged.encode(), retain=True)
        async with gm():
            await eyes.until(lambda: lc.applied is not None and lc.applied.epoch > first.epoch)
            assert lc.documents[-1].epoch == first.epoch + 1


async def test_a_document_of_a_higher_epoch_makes_the_leader_lead_above_it(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes
) -> None:
    ready_cluster.create(dataset("pictures", "edge-0"))
    async with gm(), Lc(broker.url, "edge-0", eyes) as lc:
        await eyes.until(lambda: lc.names == {"pictures"})
        foreign = Desired(cluster=lc.documents[-1].cluster, epoch=50, rev=1, digest=digest_of({}), tasks={})
        await lc.link.publish(topics.DESIRED.of(node="edge-0"), foreign.encode(), retain=True)
        await eyes.until(lambda: lc.documents[-1].epoch > 50)
        await eyes.until(lambda: lc.names == {"pictures"})


async def test_a_document_that_the_broker_took_no_notice_of_comes_again(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes
) -> None:
    ready_cluster.create(dataset("one", "edge-0"))
    async with gm(), Lc(broker.url, "edge-0", eyes) as lc:
        await eyes.until(lambda: lc.names == {"one"})
        broker.send(signal.SIGSTOP)
        ready_cluster.create(dataset("two", "edge-0"))
        await eyes.until(lambda: ((eyes.get(DATASET, "two") or {}).get("status") or {}).get("conditions"))
        broker.send(signal.SIGKILL)  # `kill` alone would let it go on first
        broker.kill()
        broker.start()
        await eyes.until(lambda: lc.names == {"one", "two"})


@pytest.mark.slow
async def test_a_broker_that_lost_its_store_is_filled_again(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes
) -> None:
    ready_cluster.create(dataset("pictures", "edge-0"))
    async with gm():
        async with Lc(broker.url, "edge-0", eyes) as lc:
            await eyes.until(lambda: lc.names == {"pictures"})
        broker.kill()
        broker.start()
        async with listener(broker.url, topics.DESIRED.of(node="edge-0"), eyes) as (_, heard):
            await eyes.until(lambda: heard)
            document = Desired.decode(heard[0].payload, max_bytes=topics.DESIRED.max_bytes)
            assert {row.name for row in document.tasks.values()} == {"pictures"}


async def test_changes_made_while_the_broker_was_down_arrive(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes
) -> None:
    ready_cluster.create(dataset("one", "edge-0"))
    async with gm(), Lc(broker.url, "edge-0", eyes) as lc:
        await eyes.until(lambda: lc.names == {"one"})
        broker.kill()
        ready_cluster.create(dataset("two", "edge-0"))
        broker.start()
        await eyes.until(lambda: lc.names == {"one", "two"})


async def test_a_deleted_node_leaves_nothing_on_the_broker(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes
) -> None:
    add_node(ready_cluster, "edge-1")
    ready_cluster.create(dataset("pictures", "edge-1"))
    async with gm():
        async with Lc(broker.url, "edge-1", eyes) as lc:
            await eyes.until(lambda: lc.names == {"pictures"})
        async with listener(broker.url, topics.DESIRED.of(node="edge-1"), eyes) as (_, heard):
            await eyes.until(lambda: heard)
            ready_cluster.delete(Ref(kind=NODE, name="edge-1"))
            await eyes.until(lambda: heard[-1].payload == b"")


async def test_the_last_word_of_an_unknown_services_cloud_worker_does_not_stay(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, kubelet: Kubelet
) -> None:
    early, late = (topics.CLOUD_INFO.of(service="gone-00000000", pod=pod) for pod in ("early", "late"))
    word = WorkerInfo(
        name="w", namespace="default", owner_name="gone", owner_kind="jointinferenceservice", status="offline", boot="b"
    ).encode()
    async with listener(broker.url, topics.CLOUD_INFO.filter(), eyes) as (link, heard):

        def kept() -> set[str]:
            return {topic for topic, payload in {one.topic: one.payload for one in heard}.items() if payload}

        await link.publish(early, word, retain=True)
        await eyes.until(lambda: early in kept())
        async with gm(), Lc(broker.url, "edge-0", eyes):
            ready_cluster.create(service())
            await eyes.until(lambda: is_running(eyes))
            await eyes.until(lambda: early not in kept())
            await link.publish(late, word, retain=True)
            await eyes.until(lambda: late in kept())
            await eyes.until(lambda: late not in kept())
            assert len(kept()) == 1


async def test_a_status_of_a_task_that_the_node_does_not_hold_is_refused(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, kubelet: Kubelet
) -> None:
    add_node(ready_cluster, "edge-1")
    async with gm(), Lc(broker.url, "edge-0", eyes) as lc, Lc(broker.url, "edge-1", eyes) as other:
        ready_cluster.create(service())
        await eyes.until(lambda: is_running(eyes))
        uid = next(iter(lc.tasks))
        lie = TaskStatus(
            phase="inference", status="failed", boot=other.boot, number=1, uid=uid, generation=1, ledger=Ledger(seen=99)
        )
        where = topics.STATUS.of(node="edge-1", namespace="default", plural="jointinferenceservices", name="digits")
        await other.link.publish(where, lie.encode())
        lc.ledger = Ledger(seen=1, easy=1)
        await lc.say_status()
        await eyes.until(lambda: eyes.metrics().get("seen") == "1")
        assert is_running(eyes)


async def test_a_late_will_of_a_former_connection_does_not_count(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, kubelet: Kubelet
) -> None:
    async with gm(), Lc(broker.url, "edge-0", eyes) as lc:
        ready_cluster.create(service())
        await eyes.until(lambda: is_running(eyes))
        will = NodeAlive(status="offline", install="i", boot="former", connection=1)
        await lc.link.publish(topics.NODE_ALIVE.of(node="edge-0"), will.encode())
        lc.ledger = Ledger(seen=1, easy=1)
        await lc.say_status()
        await eyes.until(lambda: eyes.metrics().get("seen") == "1")
        assert is_running(eyes)


async def test_two_controllers_under_one_name_are_told_of(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes
) -> None:
    async with gm(), Lc(broker.url, "edge-0", eyes) as one, Lc(broker.url, "edge-0", eyes) as clone:
        ready_cluster.create(dataset("pictures", "edge-0"))
        await eyes.until(lambda: one.names == clone.names == {"pictures"})
        for _ in range(2):
            await one.say_state()
            await clone.say_state()
        await eyes.until(lambda: "DuplicateIdentity" in eyes.reasons())


async def test_rubbish_on_the_topics_is_dead_lettered_and_nothing_else(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, kubelet: Kubelet
) -> None:
    async with gm(), Lc(broker.url, "edge-0", eyes) as lc:
        for topic in (topics.STATE, topics.NODE_ALIVE, topics.SYNC):
            await lc.link.publish(topic.of(node="edge-0"), b"\xff not json")
        await lc.link.publish(topics.GM_ALIVE.of(), b"\xff", retain=True)
        await lc.link.publish(topics.STATE.of(node="edge-0"), b'{"schema": "9.0"}')
        ready_cluster.create(service())
        await eyes.until(lambda: is_running(eyes))
        ready_cluster.delete(service_ref())
        await eyes.until(lambda: eyes.get(JOINT_INFERENCE_SERVICE, "digits") is None)
