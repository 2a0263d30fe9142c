# SPDX-License-Identifier: Apache-2.0
"""The Pods, the Deployment and the Service of an InferenceModel."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cloud.gm.inference_models import FILES, OURS, POLICY, TENSORFLOW, UID, cloud_model, inference_model, parts_of

from nereid_cloud.cluster.port import Object
from nereid_cloud.gm.inferencemodel_pods import cloud_deployment, cloud_service, edge_pod
from nereid_cloud.gm.policy import Policy, read_runtimes
from nereid_shared.errors import UserError
from nereid_shared.messages import ServingTask


def edge(**spec: Any) -> Object:
    return edge_pod(parts_of(inference_model(**spec)), "edge-0", broker="mqtt://127.0.0.1:1883")


def deployment(selector: dict[str, str] | None = None, **spec: Any) -> Object:
    return cloud_deployment(parts_of(cloud_model(**spec)), selector=selector or {}, broker="mqtts://cloud:8883")


def env_of(container: Object) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in container["env"]}


def test_our_worker_at_the_edge_carries_identity_and_no_task() -> None:
    made = edge()
    env = env_of(made["spec"]["containers"][0])
    assert (env["NEREID_ROLE"], env["NEREID_NODE"], env["NEREID_PORT"]) == ("serving", "edge-0", "8501")
    assert (env["NEREID_SERVICE"], env["NEREID_BROKER"]) == ("digits-12345678", "mqtt://127.0.0.1:1883")
    assert "NEREID_TASK" not in env
    assert made["spec"]["hostNetwork"] is True


def test_another_version_is_no_other_pod_at_the_edge_and_another_port_is() -> None:
    assert edge()["metadata"]["name"] == edge(targetVersion="3", replicas=5)["metadata"]["name"]
    assert edge()["metadata"]["name"] != edge(servingPort=8600)["metadata"]["name"]


def test_the_edge_pod_mounts_what_its_versions_need() -> None:
    files = [{"version": "4", "downloadURL": "/models/digits/digits.tflite"}]
    local = {m["mountPath"]: m for m in edge(manifest=files)["spec"]["containers"][0]["volumeMounts"]}
    assert local["/models/digits"]["readOnly"] is True
    assert "/var/lib/nereid/cache" not in local
    fetched = {m["mountPath"]: m for m in edge()["spec"]["containers"][0]["volumeMounts"]}
    assert fetched["/var/lib/nereid/cache"]["readOnly"] is True


def test_the_clouds_workers_carry_their_task_and_roll_without_a_gap() -> None:
    made = deployment(replicas=3)
    assert made["spec"]["replicas"] == 3
    assert made["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    template = made["spec"]["template"]
    (container,) = template["spec"]["containers"]
    task = ServingTask.decode(env_of(container)["NEREID_TASK"].encode(), max_bytes=1 << 20)
    assert (task.target, task.port, [one.sha256 for one in task.versions]) == ("4", 8501, ["a" * 64, ""])
    assert container["readinessProbe"]["httpGet"] == {"path": "/v2/health/ready", "port": "http"}
    assert template["metadata"]["labels"]["nereid.io/model-version"] == "4"
    assert made["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()


def test_only_what_is_served_changes_the_clouds_template() -> None:
    def template(**spec: Any) -> object:
        return deployment(**spec)["spec"]["template"]

    assert template() == template(replicas=7)
    assert template() != template(targetVersion="3")
    other = [FILES[0], {**FILES[1], "sha256sum": "b" * 64}]
    marks = [one["metadata"]["labels"]["nereid.io/template"] for one in (template(), template(manifest=other))]  # type: ignore[index]
    assert marks[0] != marks[1]


def test_the_clouds_workers_keep_off_the_edge_unless_they_are_sent_there() -> None:
    free, sent = deployment()["spec"]["template"]["spec"], deployment({"zone": "a"})["spec"]["template"]["spec"]
    (term,) = free["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchExpressions"] == [{"key": "node-role.kubernetes.io/edge", "operator": "DoesNotExist"}]
    assert "affinity" not in sent
    assert sent["nodeSelector"] == {"zone": "a"}


def test_the_service_is_on_the_serving_port() -> None:
    made = cloud_service(parts_of(cloud_model(servingPort=8080)), port=8080)
    assert made["spec"]["ports"] == [{"name": "http", "protocol": "TCP", "port": 8080, "targetPort": 8080}]
    assert (made["metadata"]["name"], made["spec"]["type"]) == ("digits", "NodePort")
    assert made["spec"]["selector"] == deployment()["spec"]["selector"]["matchLabels"]


def test_a_server_of_others_finds_its_version_in_the_folder_it_expects() -> None:
    spec = deployment(frameworkType="tensorflow")["spec"]["template"]["spec"]
    (server,), (files,) = spec["containers"], spec["initContainers"]
    assert server["image"] == "tensorflow/serving:2"
    assert server["command"] == [
        "tensorflow_model_server", "--rest_api_port=8501", "--model_name=digits", "--model_base_path=/models/digits",
    ]  # fmt: skip
    assert server["readinessProbe"]["httpGet"]["path"] == "/v1/models/digits"
    assert (files["image"], files["command"][-1]) == ("nereid-worker:1", "nereid_worker.model_folder")
    env = env_of(files)
    assert env["NEREID_MODELS"] == "/models/digits/4"
    task = ServingTask.decode(env["NEREID_TASK"].encode(), max_bytes=1 << 20)
    assert [one.version for one in task.versions] == ["4"]
    for container in (server, files):
        assert "/models" in {mount["mountPath"] for mount in container["volumeMounts"]}


def test_a_server_of_others_at_the_edge_is_another_pod_for_another_version() -> None:
    first, second = edge(frameworkType="tensorflow"), edge(frameworkType="tensorflow", targetVersion="3")
    assert first["metadata"]["name"] != second["metadata"]["name"]
    assert first["metadata"]["labels"]["nereid.io/model-version"] == "4"


def test_an_image_of_the_users_is_started_as_it_is() -> None:
    made = edge(image="mine:1")
    (container,) = made["spec"]["containers"]
    assert (container["image"], "command" in container, "initContainers" in made["spec"]) == ("mine:1", False, False)
    assert env_of(container)["NEREID_PORT"] == "8501"
    assert "nereid.io/model-version" not in made["metadata"]["labels"]


def test_all_is_owned_by_the_model() -> None:
    for made in (edge(), deployment(), cloud_service(parts_of(cloud_model()), port=8501)):
        (owner,) = made["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"]) == ("InferenceModel", UID)
        assert made["metadata"]["labels"]["nereid.io/service-uid"] == UID


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"command": ["serve"]}, "a command needs models"),
        ({"command": ["serve"], "models": "models/4"}, "a command needs models"),
        ({"models": "/models"}, "for a server with a command of its own"),
        ({"port": 70000}, "port"),
    ],
)
def test_a_runtime_that_makes_no_sense_is_refused(entry: dict[str, Any], says: str, tmp_path: Path) -> None:
    table = tmp_path / "runtimes.yaml"
    table.write_text(yaml.safe_dump({"tensorflow": {"image": "i", **entry}}))
    with pytest.raises(UserError, match=says):
        read_runtimes(table)


def test_a_server_of_others_runs_no_workers() -> None:
    assert POLICY.runtime("tensorflow", "2") is None
    assert POLICY.server("tensorflow") is TENSORFLOW
    either = Policy(runtimes={"*": OURS, "tensorflow": TENSORFLOW})
    assert (either.runtime("tensorflow", "2"), either.server("onnx"), either.workers) == (OURS, OURS, OURS)
