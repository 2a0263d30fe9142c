# SPDX-License-Identifier: Apache-2.0
"""The overlays with TLS on a real node: each part a container, the sample served whatever is killed."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from tests.cluster.fixtures import IMAGES, RealCluster, go_without
from tests.cluster.kubectl import Kubectl
from tests.cluster.node import Node
from tests.flow.patience import until
from tests.k8s.conftest import K8S
from tests.k8s.containers import TEST_FILES, Containers, put_up, take_down
from tests.k8s.errands import ROOT

from nereid_shared.topics import service_id

pytestmark = [pytest.mark.node, pytest.mark.slow, pytest.mark.timeout(400)]

PICTURES: Final = 300
FPS: Final = 25
_LATER: Final = 50
"""Pictures that the edge worker classifies before the next thing happens."""

_ANSWERS: Final = f"""
import json, os
lines = [json.loads(line) for line in open(f"{ROOT}/workers/{{os.environ['SERVICE']}}/answers.jsonl")]
edge = [line["key"] for line in lines if line["event"] == "edge"]
cloud = [line["key"] for line in lines if line["event"] != "edge" and line["tier"] == "cloud"]
hard = {{line["key"] for line in lines if line["event"] == "edge" and line["is_hard"]}}
say(json.dumps([len(edge), len(set(edge)), len(cloud), len(set(cloud)), len(set(cloud) - hard)]))
"""
_ASK: Final = """
import os, urllib.request
say(urllib.request.urlopen(os.environ["URL"], timeout=10).read().decode())
"""
_PACK: Final = f"""
import io, tarfile
for version in ("3", "4"):
    with tarfile.open(f"{TEST_FILES}/model_{{version}}.tar.gz", "w:gz") as archive:
        entry = tarfile.TarInfo(f"model_{{version}}/saved_model.pb")
        entry.size = 1
        archive.addfile(entry, io.BytesIO(version.encode()))
say("done")
"""
_GIVEN_UP: Final = f"""
import json, pathlib, time
end = time.monotonic() + 20
while (left := [str(one) for one in pathlib.Path("{ROOT}/workers").glob(".removed-*")]) and time.monotonic() < end:
    time.sleep(0.2)
say(json.dumps(left))
"""


@pytest.fixture(scope="module")
def system(real_cluster: RealCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    if real_cluster.server.is_ours and not list(IMAGES.glob("nereid-*.tar")):
        go_without("node", "no images: make images")
    kubectl = Kubectl(real_cluster.server.kubectl, namespace="default")
    if kubectl.run("get", "namespace", "nereid").returncode == 0:
        pytest.skip("Nereid is installed in this cluster already, or namespace nereid is somebody's")
    place = tmp_path_factory.mktemp("containers")
    try:
        found = put_up(kubectl, real_cluster, place, pictures=PICTURES, fps=FPS)
        if isinstance(found, str):
            pytest.skip(found)
        yield found
    finally:
        take_down(kubectl, real_cluster, place)


@pytest.fixture
def node(real_cluster: RealCluster) -> Node:
    if real_cluster.node is None:
        pytest.skip("nothing of a node that is not ours is killed: unset KUBECONFIG and EDGE_NODE")
    return real_cluster.node


def test_the_sample_is_served_by_containers_and_leaves_nothing(system: Containers) -> None:
    begin(system)
    for role in ("edge", "cloud"):
        until(partial(is_probed, system, role, ready=True), f"the kubelet to find the {role} worker ready")
    finish(system)
    # The folder of a service just deleted stays for as long as it may come back; those given up earlier are gone.
    assert json.loads(system.on_edge(_GIVEN_UP)) == []


def test_a_worker_without_its_model_has_started_and_is_not_ready(system: Containers) -> None:
    manifest = Path(system.manifest).read_text().replace("big/big.tflite", "big/none.tflite")
    system.kubectl("apply", "-f", "-", stdin=manifest)
    until(lambda: condition(system, "Ready") == ("False", "ModelMissing"), "the worker's word", within_s=120.0)
    until(lambda: is_probed(system, "cloud", ready=False), "the kubelet to find it started")
    system.kubectl("delete", "-f", "-", "--timeout=60s", stdin=manifest, timeout_s=70)
    until(lambda: not left_in_cluster(system.kubectl), "the Pods to be gone", within_s=60.0)


def test_a_model_is_served_at_the_edge_and_in_the_cloud(system: Containers) -> None:
    text = (K8S / "samples" / "inferencemodels.yaml").read_text().replace(f"{ROOT}/examples", TEST_FILES)
    models = list(yaml.safe_load_all(text))
    for model, node, port in zip(models, (system.cluster.edge, system.cloud), (18501, 18502), strict=True):
        model["spec"] |= {"nodeName": node, "servingPort": port}
    manifest = yaml.safe_dump_all(models)
    system.kubectl("apply", "-f", "-", stdin=manifest)
    for name, version in (("digits-edge", "1"), ("digits-cloud", "2")):
        until(partial(serves, system, name, version), f"{name} to serve {version}", within_s=120.0)
    said = json.loads(system.on_edge(_ASK, URL="http://127.0.0.1:18501/v2/models/digits"))
    assert said["name"] == "digits"
    for name, version in (("digits-edge", "2"), ("digits-cloud", "1")):
        target = json.dumps({"spec": {"targetVersion": version}})
        system.kubectl("patch", f"infm/{name}", "--type=merge", f"--patch={target}")
        until(partial(serves, system, name, version), f"{name} to serve {version}", within_s=120.0)
    system.kubectl("delete", "-f", "-", "--timeout=60s", stdin=manifest, timeout_s=70)
    until(lambda: not left_in_cluster(system.kubectl), "the Pods to be gone", within_s=90.0)
    until(lambda: not system.topics(), "the topics to be cleared", within_s=30.0)


def test_an_archive_is_served_by_a_server_of_others(system: Containers) -> None:
    assert system.on_edge(_PACK) == "done"
    spec: dict[str, Any] = {
        "modelName": "emotion", "deployToLayer": "edge", "frameworkType": "files", "nodeName": system.cluster.edge,
        "manifest": [{"version": one, "downloadURL": f"{TEST_FILES}/model_{one}.tar.gz"} for one in ("3", "4")],
        "targetVersion": "4", "servingPort": 18503,
    }  # fmt: skip
    model = {"apiVersion": "sedna.io/v1alpha1", "kind": "InferenceModel", "metadata": {"name": "emotion"}, "spec": spec}
    system.kubectl("apply", "-f", "-", stdin=json.dumps(model))
    until(partial(serves, system, "emotion", "4"), "version 4 to be served", within_s=120.0)
    assert system.on_edge(_ASK, URL="http://127.0.0.1:18503/4/saved_model.pb") == "4"
    wrong = {"spec": {"manifest": [{**spec["manifest"][0], "sha256sum": "0" * 64}], "targetVersion": "3"}}
    system.kubectl("patch", "infm/emotion", "--type=merge", f"--patch={json.dumps(wrong)}")
    until(lambda: said_of(system, "emotion") == ("", "False", "DigestMismatch"), "the step's word", within_s=120.0)
    layer = {"spec": {"manifest": spec["manifest"], "deployToLayer": "cloud", "nodeName": system.cloud}}
    system.kubectl("patch", "infm/emotion", "--type=merge", f"--patch={json.dumps(layer)}")
    until(partial(serves, system, "emotion", "3"), "version 3 to be served in the cloud", within_s=120.0)
    system.kubectl("delete", "infm/emotion", "--timeout=60s", timeout_s=70)
    until(lambda: not left_in_cluster(system.kubectl), "the Pods to be gone", within_s=90.0)


def serves(system: Containers, name: str, version: str) -> bool:
    return said_of(system, name) == (version, "True", "Serving")


def said_of(system: Containers, name: str) -> tuple[str, str, str]:
    """Return what a model's status says: the version that serves, Ready and its reason."""
    status = system.kubectl.json("infm", name).get("status") or {}
    ready: dict[str, str] = next(iter(status.get("conditions") or ()), {})
    return status.get("servingVersion", ""), ready.get("status", ""), ready.get("reason", "")


def restart_kubelet(system: Containers, node: Node) -> None:
    node.kill("kubelet")
    progress(system)
    node.start_kubelet()


def restart_containerd(system: Containers, node: Node) -> None:
    node.kill("containerd")
    progress(system)
    node.start_containerd()


def kill_local_controller(system: Containers, node: Node) -> None:
    node.kill_container(container(system, "nereid-edge", "local-controller"))


def kill_edge_broker(system: Containers, node: Node) -> None:
    node.kill_container(container(system, "nereid-edge", "broker"))


def kill_cloud_broker(system: Containers, node: Node) -> None:
    node.kill_container(container(system, "nereid", "mosquitto"))


@pytest.mark.parametrize(
    "fault", [restart_kubelet, restart_containerd, kill_local_controller, kill_edge_broker, kill_cloud_broker]
)
def test_each_sample_counts_once_whatever_is_killed(
    system: Containers, node: Node, fault: Callable[[Containers, Node], None]
) -> None:
    begin(system)
    progress(system)
    fault(system, node)
    finish(system)


def begin(system: Containers) -> None:
    """Apply the sample."""
    system.kubectl("apply", "-f", system.manifest)
    done = system.kubectl.run("wait", "jis/digits", "--for=condition=Ready", "--timeout=120s", timeout_s=130)
    assert done.returncode == 0, done.stderr + system.story()


def is_probed(system: Containers, role: str, *, ready: bool) -> bool:
    """Whether a worker's only container has started by its probe, never again, and is ready or not."""
    pods = system.kubectl.json("pods", f"--selector=nereid.io/service-uid,nereid.io/role={role}")["items"]
    found = [one for pod in pods for one in pod["status"].get("containerStatuses") or ()]
    return [(one.get("started"), one["ready"], one["restartCount"]) for one in found] == [(True, ready, 0)]


def condition(system: Containers, type_: str) -> tuple[str, str]:
    status = system.kubectl.json("jis", "digits").get("status") or {}
    found = {one["type"]: (one["status"], one["reason"]) for one in status.get("conditions") or ()}
    return found.get(type_, ("", ""))


def progress(system: Containers) -> None:
    """Wait until the edge worker has classified some more pictures, and is not through."""
    before = classified(system)
    until(lambda: classified(system) >= before + _LATER, "the stream to go on")
    assert classified(system) < PICTURES, "the stream was over before anything was killed"


def classified(system: Containers) -> int:
    """Count on our own node, whose folders are this machine's."""
    assert system.cluster.node is not None
    file = Path(ROOT, "workers", service(system), "answers.jsonl")
    return file.read_text().count('"event": "edge"') if file.exists() else 0


def finish(system: Containers) -> None:
    """See each picture counted once and each hard one answered; delete the sample and see nothing left of it."""
    try:
        until(lambda: is_through(system), "an answer for each hard sample", within_s=120.0)
    except AssertionError as error:
        raise AssertionError(f"{error}: {metrics(system)}\n{system.story()}") from None
    told = metrics(system)
    edge, edge_keys, cloud, cloud_keys, strangers = json.loads(system.on_edge(_ANSWERS, SERVICE=service(system)))
    assert told["easy"] + told["hard"] == told["seen"] == PICTURES
    assert (edge, edge_keys) == (PICTURES, PICTURES)
    assert (cloud, cloud_keys) == (told["answered"], told["answered"])
    assert strangers == 0

    system.kubectl("delete", "-f", system.manifest, "--timeout=60s", timeout_s=70)
    until(lambda: not left_in_cluster(system.kubectl), "the Pods to be gone", within_s=60.0)
    until(lambda: not system.topics(), "the topics to be cleared", within_s=30.0)


def service(system: Containers) -> str:
    return service_id("digits", system.kubectl.json("jis", "digits")["metadata"]["uid"])


def metrics(system: Containers) -> dict[str, int]:
    status = system.kubectl.json("jis", "digits").get("status") or {}
    found = {metric["key"]: metric["value"] for metric in status.get("metrics") or ()}
    return {key: int(value) for key, value in found.items() if value.isdigit()}


def is_through(system: Containers) -> bool:
    told = metrics(system)
    return told.get("seen") == PICTURES and told.get("hard") == told.get("answered") != 0


def left_in_cluster(kubectl: Kubectl) -> list[str]:
    found = kubectl.json("pods,deployments,replicasets", "--selector=nereid.io/service-uid")["items"]
    return [obj["metadata"]["name"] for obj in found]


def container(system: Containers, namespace: str, name: str) -> str:
    """Return the id of a part's running container."""

    def running() -> Any:
        pods = system.kubectl.json("pods", f"--namespace={namespace}")["items"]
        statuses = [status for pod in pods for status in pod["status"].get("containerStatuses") or ()]
        return next((one["containerID"] for one in statuses if one["name"] == name and "running" in one["state"]), None)

    return str(until(running, f"container {name} to run"))
