# SPDX-License-Identifier: Apache-2.0
import pytest
from tests.cloud.gm.peers import model

from nereid_cloud.cluster.port import Object
from nereid_cloud.gm.model_places import ModelPlace, in_cloud, judge, on_node
from nereid_shared.messages import ModelOutput, Output, TaskStatus, WorkerInfo

URL, DIGEST = "/models/m/m.tflite", "a" * 64


def asked(**spec: str) -> Object:
    made = model("m")
    return {**made, "metadata": {**made["metadata"], "generation": 2}, "spec": {**made["spec"], **spec}}


def output(status: str, **more: object) -> ModelOutput:
    return ModelOutput(name="m", url=URL, status=status, generation=2, **more)  # type: ignore[arg-type]


def place(*outputs: ModelOutput, absence: str = "", **spec: str) -> ModelPlace:
    said = TaskStatus(phase="inference", status="running", output=Output(models=list(outputs)))
    return on_node(asked(**spec), "n", absence=absence, status=said)


def info(status: str, *models: ModelOutput) -> WorkerInfo:
    return WorkerInfo(
        name="w", namespace="default", owner_name="d", owner_kind="k", status=status, models=list(models)  # type: ignore[arg-type]
    )  # fmt: skip


def test_the_last_of_two_is_the_one_that_is_asked_for() -> None:
    old = ModelOutput(name="m", url="/models/old", status="ready", digest=DIGEST, generation=1)
    assert place(old, output("fetching", message="40 %")) == ModelPlace("n", "pending", "ModelFetching", "40 %")
    assert place(old).state == "pending"


def test_what_was_said_of_another_digest_or_generation_is_not_of_this_one() -> None:
    right = output("ready", digest=DIGEST, bytes=7)
    assert place(right, sha256=DIGEST) == ModelPlace("n", "ready", digest=DIGEST, bytes=7)
    assert place(right, sha256="b" * 64).reason == "NotReported"
    assert place(ModelOutput(name="m", url=URL, status="failed", generation=1)).reason == "NotReported"
    assert place(ModelOutput(name="m", url=URL, status="ready", digest=DIGEST, generation=1)).state == "ready"


def test_a_node_that_is_away_is_neither_ready_nor_failed() -> None:
    assert place(output("failed"), absence="silent") == ModelPlace("n", "offline", "NodeOffline", "silent")


def test_of_cloud_workers_the_one_that_lacks_it_counts() -> None:
    ready, failed = info("running", output("ready")), info("failed", output("failed", reason="DigestMismatch"))
    assert in_cloud(asked(), "c", is_there=True, infos=[ready, failed]).reason == "DigestMismatch"
    assert in_cloud(asked(), "c", is_there=True, infos=[ready, info("offline")]).state == "ready"
    assert in_cloud(asked(), "c", is_there=True, infos=[]).reason == "NotReported"
    assert in_cloud(asked(), "c", is_there=False, infos=[ready]).state == "offline"


READY = ModelPlace("a", "ready", digest=DIGEST)


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ([], ("Unknown", "NotUsed")),
        ([READY], ("True", "Ready")),
        ([READY, ModelPlace("b", "ready", digest="b" * 64)], ("True", "DigestsDiffer")),
        ([READY, ModelPlace("b", "ready", "NoGoldenSamples")], ("True", "NoGoldenSamples")),
        ([READY, ModelPlace("b", "offline", "NodeOffline")], ("Unknown", "NodeOffline")),
        ([ModelPlace("a", "offline"), ModelPlace("b", "pending", "ModelFetching")], ("False", "ModelFetching")),
        ([ModelPlace("a", "pending", "NotReported"), ModelPlace("b", "pending", "ModelFetching")],
         ("False", "ModelFetching")),
        ([ModelPlace("a", "pending", "ModelFetching"), ModelPlace("b", "failed", "DigestMismatch")],
         ("False", "DigestMismatch")),
    ],
)  # fmt: skip
def test_ready_says_the_worst_of_all_nodes(places: list[ModelPlace], said: tuple[str, str]) -> None:
    assert judge(places, is_named=bool(places))[:2] == said


def test_the_message_counts_and_names_the_first() -> None:
    failed = [ModelPlace(node, "failed", "DigestMismatch", "wrong") for node in ("b", "c")]
    assert judge([READY, *failed], is_named=True)[2] == "ready on 1 of 3 nodes; b: wrong (and 1 more)"


def test_a_service_without_nodes_names_it_all_the_same() -> None:
    assert judge([], is_named=True)[:2] == ("Unknown", "NotPlaced")
