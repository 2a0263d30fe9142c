# SPDX-License-Identifier: Apache-2.0
from ipaddress import IPv4Address
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from tests.cloud.gm.peers import dataset, model, node, service

from nereid_cloud.cluster.port import Object
from nereid_cloud.gm.conditions import Problem
from nereid_cloud.gm.paths import dataset_path
from nereid_cloud.gm.plan import EdgePlan, Plan, World, plan
from nereid_cloud.gm.pods import cloud_deployment, cloud_task, edge_pod, task_in
from nereid_cloud.gm.policy import Policy, Runtime, read_runtimes
from nereid_cloud.gm.settings import Settings
from nereid_shared.errors import UserError
from nereid_shared.places import node_path
from nereid_shared.resources import JointInferenceService

UID = "12345678-9abc-4def-8123-456789abcdef"
POLICY = Policy(runtimes={"*": Runtime(image="nereid-worker:1")})


def stored(**edge: Any) -> Object:
    raw = service(**edge)
    raw["metadata"] |= {"uid": UID, "generation": 3}
    return raw


def parsed(raw: Object) -> JointInferenceService:
    return JointInferenceService.model_validate(raw)


def with_uid(obj: Object) -> Object:
    return {**obj, "metadata": {**obj["metadata"], "uid": f"uid-{obj['metadata']['name']}"}}


def world(**more: Any) -> World:
    parts: dict[str, Any] = {
        "nodes": {"edge-0": node("edge-0"), "cloud": node("cloud")},
        "models": {"little": with_uid(model("little")), "big": with_uid(model("big"))},
        "datasets": {},
    }
    return World(**{**parts, **more})


def pod(raw: Object | None = None, *, on: str = "edge-0", **datasets: Object) -> Object:
    raw = raw or stored()
    edge = EdgePlan(node=on, broker="mqtt://127.0.0.1:1883", datasets=datasets)
    return edge_pod(parsed(raw), raw, edge, little=model("little"), policy=POLICY)


def env_of(obj: Object) -> dict[str, str]:
    container = obj["spec"]["containers"][0]
    return {entry["name"]: entry.get("value", "") for entry in container["env"]}


def reasons(planned: Plan) -> list[str]:
    return [problem.reason for problem in planned.problems]


def test_the_edge_pod_is_bound_to_its_node_and_survives_the_loss_of_the_cloud() -> None:
    spec = pod()["spec"]
    assert spec["nodeName"] == "edge-0"
    assert spec["restartPolicy"] == "Always"
    assert spec["hostNetwork"] is True
    assert spec["automountServiceAccountToken"] is False
    assert {"operator": "Exists", "effect": "NoExecute"} in spec["tolerations"]
    assert all("tolerationSeconds" not in toleration for toleration in spec["tolerations"])


def test_the_edge_pod_carries_identity_and_mounts_and_no_task() -> None:
    made = pod(pictures=dataset("pictures", "edge-0"))
    env = env_of(made)
    assert env["NEREID_NODE"] == "edge-0"
    assert env["NEREID_SERVICE"] == "digits-12345678"
    assert env["NEREID_BROKER"] == "mqtt://127.0.0.1:1883"
    assert env["NEREID_STATE"] == "/var/lib/nereid/worker"
    assert "NEREID_TASK" not in env
    paths = {v["name"]: v["hostPath"]["path"] for v in made["spec"]["volumes"] if "hostPath" in v}
    mounts = {m["name"]: m for m in made["spec"]["containers"][0]["volumeMounts"]}
    assert mounts[next(v["name"] for v in made["spec"]["volumes"] if "emptyDir" in v)]["mountPath"] == env["TMPDIR"]
    assert paths.pop("state") == "/var/lib/nereid/workers/digits-12345678"
    assert sorted(paths.values()) == ["/data/pictures", "/models/little"]
    assert all(mounts[name]["mountPath"] == path and mounts[name]["readOnly"] for name, path in paths.items())


def test_the_edge_pod_has_the_nodes_cache_where_its_model_is_fetched() -> None:
    def mounts(url: str) -> dict[str, Any]:
        raw, fetched = stored(), model("little")
        fetched["spec"]["modelUrl"] = url
        edge = EdgePlan(node="edge-0", broker="b")
        made = edge_pod(parsed(raw), raw, edge, little=fetched, policy=POLICY)
        return {m["mountPath"]: m for m in made["spec"]["containers"][0]["volumeMounts"]}

    assert mounts("https://host/little.tflite")["/var/lib/nereid/cache"]["readOnly"] is True
    assert "/var/lib/nereid/cache" not in mounts("/models/little/little.tflite")


def test_workers_log_as_the_global_manager_does_and_leave_their_last_line() -> None:
    raw = stored()
    edge = edge_pod(
        parsed(raw), raw, EdgePlan(node="edge-0", broker="b"), little=model("little"), policy=Policy(log_format="json")
    )
    cloud = deployment(raw, Policy(log_format="json"))["spec"]["template"]
    for made in (edge, cloud):
        assert env_of(made)["NEREID_LOG_FORMAT"] == "json"
        assert made["spec"]["containers"][0]["terminationMessagePolicy"] == "FallbackToLogsOnError"
    assert env_of(pod())["NEREID_LOG_FORMAT"] == "text"


def test_workers_are_probed_where_they_answer_and_never_before_they_have_started() -> None:
    raw = stored()
    edge, cloud = pod(raw), deployment(raw, POLICY)["spec"]["template"]
    for made in (edge, cloud):
        (container,) = made["spec"]["containers"]
        probes = {name: container[f"{name}Probe"] for name in ("startup", "liveness", "readiness")}
        asked = {name: probe["httpGet"] for name, probe in probes.items()}
        assert {name: get["path"] for name, get in asked.items()} == {
            "startup": "/livez", "liveness": "/livez", "readiness": "/readyz",
        }  # fmt: skip
        where = {f"{get.get('host', '')}:{get['port']}" for get in asked.values()}
        assert where == {env_of(made)["NEREID_HEALTH"]}
        patience_s = {name: probe["periodSeconds"] * probe.get("failureThreshold", 3) for name, probe in probes.items()}
        assert patience_s["startup"] >= 300
        assert patience_s["liveness"] >= 120


def test_each_worker_of_a_node_answers_probes_at_an_address_of_its_own() -> None:
    others = stored()
    others["metadata"] |= {"name": "others", "uid": "87654321-9abc-4def-8123-456789abcdef"}
    addresses = [IPv4Address(env_of(made)["NEREID_HEALTH"].partition(":")[0]) for made in (pod(), pod(others))]
    assert addresses[0] != addresses[1]
    # Not a machine's own names: localhost is 127.0.0.1, Debian's host name 127.0.1.1, systemd's resolver 127.0.0.53.
    assert all(one.is_loopback and one >= IPv4Address("127.64.0.0") for one in addresses)


def test_workers_are_not_probed_on_a_laptop() -> None:
    raw = stored()
    laptop = Settings.from_args(["--state", "/tmp/x", "--broker", "mqtt://b:1"]).policy
    assert Settings.from_args(["--in-cluster", "--broker", "mqtt://b:1"]).policy.probes
    edge = edge_pod(parsed(raw), raw, EdgePlan(node="edge-0", broker="b"), little=model("little"), policy=laptop)
    for made in (edge, deployment(raw, laptop)["spec"]["template"]):
        assert "NEREID_HEALTH" not in env_of(made)
        assert not [key for key in made["spec"]["containers"][0] if key.endswith("Probe")]


def test_an_edge_worker_is_told_a_keepalive_where_there_is_one() -> None:
    raw, plan = stored(), EdgePlan(node="edge-0", broker="b")
    made = edge_pod(parsed(raw), raw, plan, little=model("little"), policy=Policy(edge_keepalive_s=5))
    assert env_of(made)["NEREID_KEEPALIVE"] == "5"
    assert "NEREID_KEEPALIVE" not in env_of(pod())


def test_more_nodes_than_an_environment_holds_are_a_reason_and_no_pod() -> None:
    names = [f"a-rather-long-node-name-{number:05}" for number in range(5000)]
    nodes = {name: node(name, zone="a") for name in names} | {"cloud": node("cloud")}
    raw = stored(nodeSelector={"zone": "a"})
    crowded = plan(parsed(raw), raw, world(nodes=nodes))
    assert reasons(crowded) == ["TooManyNodes"]
    assert crowded.parts is None
    fewer = {name: nodes[name] for name in [*names[:3800], "cloud"]}
    fits = plan(parsed(raw), raw, world(nodes=fewer))
    assert fits.parts is not None
    task = cloud_task(parsed(raw), big=model("big"), nodes=fits.nodes, group="g" * 32)
    assert len(task.encode()) < 128 * 1024 - len("NEREID_TASK=") - 1


def test_the_edge_pods_owner_is_the_service() -> None:
    owner = pod()["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("JointInferenceService", "digits", UID)
    assert "blockOwnerDeletion" not in owner


def test_the_edge_pods_name_changes_with_its_template_and_node_and_with_nothing_else() -> None:
    raw = stored()
    same = stored(hardExampleAlgorithm={"name": "IBT"})
    other = stored()
    other["spec"]["edgeWorker"]["workerSpec"] = {**other["spec"]["edgeWorker"]["workerSpec"], "scriptDir": "/code"}
    names = [pod(raw)["metadata"]["name"], pod(same)["metadata"]["name"], pod(other)["metadata"]["name"]]
    assert names[0] == names[1] != names[2]
    assert pod(raw, on="edge-1")["metadata"]["name"] != names[0]


def test_a_long_name_still_makes_a_pod_name() -> None:
    raw = stored()
    raw["metadata"]["name"] = "a" * 47 + ".-" + "b" * 100
    name = pod(raw)["metadata"]["name"]
    assert len(name) <= 63
    assert name.startswith("a" * 47 + "-edge-")


def test_the_deployment_carries_the_whole_task() -> None:
    raw = stored()
    task = cloud_task(parsed(raw), big=model("big"), nodes=["edge-1", "edge-0"], group="secret")
    made = cloud_deployment(
        parsed(raw), raw, task, hostname="cloud-host", big=model("big"), broker="mqtt://b:1", policy=POLICY
    )
    carried = task_in(made)
    assert carried == task
    assert carried is not None
    assert (carried.nodes, carried.group, carried.role) == (["edge-0", "edge-1"], "secret", "cloud")
    template = made["spec"]["template"]["spec"]
    assert template["nodeSelector"] == {"kubernetes.io/hostname": "cloud-host"}
    assert "nodeName" not in template
    own = template["containers"][0]["env"][0]
    assert own["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"


def test_an_edge_change_leaves_the_cloud_task_as_it_is() -> None:
    raw, changed = stored(), stored(hardExampleAlgorithm={"name": "IBT"})
    changed["metadata"]["generation"] = 4
    tasks = [cloud_task(parsed(r), big=model("big"), nodes=["n"], group="g") for r in (raw, changed)]
    assert tasks[0] == tasks[1]


@pytest.mark.parametrize(
    ("url", "path"),
    [("/m/a.tflite", "/m/a.tflite"), ("file:///m/a%20b", "/m/a b"), ("https://h/a", None), ("s3://b/a", None)],
)
def test_only_local_urls_are_paths(url: str, path: str | None) -> None:
    assert (str(found) if (found := node_path(url)) else None) == path


@pytest.mark.parametrize(
    ("url", "format_", "read"),
    [
        ("/data/index.csv", "csv", "/data"),
        ("file:///data/INDEX.CSV", "csv", "/data"),
        ("/data/index.txt", "txt", "/data"),
        ("/data/v1.2", "csv", "/data/v1.2"),
        ("/data/v1.2", "folder", "/data/v1.2"),
        ("/data/coco/annotations.json", "coco", "/data/coco"),
        ("/data/yolo/data.yaml", "yolo", "/data/yolo"),
        ("/data/index.avro", "avro", "/data"),
        ("/data/pictures", "txt", "/data/pictures"),
        ("s3://data/index.csv", "csv", None),
    ],
)
def test_a_worker_reads_an_indexs_folder_and_no_folder_above_a_dataset(
    url: str, format_: str, read: str | None
) -> None:
    given = dataset("d", "edge-0")
    given["spec"] |= {"dataUrl": url, "format": format_}
    assert (str(found) if (found := dataset_path(given)) else None) == read


def test_a_plan_resolves_all_that_a_service_names() -> None:
    raw = stored(dataset={"labels": {"part": "test"}})
    datasets = {"pictures": dataset("pictures", "edge-0", part="test"), "others": dataset("others", "edge-0")}
    planned = plan(parsed(raw), raw, world(datasets=datasets))
    assert planned.problems == ()
    assert planned.parts is not None
    assert [set(edge.datasets) for edge in planned.parts.edges] == [{"pictures"}]


def test_a_missing_model_or_cloud_node_stops_the_whole_service() -> None:
    raw = stored()
    assert reasons(plan(parsed(raw), raw, world(models={}))) == ["ModelNotFound", "ModelNotFound"]
    planned = plan(parsed(raw), raw, world(nodes={"edge-0": node("edge-0")}))
    assert reasons(planned) == ["NodeNotFound"]
    assert planned.parts is None
    assert planned.nodes == ("edge-0",)


def test_one_node_without_its_dataset_does_not_stop_the_others() -> None:
    raw = stored(nodeSelector={"zone": "a"}, dataset={"labels": {"part": "test"}})
    nodes = {"edge-0": node("edge-0", zone="a"), "edge-1": node("edge-1", zone="a"), "cloud": node("cloud")}
    planned = plan(parsed(raw), raw, world(nodes=nodes, datasets={"d": dataset("d", "edge-1", part="test")}))
    assert reasons(planned) == ["DatasetNotFound"]
    assert planned.parts is not None
    assert [edge.node for edge in planned.parts.edges] == ["edge-1"]


def test_what_stops_the_whole_service_stands_before_what_stops_a_node() -> None:
    names = [f"a-rather-long-node-name-{number:05}" for number in range(5000)]
    nodes = {name: node(name, zone="a") for name in names} | {"cloud": node("cloud")}
    raw = stored(nodeSelector={"zone": "a"}, dataset={"labels": {"part": "test"}})
    planned = plan(parsed(raw), raw, world(nodes=nodes))
    assert (reasons(planned)[0], set(reasons(planned)[1:])) == ("TooManyNodes", {"DatasetNotFound"})
    assert planned.parts is None


def test_a_dataset_on_another_node_is_told_of() -> None:
    raw = stored(dataset={"name": "d"})
    planned = plan(parsed(raw), raw, world(datasets={"d": dataset("d", "cloud")}))
    assert planned.problems == (
        Problem(reason="DatasetNotOnNode", message="Dataset d is on node cloud, the worker on edge-0"),
    )


def test_a_users_script_may_bring_its_own_rule() -> None:
    raw = stored(hardExampleAlgorithm={"name": "Mine"})
    raw["spec"]["edgeWorker"]["workerSpec"] = {
        **raw["spec"]["edgeWorker"]["workerSpec"], "scriptDir": "/code", "scriptBootFile": "edge.py",
    }  # fmt: skip
    assert plan(parsed(raw), raw, world()).problems == ()


def test_the_namespace_of_the_topics_is_refused() -> None:
    raw = stored()
    raw["metadata"]["namespace"] = "neptune"
    assert reasons(plan(parsed(raw), raw, world())) == ["NamespaceRefused"]


def test_a_nodes_own_broker_is_taken_from_its_annotation() -> None:
    raw, edge = stored(), node("edge-0")
    edge["metadata"]["annotations"] = {"nereid.io/edge-broker": "mqtt://127.0.0.1:18831"}
    planned = plan(parsed(raw), raw, world(nodes={"edge-0": edge, "cloud": node("cloud")}))
    assert planned.parts is not None
    assert planned.parts.edges[0].broker == "mqtt://127.0.0.1:18831"


def roots(**more: Any) -> Policy:
    return Policy(host_roots=(PurePosixPath("/var/lib/nereid"), PurePosixPath("/srv/models")), **more)


def under(policy: Policy, raw: Object | None = None, **parts: dict[str, Object]) -> Plan:
    """The plan of a service whose models lie where they may."""
    raw = raw or stored()
    models = {
        name: with_uid(model(name) | {"spec": {"modelUrl": f"/srv/models/{name}/m.tflite", "format": "tflite"}})
        for name in ("little", "big")
    }
    return plan(parsed(raw), raw, world(**{"models": models, **parts}, policy=policy))


def with_script(folder: str, side: str = "edgeWorker") -> Object:
    raw = stored()
    own = {"scriptDir": folder, "scriptBootFile": "main.py"}
    raw["spec"][side] = {**raw["spec"][side], "workerSpec": {**raw["spec"][side]["workerSpec"], **own}}
    return raw


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/srv/models", True),
        ("/srv/models/a/b", True),
        ("/var/lib/nereid/examples", True),
        ("/srv/modelsx", False),
        ("/srv", False),
        ("/etc", False),
        ("/srv/models/../../etc", False),
        ("/var/lib/nereid/lc", False),
        ("/var/lib/nereid/workers/other-01234567", False),
        ("/var/lib/nereid/cache/sets", False),
        ("/var/lib/nereid", False),
        ("/", False),
    ],
)
def test_workers_read_users_folders_below_a_configured_root_and_never_ours(path: str, allowed: bool) -> None:
    assert roots().allows(PurePosixPath(path)) is allowed
    planned = under(roots(), with_script(path))
    assert reasons(planned) == ([] if allowed else ["PathNotAllowed"])
    assert (planned.parts is not None) is allowed


def test_a_model_outside_the_roots_stops_the_service_and_is_named() -> None:
    (problem,) = under(roots(), models={"little": with_uid(model("little")), "big": with_uid(model("big"))}).problems[
        :1
    ]
    assert problem.reason == "PathNotAllowed"
    assert "Model little: modelUrl: workers may not read /models/little" in problem.message


def test_a_dataset_outside_the_roots_stops_its_node_only() -> None:
    raw = stored(nodeSelector={"zone": "a"}, dataset={"labels": {"part": "test"}})
    inside = dataset("inside", "edge-1", part="test")
    inside["spec"]["dataUrl"] = "/srv/models/data/index.csv"
    planned = under(
        roots(),
        raw,
        nodes={"edge-0": node("edge-0", zone="a"), "edge-1": node("edge-1", zone="a"), "cloud": node("cloud")},
        datasets={"outside": dataset("outside", "edge-0", part="test"), "inside": inside},
    )
    assert reasons(planned) == ["PathNotAllowed"]
    assert planned.parts is not None
    assert [edge.node for edge in planned.parts.edges] == ["edge-1"]


def test_without_roots_a_laptop_reads_its_users_folders() -> None:
    assert under(Policy(), with_script("/home/me/scripts")).problems == ()


def test_services_outside_the_listed_namespaces_are_not_served() -> None:
    assert reasons(under(roots(namespaces=frozenset({"vision"})))) == ["NamespaceNotServed"]
    assert reasons(under(roots(namespaces=frozenset({"vision", "default"})))) == []


def test_a_runtime_is_found_by_version_then_framework_then_at_all() -> None:
    policy = Policy(runtimes={name: Runtime(image=name) for name in ("tflite/2", "tflite", "*")})
    found = [policy.runtime(*asked) for asked in (("tflite", "2"), ("tflite", "1"), ("onnx", "1"))]
    assert [runtime.image for runtime in found if runtime] == ["tflite/2", "tflite", "*"]


def test_a_framework_without_a_runtime_needs_an_image_of_ones_own() -> None:
    policy = roots(runtimes={"onnx": Runtime(image="onnx:1")})
    raw = stored()
    assert reasons(under(policy, raw)) == ["RuntimeUnknown", "RuntimeUnknown"]
    for side in ("edgeWorker", "cloudWorker"):
        raw["spec"][side]["workerSpec"]["image"] = "mine:3"
    assert reasons(under(policy, raw)) == []
    container = edge_pod(
        parsed(raw), raw, EdgePlan(node="edge-0", broker="mqtt://b:1"), little=model("little"), policy=policy
    )["spec"]["containers"][0]
    assert (container["image"], container["imagePullPolicy"]) == ("mine:3", "IfNotPresent")


@pytest.mark.parametrize(("image", "runs"), [("mine:3", ("mine:3", "IfNotPresent")), (None, ("worker:1", "Always"))])
def test_an_image_of_ones_own_stands_in_for_the_frameworks_on_both_sides(
    image: str | None, runs: tuple[str, str]
) -> None:
    policy = Policy(runtimes={"*": Runtime.model_validate({"image": "worker:1", "imagePullPolicy": "Always"})})
    raw = stored()
    for side in ("edgeWorker", "cloudWorker"):
        own = {} if image is None else {"image": image}
        raw["spec"][side]["workerSpec"] = {**raw["spec"][side]["workerSpec"], **own}
    edge = edge_pod(parsed(raw), raw, EdgePlan(node="edge-0", broker="b"), little=model("little"), policy=policy)
    for made in (edge, deployment(raw, policy)["spec"]["template"]):
        container = made["spec"]["containers"][0]
        assert (container["image"], container["imagePullPolicy"]) == runs


def deployment(raw: Object, policy: Policy) -> Object:
    task = cloud_task(parsed(raw), big=model("big"), nodes=["edge-0"], group="g")
    return cloud_deployment(parsed(raw), raw, task, hostname="h", big=model("big"), broker="mqtts://b:1", policy=policy)


def test_resources_come_from_the_runtime_of_the_side() -> None:
    edge, cloud = {"limits": {"memory": "256Mi"}}, {"requests": {"cpu": "1"}}
    policy = Policy(runtimes={"*": Runtime(image="i", edge=edge, cloud=cloud)})
    raw = stored()
    made = edge_pod(
        parsed(raw), raw, EdgePlan(node="edge-0", broker="mqtt://b:1"), little=model("little"), policy=policy
    )
    assert made["spec"]["containers"][0]["resources"] == edge
    assert deployment(raw, policy)["spec"]["template"]["spec"]["containers"][0]["resources"] == cloud


def test_containers_may_change_nothing_but_their_own_folders() -> None:
    cloud = deployment(stored(), POLICY)["spec"]["template"]["spec"]
    for spec in (pod()["spec"], cloud):
        rights = spec["containers"][0]["securityContext"]
        assert rights["readOnlyRootFilesystem"] is True
        assert rights["allowPrivilegeEscalation"] is False
        assert rights["capabilities"] == {"drop": ["ALL"]}
        writable = [m["mountPath"] for m in spec["containers"][0]["volumeMounts"] if not m.get("readOnly")]
        assert set(writable) <= {"/var/lib/nereid/worker", "/var/lib/nereid/tmp"}
    assert cloud["securityContext"]["runAsNonRoot"] is True


def test_only_edge_pods_are_on_their_nodes_network() -> None:
    spec = pod()["spec"]
    assert (spec["hostNetwork"], spec["dnsPolicy"]) == (True, "Default")
    assert "hostNetwork" not in deployment(stored(), POLICY)["spec"]["template"]["spec"]


def test_a_script_may_come_as_a_config_map() -> None:
    spec = pod(with_script("configmap:scripts"))["spec"]
    assert {"name": "script", "configMap": {"name": "scripts"}} in spec["volumes"]
    env = {entry["name"]: entry.get("value", "") for entry in spec["containers"][0]["env"]}
    mounts = {m["name"]: m for m in spec["containers"][0]["volumeMounts"]}
    assert mounts["script"] == {"name": "script", "mountPath": env["NEREID_SCRIPT_DIR"], "readOnly": True}
    assert under(roots(), with_script("configmap:scripts")).problems == ()


def test_a_cloud_script_from_a_config_map_is_named_by_its_mount() -> None:
    made = deployment(with_script("configmap:scripts", "cloudWorker"), POLICY)
    task = task_in(made)
    mounts = {m["name"]: m for m in made["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]}
    assert task is not None
    assert task.script_dir == mounts["script"]["mountPath"]


def test_cloud_workers_get_their_certificate_where_the_broker_wants_one() -> None:
    template = deployment(stored(), Policy(worker_tls_secret="worker-tls"))["spec"]["template"]["spec"]
    (volume,) = (v for v in template["volumes"] if "secret" in v)
    assert volume["secret"]["secretName"] == "worker-tls"
    (mount,) = (m for m in template["containers"][0]["volumeMounts"] if m["name"] == volume["name"])
    env = {entry["name"]: entry.get("value", "") for entry in template["containers"][0]["env"]}
    assert env["NEREID_CERTS"] == mount["mountPath"]
    bare = deployment(stored(), POLICY)["spec"]["template"]["spec"]
    assert not [v for v in bare["volumes"] if "secret" in v]


def test_a_runtime_table_is_read_from_yaml(tmp_path: Path) -> None:
    file = tmp_path / "runtimes.yaml"
    file.write_text("tflite: {image: 'w:1', edge: {limits: {memory: 256Mi}}}\n")
    assert read_runtimes(file) == {"tflite": Runtime(image="w:1", edge={"limits": {"memory": "256Mi"}})}


@pytest.mark.parametrize("text", ["", "- a", "tflite: {imag: w}", "tflite: {image: ''}", "a: [", "tflite: w"])
def test_a_runtime_table_without_sense_names_the_file(text: str, tmp_path: Path) -> None:
    file = tmp_path / "runtimes.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=r"runtimes\.yaml"):
        read_runtimes(file)
