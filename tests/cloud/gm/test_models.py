# SPDX-License-Identifier: Apache-2.0
"""A Model's status, from what nodes and cloud workers say of it, and what of that a service's user sees."""

import contextlib
from typing import Any

import pytest
from tests.cloud.gm.conftest import GmFactory
from tests.cloud.gm.peers import Eyes, Kubelet, Lc, model, service
from tests.cloud.gm.test_downstream import downstream
from tests.cloud.gm.test_manager import is_running
from tests.mosquitto import Mosquitto

from nereid_cloud.cluster.kinds import EVENT, JOINT_INFERENCE_SERVICE, MODEL, NODE, POD
from nereid_cloud.cluster.local import LocalCluster
from nereid_cloud.cluster.port import Ref
from nereid_cloud.cluster.readiness import condition_of
from nereid_cloud.gm.events import Recorder
from nereid_cloud.gm.informer import Informer, Key
from nereid_cloud.gm.models import ModelController
from nereid_cloud.gm.observed import Observed
from nereid_shared.messages import ModelOutput, NodeAlive, TaskRow

LITTLE = Ref(kind=MODEL, name="little", namespace="default")
SERVICE = Ref(kind=JOINT_INFERENCE_SERVICE, name="digits", namespace="default")


def url(name: str) -> str:
    return str(model(name)["spec"]["modelUrl"])


def output(name: str = "little", *, status: str = "ready", **more: Any) -> ModelOutput:
    return ModelOutput(**{"name": name, "url": url(name), "status": status, "generation": 1, **more})


def ready(eyes: Eyes, name: str = "little") -> tuple[str, str]:
    return eyes.condition(MODEL, name, "Ready")


def status_of(eyes: Eyes, name: str = "little") -> dict[str, Any]:
    found: dict[str, Any] = (eyes.get(MODEL, name) or {}).get("status") or {}
    return found


async def test_a_model_that_no_service_names_says_so(gm: GmFactory, ready_cluster: LocalCluster, eyes: Eyes) -> None:
    async with gm():
        await eyes.until(lambda: ready(eyes) == ("Unknown", "NotUsed"))
    status = status_of(eyes)
    assert status["nodes"] == {"ready": 0, "total": 0}
    assert status["updateTime"]
    assert "digest" not in status
    assert "NotUsed" not in eyes.reasons()


async def test_what_nodes_have_of_a_model_is_its_status(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, kubelet: Kubelet
) -> None:
    async with gm(), Lc(broker.url, "edge-0", eyes) as lc:
        ready_cluster.create(service())
        await eyes.until(lambda: ready(eyes) == ("False", "NotReported"))
        lc.models = [output(status="fetching", message="40 % of 2.0 MB")]
        await lc.say_status()
        await eyes.until(lambda: ready(eyes) == ("False", "ModelFetching"))
        lc.models = [output(status="failed", reason="DigestMismatch", message="its sha256 is another")]
        await lc.say_status()
        await eyes.until(lambda: ready(eyes) == ("False", "DigestMismatch"))
        failure = status_of(eyes)["lastFailure"]
        assert {**failure, "time": ""} == {
            "node": "edge-0", "reason": "DigestMismatch", "message": "its sha256 is another", "time": "",
        }  # fmt: skip
        lc.models = [output(digest="a" * 64, bytes=1000)]
        await lc.say_status()
        await eyes.until(lambda: ready(eyes) == ("True", "Ready"))
        status = status_of(eyes)
        assert (status["digest"], status["size"], status["nodes"]) == ("a" * 64, 1000, {"ready": 1, "total": 1})
        assert status["lastFailure"] == failure
        await eyes.until(lambda: {"ModelFetching", "DigestMismatch", "Ready"} <= eyes.reasons())
        assert not {"NotReported", "NotPlaced"} & eyes.reasons()
        ready_cluster.delete(SERVICE)
        await eyes.until(lambda: ready(eyes) == ("Unknown", "NotUsed"))
        assert status_of(eyes)["digest"] == "a" * 64


async def test_a_new_url_is_another_model_until_the_nodes_have_it(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, kubelet: Kubelet
) -> None:
    async with gm(), Lc(broker.url, "edge-0", eyes) as lc:
        lc.models = [output(digest="a" * 64)]
        ready_cluster.create(service())
        await eyes.until(lambda: ready(eyes) == ("True", "Ready"))
        ready_cluster.patch(LITTLE, {"spec": {"modelUrl": "http://host/new.tflite"}})
        await eyes.until(lambda: ready(eyes) == ("False", "NotReported"))
        assert "digest" not in status_of(eyes)
        assert status_of(eyes)["observedGeneration"] == 2


async def test_a_service_that_runs_on_the_former_model_is_ready_and_says_why(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, kubelet: Kubelet
) -> None:
    def said() -> tuple[str, str]:
        return eyes.condition(JOINT_INFERENCE_SERVICE, "digits", "Ready")

    async with gm(), Lc(broker.url, "edge-0", eyes) as lc:
        old = output(digest="a" * 64)
        lc.models = [old]
        ready_cluster.create(service())
        await eyes.until(lambda: said() == ("True", "AllWorkersRunning"))
        for one in (
            output(status="fetching", reason="ModelFetching", message="10 %"),
            output(status="failed", reason="DigestMismatch", message="its sha256 is another"),
        ):
            lc.models, wanted = [old, one], ("True", one.reason)
            await lc.say_status()
            await eyes.until(lambda: said() == wanted)  # noqa: B023 - waited for within the turn
            assert eyes.phase() == "Running"
        condition = ready_cluster.get(SERVICE)["status"]["conditions"][0]
        assert condition["message"].endswith("edge-0: its sha256 is another")
        lc.models = [old]
        await lc.say_status()
        await eyes.until(lambda: said() == ("True", "AllWorkersRunning"))
        told = {("JointInferenceService", one) for one in ("ModelFetching", "DigestMismatch")}
        await eyes.until(lambda: told <= {(e["involvedObject"]["kind"], e["reason"]) for e in eyes.all(EVENT)})


async def test_a_cloud_workers_model_counts_too(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, kubelet: Kubelet
) -> None:
    kubelet.models = [output("big", digest="c" * 64, bytes=9)]
    async with gm(), Lc(broker.url, "edge-0", eyes):
        ready_cluster.create(service())
        await eyes.until(lambda: ready(eyes, "big") == ("True", "Ready"))
        assert (status_of(eyes, "big")["digest"], status_of(eyes, "big")["size"]) == ("c" * 64, 9)
        assert status_of(eyes, "big")["nodes"] == {"ready": 1, "total": 1}


async def test_a_model_that_is_deleted_while_it_is_used_stops_nothing_and_is_told(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, eyes: Eyes, kubelet: Kubelet
) -> None:
    async with gm(), Lc(broker.url, "edge-0", eyes) as lc:
        ready_cluster.create(service())
        await eyes.until(lambda: is_running(eyes))
        pods = {pod["metadata"]["uid"] for pod in eyes.all(POD)}
        ready_cluster.delete(LITTLE)
        await eyes.until(
            lambda: eyes.condition(JOINT_INFERENCE_SERVICE, "digits", "Ready") == ("False", "ModelNotFound")
        )
        condition = ready_cluster.get(SERVICE)["status"]["conditions"][0]
        assert condition["message"] == "Model 'little' does not exist; workers go on with what they have"
        assert eyes.phase() == "Running"
        assert lc.names == {"digits"}
        assert {pod["metadata"]["uid"] for pod in eyes.all(POD)} == pods
        ready_cluster.create(model("little"))
        await eyes.until(lambda: is_running(eyes))


@pytest.mark.parametrize(
    ("model_", "said"),
    [
        (output(digest="a" * 64), ("True", "Ready")),
        (output(status="failed", reason="DigestMismatch"), ("False", "DigestMismatch")),
    ],
)
async def test_a_restarted_global_manager_says_what_the_former_one_said(
    gm: GmFactory, ready_cluster: LocalCluster, broker: Mosquitto, model_: ModelOutput, said: tuple[str, str]
) -> None:
    """Though it has to hear it anew."""
    kubelet = Kubelet(broker.url, ready_cluster)
    async with Eyes(ready_cluster) as eyes, kubelet.running(), Lc(broker.url, "edge-0", eyes) as lc:
        lc.models = [model_]
        async with gm():
            ready_cluster.create(service())
            await eyes.until(lambda: ready(eyes) == said)
        heard, written = len(lc.documents), len(eyes.readiness)
        async with gm():
            await eyes.until(lambda: len(lc.documents) > heard and is_running(eyes))
            await lc.say_status()
            await eyes.until(lambda: ready(eyes) == said)
        assert set(eyes.readiness[written:]) <= {said}


async def looked_at(cluster: LocalCluster, *, released: bool) -> tuple[str, str]:
    """Return what a Model is, after a GlobalManager that has just started and knows only that its node is there."""
    made = cluster.create(service())
    failed = {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "False", "reason": "DigestMismatch"}]}
    cluster.patch(LITTLE, {"status": failed}, subresource="status")
    down, observed = downstream(), Observed(timeout_s=90, clock=lambda: 5.0)
    alive = NodeAlive(status="online", install="i", boot="b", connection=1)
    observed.speaker("edge-0").on_alive(alive, retained=False, now=5.0)
    async with contextlib.AsyncExitStack() as stack:
        caches = {kind.plural: Informer(cluster, kind) for kind in (MODEL, JOINT_INFERENCE_SERVICE, NODE)}
        for cache in caches.values():
            await stack.enter_async_context(cache)
            await cache.wait_synced()
        await stack.enter_async_context(down)
        row = TaskRow(kind=made["kind"], namespace="default", name="digits", generation=1, hash="h", spec={})
        if released:
            down.assign(made["metadata"]["uid"], {"edge-0": row})
            down.release()
        controller = ModelController(
            cluster, models=caches["models"], services=caches["jointinferenceservices"], nodes=caches["nodes"],
            downstream=down, observed=observed, recorder=Recorder(cluster), settle_s=10, interval_s=0,
            clock=lambda: 5.0,
        )  # fmt: skip
        await controller.reconcile(Key("default", "little"))
    condition = condition_of(cluster.get(LITTLE), "Ready")
    return condition["status"], condition["reason"]


@pytest.mark.parametrize("released", [False, True])
async def test_before_a_node_has_spoken_of_a_model_its_status_stays(
    ready_cluster: LocalCluster, released: bool
) -> None:
    assert await looked_at(ready_cluster, released=released) == ("False", "DigestMismatch")
