# SPDX-License-Identifier: Apache-2.0
"""An InferenceModel and a GlobalManager, on a LocalCluster and a real broker; the node is a peer that obeys."""

from typing import Any

from tests.cloud.gm.conftest import GmFactory
from tests.cloud.gm.inference_models import cloud_model, inference_model
from tests.cloud.gm.peers import Eyes, Kubelet, Lc, set_ready
from tests.mosquitto import Mosquitto

from nereid_cloud.cluster.kinds import DEPLOYMENT, INFERENCE_MODEL, POD, SERVICE, ref_of
from nereid_cloud.cluster.local import LocalCluster
from nereid_cloud.cluster.port import Object

READY = ("True", "Serving")


def ready(eyes: Eyes, name: str = "digits") -> tuple[str, str]:
    return eyes.condition(INFERENCE_MODEL, name, "Ready")


def status(eyes: Eyes, name: str = "digits") -> dict[str, Any]:
    return (eyes.get(INFERENCE_MODEL, name) or {}).get("status") or {}


def reason(eyes: Eyes, wanted: str, name: str = "digits") -> bool:
    return ready(eyes, name)[1] == wanted


def targets(node: Lc) -> list[str]:
    return [(row.spec or {})["targetVersion"] for row in node.tasks.values()]


def changed(cluster: LocalCluster, obj: Object, **spec: Any) -> None:
    cluster.patch(ref_of(obj), {"spec": spec})


async def test_a_node_serves_a_model_and_the_status_says_with_which_version(
    ready_cluster: LocalCluster, broker: Mosquitto, gm: GmFactory, eyes: Eyes, kubelet: Kubelet
) -> None:
    async with gm(), Lc(broker.url, "edge-0", eyes) as node:
        made = ready_cluster.create(inference_model())
        await eyes.until(lambda: ready(eyes) == READY)
        (row,) = node.tasks.values()
        (pod,) = eyes.all(POD)
        assert (row.kind, row.refs["worker"]) == ("InferenceModel", pod["metadata"]["name"])
        said = status(eyes)
        assert (said["servingVersion"], said["replicas"], said["readyReplicas"]) == ("4", 1, 1)
        assert said["heldBy"] == ["edge-0"]
        changed(ready_cluster, made, targetVersion="3")
        await eyes.until(lambda: status(eyes).get("servingVersion") == "3")
        assert targets(node) == ["3"]
        assert [one["metadata"]["uid"] for one in eyes.all(POD)] == [pod["metadata"]["uid"]], "the Pod stays"
        assert ready(eyes) == READY


async def test_a_version_that_no_manifest_has_changes_nothing_on_the_node(
    ready_cluster: LocalCluster, broker: Mosquitto, gm: GmFactory, eyes: Eyes, kubelet: Kubelet
) -> None:
    async with gm(), Lc(broker.url, "edge-0", eyes) as node:
        made = ready_cluster.create(inference_model())
        await eyes.until(lambda: ready(eyes) == READY)
        changed(ready_cluster, made, targetVersion="9")
        await eyes.until(lambda: reason(eyes, "VersionNotFound"))
        assert targets(node) == ["4"]
        assert status(eyes)["servingVersion"] == "4"
        assert status(eyes)["lastFailure"]["version"] == "9"
        changed(ready_cluster, made, targetVersion="3")
        await eyes.until(lambda: ready(eyes) == READY)
        assert targets(node) == ["3"]


async def test_a_model_waits_for_its_node_and_leaves_it(
    ready_cluster: LocalCluster, broker: Mosquitto, gm: GmFactory, eyes: Eyes, kubelet: Kubelet
) -> None:
    async with gm(), Lc(broker.url, "edge-0", eyes) as node:
        made = ready_cluster.create(inference_model(nodeName="edge-9"))
        await eyes.until(lambda: reason(eyes, "NodeNotFound"))
        changed(ready_cluster, made, nodeName="edge-0")
        await eyes.until(lambda: ready(eyes) == READY)
        ready_cluster.delete(ref_of(made))
        await eyes.until(lambda: eyes.get(INFERENCE_MODEL, "digits") is None)
        assert not node.tasks, "the node has let go before"
        await eyes.until(lambda: not eyes.all(POD))


async def test_a_node_that_is_lost_makes_its_model_unknown(
    ready_cluster: LocalCluster, broker: Mosquitto, gm: GmFactory, eyes: Eyes, kubelet: Kubelet
) -> None:
    async with gm(), Lc(broker.url, "edge-0", eyes):
        ready_cluster.create(inference_model())
        await eyes.until(lambda: ready(eyes) == READY)
        set_ready(ready_cluster, "edge-0", ready=False)
        await eyes.until(lambda: ready(eyes) == ("Unknown", "NodeOffline"))
        assert eyes.condition(INFERENCE_MODEL, "digits", "Running") == ("Unknown", "NodeOffline")
        set_ready(ready_cluster, "edge-0", ready=True)
        await eyes.until(lambda: ready(eyes) == READY)


async def test_another_global_manager_takes_a_served_model_over_as_it_is(
    ready_cluster: LocalCluster, broker: Mosquitto, gm: GmFactory, eyes: Eyes, kubelet: Kubelet
) -> None:
    async with Lc(broker.url, "edge-0", eyes) as node:
        async with gm(identity="first"):
            ready_cluster.create(inference_model())
            await eyes.until(lambda: ready(eyes) == READY)
        (pod,) = eyes.all(POD)
        told = len(node.documents)
        async with gm(identity="second"):
            await eyes.until(lambda: len(node.documents) > told)
            assert all(document.tasks for document in node.documents[told:])
            await eyes.until(lambda: ready(eyes) == READY)
            assert [one["metadata"]["uid"] for one in eyes.all(POD)] == [pod["metadata"]["uid"]]


async def test_a_model_that_changes_its_layer_leaves_nothing_behind(
    ready_cluster: LocalCluster, broker: Mosquitto, gm: GmFactory, eyes: Eyes
) -> None:
    async with gm(), Lc(broker.url, "edge-0", eyes) as node:
        made = ready_cluster.create(cloud_model(replicas=2))
        await eyes.until(lambda: eyes.all(SERVICE))
        (deployment,) = eyes.all(DEPLOYMENT)
        assert deployment["spec"]["replicas"] == 2
        assert status(eyes).get("heldBy", []) == []
        changed(ready_cluster, made, deployToLayer="edge", nodeName="edge-0")
        await eyes.until(lambda: not eyes.all(SERVICE) and not eyes.all(DEPLOYMENT))
        await eyes.until(lambda: targets(node) == ["4"])
        changed(ready_cluster, made, deployToLayer="cloud", nodeName=None)
        await eyes.until(lambda: eyes.all(SERVICE) and eyes.all(DEPLOYMENT))
        await eyes.until(lambda: not node.tasks)
