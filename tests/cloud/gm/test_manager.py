# SPDX-License-Identifier: Apache-2.0
import asyncio
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.cloud.gm.conftest import GmFactory
from tests.cloud.gm.peers import Eyes, Kubelet, Lc, add_node, dataset, model, service, service_ref, set_ready
from tests.mosquitto import Mosquitto

from nereid_cloud.cluster.kinds import DATASET, DEPLOYMENT, EVENT, JOINT_INFERENCE_SERVICE, LEASE, MODEL, POD
from nereid_cloud.cluster.local import DATABASE, LocalCluster
from nereid_cloud.cluster.port import Kind, Object, ObjectList, Ref, WatchEvent
from nereid_cloud.gm.names import FINALIZER
from nereid_cloud.gm.pods import task_in
from nereid_shared import topics
from nereid_shared.messages import DatasetStatistics, Ledger, NodeAlive, NodeState


class GatedCluster(LocalCluster):
    """A cluster in which patches wait while the gate is shut."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.gate = threading.Event()
        self.gate.set()

    def patch(self, *args: Any, **options: Any) -> Object:
        self.gate.wait(30)
        return super().patch(*args, **options)


class StricterCluster(LocalCluster):
    """A cluster whose services a newer GlobalManager cannot parse."""

    def list(self, kind: Kind, **options: Any) -> ObjectList:
        listed = super().list(kind, **options)
        return ObjectList(items=[_unparsable(obj) for obj in listed.items], resource_version=listed.resource_version)

    def watch(self, kind: Kind, **options: Any) -> Iterator[WatchEvent]:
        for event in super().watch(kind, **options):
            yield WatchEvent(type=event.type, object=_unparsable(event.object))

    def patch(self, *args: Any, **options: Any) -> Object:
        return _unparsable(super().patch(*args, **options))  # what a write returns goes into the cache too


def _unparsable(obj: Object) -> Object:
    is_service = obj.get("kind") == JOINT_INFERENCE_SERVICE.kind
    return {**obj, "spec": {"cloudWorker": obj["spec"]["cloudWorker"]}} if is_service else obj


LEASE_REF = Ref(kind=LEASE, name="nereid-gm", namespace="default")


def is_running(eyes: Eyes, name: str = "digits") -> bool:
    return eyes.condition(JOINT_INFERENCE_SERVICE, name, "Ready")[0] == "True" and eyes.phase(name) == "Running"


async def test_a_service_becomes_ready_when_its_workers_say_so(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, kubelet: Kubelet
) -> None:
    async with gm(), Lc(broker.url, "edge-0", eyes) as lc:
        ready_cluster.create(service())
        await eyes.until(lambda: is_running(eyes))
        status = ready_cluster.get(service_ref())["status"]
        assert [c["type"] for c in status["conditions"]] == ["Ready", "Pending", "Failed", "Running"]
        assert (status["active"], status["failed"]) == (2, 0)
        assert status["heldBy"] == ["edge-0"]
        assert lc.names == {"digits"}
        await eyes.until(lambda: "default/jointinferenceservices/digits/insert" in lc.events)
        await eyes.until(lambda: "Running" in eyes.reasons())


async def test_a_service_waits_for_its_model_and_heals(
    gm: GmFactory, cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, kubelet: Kubelet
) -> None:
    add_node(cluster, "cloud")
    add_node(cluster, "edge-0")
    async with gm(), Lc(broker.url, "edge-0", eyes):
        cluster.create(service())
        await eyes.until(lambda: eyes.condition(JOINT_INFERENCE_SERVICE, "digits", "Ready")[1] == "ModelNotFound")
        assert eyes.phase() == "Pending"
        assert eyes.all(POD) == []
        await eyes.until(lambda: "ModelNotFound" in eyes.reasons())
        cluster.create(model("little"))
        cluster.create(model("big"))
        await eyes.until(lambda: is_running(eyes))


@pytest.mark.parametrize(
    ("edge", "reason"),
    [
        ({"nodeName": "nowhere"}, "NodeNotFound"),
        ({"nodeSelector": {"zone": "none"}}, "NodeNotFound"),
        ({"hardExampleAlgorithm": {"name": "Mine"}}, "RuleUnknown"),
        ({"dataset": {"name": "none"}}, "DatasetNotFound"),
        ({"dataset": {"labels": {"a": "b"}}}, "DatasetNotFound"),
    ],
)
async def test_what_is_missing_is_told_by_a_reason(
    gm: GmFactory, ready_cluster: LocalCluster, eyes: Eyes, edge: dict[str, Any], reason: str
) -> None:
    async with gm():
        ready_cluster.create(service(**edge))
        await eyes.until(lambda: eyes.condition(JOINT_INFERENCE_SERVICE, "digits", "Ready") == ("False", reason))
        assert eyes.phase() == "Pending"


async def test_counters_reach_the_status(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, kubelet: Kubelet
) -> None:
    async with gm(), Lc(broker.url, "edge-0", eyes) as lc:
        ready_cluster.create(service())
        await eyes.until(lambda: is_running(eyes))
        lc.ledger = Ledger(seen=10, easy=7, hard=2, failed={"undecodable": 1}, answered=1, pending=1, bytes_up=9)
        await lc.say_status()
        await eyes.until(lambda: eyes.metrics().get("seen") == "10")
        metrics = eyes.metrics()
        assert metrics["failed.undecodable"] == "1"
        assert metrics["inferenceNumber"] == "9"
        assert metrics["uploadCloudRatio"] == "0.1111"
        assert metrics["bytesUp"] == "9"
        first = ready_cluster.get(service_ref())["status"]["lastReportTime"]
        lc.ledger = Ledger(seen=11, easy=8, hard=2, failed={"undecodable": 1}, answered=1, pending=1, bytes_up=9)
        await eyes.until(lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") > first)
        await lc.say_status()
        await eyes.until(lambda: eyes.metrics().get("seen") == "11")
        assert ready_cluster.get(service_ref())["status"]["lastReportTime"] > first


async def test_a_silent_node_is_told_with_the_moment_of_its_last_word(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, kubelet: Kubelet
) -> None:
    async with gm("--node-timeout", "1s"), Lc(broker.url, "edge-0", eyes):
        ready_cluster.create(service())
        await eyes.until(
            lambda: eyes.condition(JOINT_INFERENCE_SERVICE, "digits", "Ready") == ("Unknown", "NodeOffline")
        )
        assert "silent since 2" in message_of(eyes)
        assert message_of(eyes).endswith("for more than 1 s")


async def test_an_absence_or_a_number_that_was_forged_heals_with_the_nodes_next_word(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, kubelet: Kubelet
) -> None:
    def is_offline() -> bool:
        return eyes.condition(JOINT_INFERENCE_SERVICE, "digits", "Ready") == ("Unknown", "NodeOffline")

    async with Lc(broker.url, "edge-0", eyes) as lc:
        async with gm():
            ready_cluster.create(service())
            await eyes.until(lambda: is_running(eyes))
            forged = NodeState(boot=lc.boot, number=2**53, digest="forged", tasks={})
            await lc.link.publish(topics.STATE.of(node="edge-0"), forged.encode())
            offline = NodeAlive(status="offline", install="i", boot=lc.boot, connection=lc.link.connections)
            await lc.link.publish(topics.NODE_ALIVE.of(node="edge-0"), offline.encode())
            await eyes.until(is_offline)
            await lc.say_state()
            await eyes.until(lambda: is_running(eyes))
        await lc.link.publish(topics.NODE_ALIVE.of(node="edge-0"), b"", retain=True)
        async with gm("--node-timeout", "2s"), asyncio.timeout(30):
            await eyes.until(is_offline)
            while not is_running(eyes):  # a word of this node lasts 2 s, which a busy machine may let pass
                await lc.say_state()
                await asyncio.sleep(0.1)


async def test_a_global_manager_without_its_broker_calls_nothing_ready(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, kubelet: Kubelet
) -> None:
    async with gm("--node-timeout", "5s"), Lc(broker.url, "edge-0", eyes) as lc:
        ready_cluster.create(service())
        await eyes.until(lambda: is_running(eyes))
        broker.kill()
        await eyes.until(
            lambda: eyes.condition(JOINT_INFERENCE_SERVICE, "digits", "Ready") == ("Unknown", "NodeOffline")
        )
        assert "the GlobalManager has no connection to the cloud broker" in message_of(eyes)
        broker.start()
        await lc.link.wait_connected()
        await eyes.until(lambda: is_running(eyes))


async def test_what_a_node_says_of_a_dataset_is_its_readers_reason(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, kubelet: Kubelet
) -> None:
    ready_cluster.create(dataset("pictures", "edge-0"))
    async with gm("--metrics-interval", "1h"), Lc(broker.url, "edge-0", eyes) as lc:
        ready_cluster.create(service(dataset={"name": "pictures"}))
        await eyes.until(lambda: is_running(eyes))
        await eyes.until(lambda: "Running" in eyes.reasons())
        lc.dataset_fault = "DatasetNotFound"
        await lc.say_status()
        await eyes.until(
            lambda: eyes.condition(JOINT_INFERENCE_SERVICE, "digits", "Ready") == ("False", "DatasetNotFound")
        )
        assert "Dataset pictures on node edge-0" in message_of(eyes)
        lc.dataset_fault = ""
        await lc.say_status()
        await eyes.until(lambda: is_running(eyes))


async def test_a_service_whose_source_is_finished_is_ready_and_says_so(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, kubelet: Kubelet
) -> None:
    async with gm(), Lc(broker.url, "edge-0", eyes) as lc:
        ready_cluster.create(service())
        await eyes.until(lambda: is_running(eyes))
        await lc.say_status("completed")
        await eyes.until(
            lambda: eyes.condition(JOINT_INFERENCE_SERVICE, "digits", "Running") == ("True", "SourceFinished")
        )
        assert eyes.condition(JOINT_INFERENCE_SERVICE, "digits", "Ready") == ("True", "SourceFinished")


async def test_a_damaged_file_of_a_worker_that_runs_is_an_event_of_its_service(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, kubelet: Kubelet
) -> None:
    async with gm(), Lc(broker.url, "edge-0", eyes) as lc:
        ready_cluster.create(service())
        await eyes.until(lambda: is_running(eyes))
        for seen in (1, 2):
            lc.ledger = Ledger(seen=seen, easy=seen)
            await lc.say_status(reason="PageDamaged")
            await eyes.until(lambda: eyes.metrics().get("seen") == str(lc.ledger.seen))
        await eyes.until(lambda: "PageDamaged" in eyes.reasons())
        assert is_running(eyes)
        await lc.say_status()
        await lc.say_status(reason="SpoolDamaged")
        await eyes.until(lambda: "SpoolDamaged" in eyes.reasons())
    told = [event for event in eyes.all(EVENT) if event["reason"] == "PageDamaged"]
    assert [(one["type"], one["involvedObject"]["name"], one["count"]) for one in told] == [("Warning", "digits", 1)]
    assert told[0]["message"].startswith("edge-0: ")


async def test_a_failed_worker_makes_the_service_failed(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, kubelet: Kubelet
) -> None:
    async with gm(), Lc(broker.url, "edge-0", eyes) as lc:
        ready_cluster.create(service())
        await eyes.until(lambda: is_running(eyes))
        await lc.say_status("failed", reason="ModelCorrupt")
        await eyes.until(lambda: eyes.phase() == "Failed")
        assert eyes.condition(JOINT_INFERENCE_SERVICE, "digits", "Ready") == ("False", "ModelCorrupt")
        await lc.say_status("running")
        await eyes.until(lambda: is_running(eyes))


async def test_a_node_that_is_not_ready_makes_the_service_unknown(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, kubelet: Kubelet
) -> None:
    async with gm(), Lc(broker.url, "edge-0", eyes):
        ready_cluster.create(service())
        await eyes.until(lambda: is_running(eyes))
        set_ready(ready_cluster, "edge-0", ready=False)
        await eyes.until(
            lambda: eyes.condition(JOINT_INFERENCE_SERVICE, "digits", "Running") == ("Unknown", "NodeOffline")
        )
        assert eyes.condition(JOINT_INFERENCE_SERVICE, "digits", "Ready")[0] == "Unknown"
        assert eyes.phase() == "Running"


async def test_a_silenced_local_controller_makes_the_service_unknown(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, kubelet: Kubelet
) -> None:
    async with gm(), Lc(broker.url, "edge-0", eyes) as lc:
        ready_cluster.create(service())
        await eyes.until(lambda: is_running(eyes))
        lc.link.abort()
        await eyes.until(lambda: eyes.condition(JOINT_INFERENCE_SERVICE, "digits", "Running")[0] == "Unknown")
        await eyes.until(lambda: is_running(eyes))


async def test_a_deleted_service_goes_when_the_node_let_go(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, kubelet: Kubelet
) -> None:
    async with gm(), Lc(broker.url, "edge-0", eyes) as lc:
        ready_cluster.create(service())
        await eyes.until(lambda: is_running(eyes))
        ready_cluster.delete(service_ref())
        await eyes.until(lambda: eyes.get(JOINT_INFERENCE_SERVICE, "digits") is None)
        assert lc.names == set()
        assert "DeleteUndelivered" not in eyes.reasons()
        await eyes.until(lambda: not eyes.all(POD) and not eyes.all(DEPLOYMENT))
        await eyes.until(lambda: "default/jointinferenceservices/digits/delete" in lc.events)


@pytest.mark.slow
async def test_a_deletion_does_not_hang_on_a_node_that_does_not_answer(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, kubelet: Kubelet
) -> None:
    async with gm(), Lc(broker.url, "edge-0", eyes) as lc:
        ready_cluster.create(service())
        await eyes.until(lambda: is_running(eyes))
        lc.obeys = False
        ready_cluster.delete(service_ref())
        await eyes.until(lambda: eyes.get(JOINT_INFERENCE_SERVICE, "digits") is None)
        await eyes.until(lambda: "DeleteUndelivered" in eyes.reasons())  # another cache: it may come a moment later
        await eyes.until(lambda: lc.documents[-1].tasks == {})


async def test_a_node_that_was_offline_through_the_deletion_is_told_when_it_returns(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, kubelet: Kubelet
) -> None:
    async with gm("--delete-timeout", "1h"):
        async with Lc(broker.url, "edge-0", eyes) as lc:
            ready_cluster.create(service())
            await eyes.until(lambda: is_running(eyes))
            applied = lc.applied
            set_ready(ready_cluster, "edge-0", ready=False)
        ready_cluster.delete(service_ref())
        await eyes.until(lambda: eyes.get(JOINT_INFERENCE_SERVICE, "digits") is None)
        async with Lc(broker.url, "edge-0", eyes, applied=applied) as lc:
            await eyes.until(lambda: lc.names == set())


async def test_a_dataset_is_counted_by_its_node(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes
) -> None:
    async with gm(), Lc(broker.url, "edge-0", eyes) as lc:
        ready_cluster.create(dataset("pictures", "edge-0"))
        await eyes.until(lambda: eyes.condition(DATASET, "pictures", "Ready") == ("True", "Counted"))
        assert (eyes.get(DATASET, "pictures") or {})["status"]["numberOfSamples"] == 7
        await lc.say_status("failed", reason="DatasetUnreadable")
        await eyes.until(lambda: eyes.condition(DATASET, "pictures", "Ready") == ("False", "DatasetUnreadable"))
        ready_cluster.delete(Ref(kind=DATASET, name="pictures", namespace="default"))
        await eyes.until(lambda: eyes.get(DATASET, "pictures") is None)
        assert lc.names == set()


async def test_what_a_node_finds_in_a_dataset_is_in_its_status_within_bounds(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes
) -> None:
    found = DatasetStatistics(
        files=1, bytes=9, boxes=60, number_of_classes=60, min_width=4, digest="sha256:1",
        classes={f"c{number:02}": 60 - number for number in range(60)}, problems=["d.csv:7: x"] * 9,
    )  # fmt: skip
    async with gm(), Lc(broker.url, "edge-0", eyes) as lc:
        ready_cluster.create(dataset("pictures", "edge-0"))
        await eyes.until(lambda: eyes.condition(DATASET, "pictures", "Ready") == ("True", "Counted"))
        await lc.say_status(samples=7, statistics=found)
        said = await eyes.until(lambda: (eyes.get(DATASET, "pictures") or {})["status"].get("statistics"))
        assert (said["files"], said["minWidth"], said["numberOfClasses"], said["corrupt"]) == (1, 4, 60, 0)
        assert said["classes"][:2] == [{"name": "c00", "count": 60}, {"name": "c01", "count": 59}]
        assert (len(said["classes"]), len(said["problems"]), "schema" in said) == (50, 5, False)
        await lc.say_status(samples=7, statistics=replace(found, classes={"one": 1}, problems=[]))
        await eyes.until(
            lambda: (
                (eyes.get(DATASET, "pictures") or {})["status"]["statistics"]["classes"]
                == [{"name": "one", "count": 1}]
            )
        )


async def test_a_service_moves_with_its_node_name(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, kubelet: Kubelet
) -> None:
    add_node(ready_cluster, "edge-1")
    async with gm(), Lc(broker.url, "edge-0", eyes) as here, Lc(broker.url, "edge-1", eyes) as there:
        ready_cluster.create(service())
        await eyes.until(lambda: is_running(eyes))
        here.ledger = Ledger(seen=5, easy=3, hard=2, answered=1, pending=1)
        await here.say_status()
        await eyes.until(lambda: eyes.metrics().get("seen") == "5")
        ready_cluster.patch(service_ref(), {"spec": {"edgeWorker": {"nodeName": "edge-1"}}})
        await eyes.until(lambda: there.names == {"digits"} and here.names == set())
        await eyes.until(lambda: is_running(eyes))
        await eyes.until(lambda: (eyes.get(JOINT_INFERENCE_SERVICE, "digits") or {})["status"]["heldBy"] == ["edge-1"])
        there.ledger = Ledger(seen=4, easy=4)
        await there.say_status()
        # What the first node counted stays counted; what was pending there has no answer any more.
        await eyes.until(lambda: eyes.metrics().get("seen") == "9")
        assert eyes.metrics()["dropped.removed"] == "1"
        assert eyes.metrics()["pending"] == "0"
        assert [pod["spec"]["nodeName"] for pod in eyes.all(POD) if "-edge-" in pod["metadata"]["name"]] == ["edge-1"]
        ready_cluster.patch(service_ref(), {"spec": {"edgeWorker": {"nodeName": "edge-0"}}})
        await eyes.until(lambda: here.names == {"digits"} and there.names == set())
        # The first one kept its counts and goes on from them: they are counted once.
        here.ledger = Ledger(seen=6, easy=4, hard=2, answered=2)
        await here.say_status()
        await eyes.until(lambda: eyes.metrics().get("seen") == "10")
        assert "dropped.removed" not in eyes.metrics()


async def test_a_node_selector_runs_one_worker_per_node(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, kubelet: Kubelet
) -> None:
    add_node(ready_cluster, "edge-1", zone="a")
    async with gm(), Lc(broker.url, "edge-0", eyes), Lc(broker.url, "edge-1", eyes):
        ready_cluster.create(service(nodeSelector={"zone": "a"}))
        await eyes.until(lambda: is_running(eyes))
        status = ready_cluster.get(service_ref())["status"]
        assert status["active"] == 3
        assert status["nodes"]["ready"] == 2
        deployment = next(iter(eyes.all(DEPLOYMENT)))
        task = task_in(deployment)
        assert task is not None
        assert task.nodes == ["edge-0", "edge-1"]


async def test_an_ended_pod_is_replaced(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, kubelet: Kubelet
) -> None:
    async with gm(), Lc(broker.url, "edge-0", eyes):
        ready_cluster.create(service())
        await eyes.until(lambda: is_running(eyes))
        pod = next(pod for pod in eyes.all(POD) if "-edge-" in pod["metadata"]["name"])
        ref = Ref(kind=POD, name=pod["metadata"]["name"], namespace="default")
        ready_cluster.patch(ref, {"status": {"phase": "Failed", "reason": "Evicted"}}, subresource="status")
        await eyes.until(lambda: "PodReplaced" in eyes.reasons())
        await eyes.until(
            lambda: (new := eyes.get(POD, ref.name)) is not None and new["metadata"]["uid"] != pod["metadata"]["uid"]
        )
        await eyes.until(lambda: is_running(eyes))


async def test_a_new_pod_waits_for_the_end_of_the_former(
    gm: GmFactory, ready_cluster: LocalCluster, eyes: Eyes
) -> None:
    async with gm():
        ready_cluster.create(service())
        former = (await eyes.until(lambda: edge_pods(eyes)))[0]
        ref = Ref(kind=POD, name=former["metadata"]["name"], namespace="default")
        script = {"workerSpec": {"scriptDir": "/code", "scriptBootFile": "edge.py"}}
        ready_cluster.patch(service_ref(), {"spec": {"edgeWorker": script}})
        await eyes.until(lambda: "deletionTimestamp" in (eyes.get(POD, ref.name) or {"metadata": {}})["metadata"])
        ready_cluster.create(dataset("pictures", "edge-0"))
        await eyes.until(lambda: eyes.condition(DATASET, "pictures", "Ready")[0])
        assert [pod["metadata"]["name"] for pod in edge_pods(eyes)] == [ref.name]
        ready_cluster.delete(ref, grace_s=0)
        await eyes.until(lambda: [p for p in edge_pods(eyes) if p["metadata"]["name"] != ref.name])


def edge_pods(eyes: Eyes) -> list[Object]:
    return [pod for pod in eyes.all(POD) if "-edge-" in pod["metadata"]["name"]]


async def test_counters_are_written_at_most_once_an_interval_and_conditions_at_once(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, kubelet: Kubelet
) -> None:
    async with gm("--metrics-interval", "1h"), Lc(broker.url, "edge-0", eyes) as lc:
        ready_cluster.create(service())
        await eyes.until(lambda: is_running(eyes))
        lc.ledger = Ledger(seen=5, easy=5)
        await lc.say_status()
        ready_cluster.patch(service_ref(), {"metadata": {"labels": {"look": "again"}}})
        ready_cluster.create(dataset("pictures", "edge-0"))
        await eyes.until(lambda: eyes.condition(DATASET, "pictures", "Ready")[0] == "True")
        lc.ledger = Ledger(seen=6, easy=6)
        await lc.say_status("failed", reason="ModelCorrupt")
        await eyes.until(lambda: eyes.phase() == "Failed")
        assert eyes.metrics()["seen"] == "6"
        assert 5 not in eyes.seen_counts


async def test_the_share_group_outlives_the_gm_and_its_edits(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, kubelet: Kubelet
) -> None:
    async with Lc(broker.url, "edge-0", eyes):
        async with gm():
            ready_cluster.create(service())
            await eyes.until(lambda: is_running(eyes))
            first = task_in(eyes.all(DEPLOYMENT)[0])
        async with gm():
            ready_cluster.patch(service_ref(), {"spec": {"cloudWorker": {"batching": {"maxSize": 3}}}})
            await eyes.until(lambda: (t := task_in(eyes.all(DEPLOYMENT)[0])) is not None and t.max_batch == 3)
            second = task_in(eyes.all(DEPLOYMENT)[0])
    assert first is not None
    assert second is not None
    assert first.group == second.group != ""


async def test_a_restart_does_not_call_a_ready_service_otherwise(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, kubelet: Kubelet
) -> None:
    ready_cluster.create(dataset("pictures", "edge-0"))
    ready_cluster.create(service())
    async with Lc(broker.url, "edge-0", eyes) as lc:
        async with gm():
            await eyes.until(lambda: is_running(eyes) and eyes.condition(DATASET, "pictures", "Ready")[0] == "True")
        epoch, since = lc.documents[-1].epoch, (transitions(eyes), len(eyes.reasons()))
        async with gm():
            await eyes.until(lambda: lc.documents[-1].epoch > epoch)
            lc.ledger = Ledger(seen=1, easy=1)
            await lc.say_status(samples=8)
            await eyes.until(lambda: eyes.metrics().get("seen") == "1")
            await eyes.until(lambda: (eyes.get(DATASET, "pictures") or {})["status"]["numberOfSamples"] == 8)
        assert (transitions(eyes), len(eyes.reasons())) == since


def transitions(eyes: Eyes) -> list[str]:
    objects = [eyes.get(DATASET, "pictures") or {}, eyes.get(JOINT_INFERENCE_SERVICE, "digits") or {}]
    return [c["lastTransitionTime"] for obj in objects for c in obj["status"]["conditions"]]


async def test_a_broken_spec_change_leaves_the_running_task_alone(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, kubelet: Kubelet
) -> None:
    async with Lc(broker.url, "edge-0", eyes) as lc:
        async with gm():
            ready_cluster.create(service())
            await eyes.until(lambda: is_running(eyes))
            ready_cluster.patch(service_ref(), {"spec": {"edgeWorker": {"model": {"name": "none"}}}})
            await eyes.until(lambda: eyes.condition(JOINT_INFERENCE_SERVICE, "digits", "Ready")[1] == "ModelNotFound")
            assert lc.names == {"digits"}
        async with gm():
            epoch = lc.documents[-1].epoch
            await eyes.until(lambda: lc.documents[-1].epoch > epoch)
            assert lc.names == {"digits"}


@pytest.fixture
def stricter(tmp_path: Path) -> Iterator[LocalCluster]:
    cluster = StricterCluster(tmp_path / DATABASE)
    yield cluster
    cluster.close()


@pytest.mark.usefixtures("kubelet")
async def test_a_restart_that_cannot_parse_a_spec_leaves_the_running_task_alone(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, stricter: LocalCluster
) -> None:
    async with Lc(broker.url, "edge-0", eyes) as lc:
        async with gm():
            ready_cluster.create(service())
            await eyes.until(lambda: is_running(eyes))
        async with gm(cluster=stricter):
            epoch = lc.documents[-1].epoch
            await eyes.until(lambda: lc.documents[-1].epoch > epoch)
            await eyes.until(lambda: eyes.condition(JOINT_INFERENCE_SERVICE, "digits", "Ready")[1] == "SpecInvalid")
            assert {row.name for row in lc.documents[-1].tasks.values()} == lc.names == {"digits"}


class HollowCluster(LocalCluster):
    """A cluster with a Model as no GlobalManager expects it."""

    def list(self, kind: Kind, **options: Any) -> ObjectList:
        listed = super().list(kind, **options)
        items = [{**obj, "spec": {}} if obj["metadata"]["name"] == "hollow" else obj for obj in listed.items]
        return ObjectList(items=items, resource_version=listed.resource_version)


@pytest.mark.usefixtures("kubelet")
async def test_one_service_that_nobody_understands_keeps_no_node_from_the_others(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, tmp_path: Path
) -> None:
    for name in ("hollow", "odd"):
        ready_cluster.create({**(made := model("little")), "metadata": {**made["metadata"], "name": name}})
    url = {"spec": {"modelUrl": "https://[::1/x.tflite"}}
    ready_cluster.patch(Ref(kind=MODEL, name="odd", namespace="default"), url)
    for name in ("digits", "hollow", "odd"):
        made = service()
        made["metadata"]["name"] = name
        if name != "digits":
            made["spec"]["edgeWorker"]["model"]["name"] = name
        ready_cluster.create(made)
    with closing(HollowCluster(tmp_path / DATABASE)) as hollow:
        async with Lc(broker.url, "edge-0", eyes) as lc:
            async with gm(cluster=hollow):
                await eyes.until(lambda: is_running(eyes) and {"digits", "odd"} <= lc.names)
            first = lc.documents[-1].epoch
            async with gm(cluster=hollow):
                await eyes.until(lambda: lc.documents[-1].epoch > first)
                assert {"digits", "odd"} <= {row.name for row in lc.documents[-1].tasks.values()}


@pytest.mark.usefixtures("kubelet")
@pytest.mark.parametrize("parses", [True, False])
async def test_a_node_is_told_nothing_while_a_task_that_it_holds_cannot_be_resolved(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, stricter: LocalCluster, *, parses: bool
) -> None:
    async with Lc(broker.url, "edge-0", eyes) as lc:
        async with gm():
            ready_cluster.create(service())
            await eyes.until(lambda: is_running(eyes))
            if parses:
                ready_cluster.patch(service_ref(), {"spec": {"edgeWorker": {"model": {"name": "none"}}}})
                await eyes.until(
                    lambda: eyes.condition(JOINT_INFERENCE_SERVICE, "digits", "Ready")[1] == "ModelNotFound"
                )
        told = len(lc.documents)
        await lc.link.publish(topics.DESIRED.of(node="edge-0"), b"", retain=True)
        async with gm(cluster=ready_cluster if parses else stricter, settle_s=0.0):
            await eyes.until(lambda: "TaskUnresolved" in eyes.reasons())
            await lc.say_state()
            ready_cluster.create(dataset("pictures", "edge-0"))
            await eyes.until(lambda: eyes.condition(DATASET, "pictures", "Ready") == ("False", "TaskUnresolved"))
            await eyes.until(lambda: "cannot be resolved" in message_of(eyes))
            assert len(lc.documents) == told
            if parses:
                ready_cluster.patch(service_ref(), {"spec": {"edgeWorker": {"model": {"name": "little"}}}})
                await eyes.until(lambda: lc.names == {"digits", "pictures"})
                assert all(
                    "digits" in {row.name for row in document.tasks.values()} for document in lc.documents[told:]
                )
            else:
                ready_cluster.delete(service_ref())
                await eyes.until(lambda: lc.names == {"pictures"})


def message_of(eyes: Eyes) -> str:
    conditions = (eyes.get(JOINT_INFERENCE_SERVICE, "digits") or {})["status"]["conditions"]
    return str(conditions[0]["message"])


async def test_a_restart_raises_the_epoch_and_keeps_the_counters(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, kubelet: Kubelet
) -> None:
    async with Lc(broker.url, "edge-0", eyes) as lc:
        async with gm():
            ready_cluster.create(service())
            await eyes.until(lambda: is_running(eyes))
            lc.ledger = Ledger(seen=10, easy=10)
            await lc.say_status()
            await eyes.until(lambda: eyes.metrics().get("seen") == "10")
            first = lc.documents[-1].epoch
        async with gm():
            await eyes.until(lambda: lc.documents[-1].epoch > first)
            lc.ledger = Ledger(seen=11, easy=11)
            await lc.say_status()
            await eyes.until(lambda: eyes.metrics().get("seen") == "11")
    assert eyes.seen_counts == sorted(eyes.seen_counts)


async def test_a_lease_deleted_while_nobody_leads_does_not_lower_the_epoch(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, kubelet: Kubelet
) -> None:
    ready_cluster.create(service())
    async with Lc(broker.url, "edge-0", eyes) as lc:
        for _ in range(2):
            async with gm():
                await eyes.until(lambda: is_running(eyes))
        before = lc.documents[-1].epoch
        ready_cluster.delete(LEASE_REF)
        ready_cluster.create(dataset("pictures", "edge-0"))
        async with gm():
            await eyes.until(lambda: lc.names == {"digits", "pictures"})
            assert lc.documents[-1].epoch > before


async def test_a_lease_deleted_under_the_leader_is_made_again_at_a_higher_epoch(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes
) -> None:
    ready_cluster.create(dataset("pictures", "edge-0"))
    async with gm(), Lc(broker.url, "edge-0", eyes) as lc:
        await eyes.until(lambda: lc.names == {"pictures"})
        before = lc.documents[-1].epoch
        ready_cluster.delete(LEASE_REF)
        await eyes.until(lambda: lc.documents[-1].epoch > before)
        await eyes.until(lambda: lc.applied is lc.documents[-1])


async def test_the_finalizer_is_there_before_the_node_is_told(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, kubelet: Kubelet
) -> None:
    async with gm(), Lc(broker.url, "edge-0", eyes) as lc:
        ready_cluster.create(service())
        await eyes.until(lambda: lc.names == {"digits"})
        obj = ready_cluster.get(service_ref())
        assert obj["metadata"]["finalizers"] == [FINALIZER]
        assert obj["status"]["heldBy"] == ["edge-0"]


async def test_counters_do_not_go_back_while_a_node_has_not_told_its_own_again(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, kubelet: Kubelet
) -> None:
    add_node(ready_cluster, "edge-1", zone="a")
    async with Lc(broker.url, "edge-0", eyes) as lc:
        async with gm(), Lc(broker.url, "edge-1", eyes) as other:
            ready_cluster.create(service(nodeSelector={"zone": "a"}))
            await eyes.until(lambda: is_running(eyes))
            lc.ledger, other.ledger = Ledger(seen=5, easy=5), Ledger(seen=4, easy=4)
            await lc.say_status()
            await other.say_status()
            await eyes.until(lambda: eyes.metrics().get("seen") == "9")
        epoch = lc.documents[-1].epoch
        async with gm(settle_s=0.5):
            await eyes.until(lambda: lc.documents[-1].epoch > epoch)
            lc.ledger = Ledger(seen=6, easy=6)
            await lc.say_status()
            await asyncio.wait_for(next_heartbeat(eyes), 20)
            lc.ledger = Ledger(seen=20, easy=20)
            await lc.say_status()
            await eyes.until(lambda: eyes.metrics().get("seen") == "20")
    assert eyes.seen_counts == sorted(eyes.seen_counts)


async def next_heartbeat(eyes: Eyes) -> None:
    """Wait until the service's status was written once more."""
    before = eyes.writes
    await eyes.until(lambda: eyes.writes > before)


async def test_no_document_lacks_a_task_whose_reconcile_has_to_wait(
    gm: GmFactory, cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, tmp_path: Path
) -> None:
    add_node(cluster, "edge-0")
    cluster.create(dataset("z", "edge-0"))
    async with Lc(broker.url, "edge-0", eyes) as lc:
        async with gm():
            await eyes.until(lambda: eyes.condition(DATASET, "z", "Ready")[0] == "True")
        told, epoch = len(lc.documents), lc.documents[-1].epoch
        for name in "abcdefgh":
            cluster.create(dataset(name, "edge-0"))
        slow = GatedCluster(tmp_path / DATABASE)
        slow.gate.clear()
        async with gm(cluster=slow):
            await eyes.until(lambda: lc.documents[-1].epoch > epoch)
            assert lc.names == {"z"}
            slow.gate.set()
            await eyes.until(lambda: lc.names == set("abcdefghz"))
        slow.close()
        assert all("z" in {row.name for row in document.tasks.values()} for document in lc.documents[told:])
