# SPDX-License-Identifier: Apache-2.0
"""What each overlay comes to, as kubectl renders it."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.k8s.conftest import K8S, OVERLAYS, Object, objects, one, pod_of, with_component

from nereid_cloud.gm.policy import read_runtimes
from nereid_cloud.gm.settings import Settings as GmSettings
from nereid_edge.settings import Settings as EdgeSettings

FILES = K8S.parent / "mosquitto"
WORKLOADS = (("Deployment", "nereid-gm"), ("StatefulSet", "nereid-broker"), ("DaemonSet", "nereid-node"))


def arguments(spec: Object, container: str, found: list[Object]) -> list[str]:
    """A container's arguments as the kubelet would expand them."""
    (chosen,) = (c for c in spec["containers"] if c["name"] == container)
    env = {entry["name"]: _value(entry, found) for entry in chosen["env"]}
    expanded: list[str] = chosen["args"]
    for name, value in env.items():
        expanded = [argument.replace(f"$({name})", value) for argument in expanded]
    assert not [argument for argument in expanded if "$(" in argument]
    return expanded


def _value(entry: dict[str, Any], found: list[Object]) -> str:
    if "value" in entry:
        return str(entry["value"])
    source = entry["valueFrom"]
    if "fieldRef" in source:
        return {"metadata.name": "gm-0", "spec.nodeName": "edge-0"}[source["fieldRef"]["fieldPath"]]
    wanted = source["configMapKeyRef"]
    (config,) = (o for o in found if o["kind"] == "ConfigMap" and o["metadata"]["name"] == wanted["name"])
    return str(config["data"][wanted["key"]])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_programs_understand_the_arguments_that_they_get(overlay: str, tmp_path: Path) -> None:
    found = objects(overlay)
    given = arguments(pod_of(one(found, "Deployment", "nereid-gm")), "gm", found)
    table = tmp_path / "runtimes.yaml"
    table.write_text(one(found, "ConfigMap", "nereid-runtimes")["data"]["runtimes.yaml"])
    given = [a.replace("/etc/nereid/runtimes/runtimes.yaml", str(table)) for a in given]
    gm = GmSettings.from_args(given)
    lc = EdgeSettings.from_args(arguments(pod_of(one(found, "DaemonSet", "nereid-node")), "local-controller", found))
    assert gm.state is None
    assert gm.kubeconfig is None
    assert (lc.node, str(lc.state)) == ("edge-0", "/var/lib/nereid/lc")
    assert f"mqtt://{lc.edge.host}:{lc.edge.port}" == gm.policy.edge_broker
    assert gm.policy.host_roots
    assert (gm.link.tls is None) == (lc.cloud.tls is None) == (overlay == "dev")
    assert bool(gm.policy.worker_tls_secret) == (overlay != "dev")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_broker_configurations_are_the_very_files_of_mosquitto(overlay: str) -> None:
    found = objects(overlay)
    for name, files in (
        ("nereid-broker", ("cloud.conf", "cloud-plain.conf", "cloud.acl")),
        ("nereid-edge-broker", ("edge.conf", "edge.acl")),
    ):
        assert one(found, "ConfigMap", name)["data"] == {file: (FILES / file).read_text() for file in files}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_all_that_a_pod_mounts_from_this_cluster_is_there(overlay: str) -> None:
    found = objects(overlay)
    present = {(o["metadata"]["namespace"], o["metadata"]["name"]) for o in found if o["kind"] == "ConfigMap"}
    for kind, name in WORKLOADS:
        workload = one(found, kind, name)
        place = workload["metadata"]["namespace"]
        volumes = {v["name"]: v for v in pod_of(workload).get("volumes", ())}
        claims = {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", ())}
        for volume in volumes.values():
            if "configMap" in volume:
                assert (place, volume["configMap"]["name"]) in present
        for container in pod_of(workload)["containers"]:
            assert {m["name"] for m in container["volumeMounts"]} <= volumes.keys() | claims
        secrets = {v["secret"]["secretName"] for v in volumes.values() if "secret" in v}
        assert bool(secrets) == (overlay != "dev" and kind != "DaemonSet")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_images_have_the_packages_version(overlay: str) -> None:
    found = objects(overlay)
    images = {c["image"] for kind, name in WORKLOADS for c in pod_of(one(found, kind, name))["containers"]}
    ours = version("nereid-ai")
    assert images == {f"nereid-{part}:{ours}" for part in ("broker", "cloud", "edge")}
    table = yaml.safe_load(one(found, "ConfigMap", "nereid-runtimes")["data"]["runtimes.yaml"])
    assert {one["image"] for one in table.values() if "command" not in one} == {f"nereid-worker:{ours}"}


def test_the_shipped_runtime_table_can_be_read() -> None:
    assert read_runtimes(K8S / "base" / "runtimes.yaml")["tflite"].edge["limits"]["memory"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_runs_with_more_rights_than_it_needs(overlay: str) -> None:
    found = objects(overlay)
    for kind, name in WORKLOADS:
        spec = pod_of(one(found, kind, name))
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is (kind == "Deployment")
        for container in spec["containers"]:
            rights = container["securityContext"]
            assert rights["readOnlyRootFilesystem"] is True
            assert rights["allowPrivilegeEscalation"] is False
            assert rights["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_node_goes_on_without_the_cloud(overlay: str) -> None:
    node = one(objects(overlay), "DaemonSet", "nereid-node")
    spec = pod_of(node)
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["hostNetwork"] is True
    assert node["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"] == "100%"
    assert ("nodeSelector" in spec) is (overlay == "kubeedge")


def test_the_nodes_own_broker_is_used_where_that_is_asked_for(tmp_path: Path) -> None:
    found = with_component(tmp_path, "node-broker")
    node = pod_of(one(found, "DaemonSet", "nereid-node"))
    assert [container["name"] for container in node["containers"]] == ["local-controller"]
    assert "--edge-broker=mqtt://127.0.0.1:1883" in arguments(node, "local-controller", found)
    gm = pod_of(one(found, "Deployment", "nereid-gm"))
    assert "--edge-broker=mqtt://127.0.0.1:1883" in arguments(gm, "gm", found)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_of_the_whole_cluster_the_globalmanager_sees_nodes_alone_where_that_is_asked_for(
    overlay: str, tmp_path: Path
) -> None:
    found = with_component(tmp_path, "namespaced", overlay)
    rules = [rule for obj in found if obj["kind"] == "ClusterRole" for rule in obj["rules"]]
    assert [rule["resources"] for rule in rules if "resourceNames" not in rule] == [["nodes"]]
    assert len([obj for obj in found if obj["kind"] == "ClusterRoleBinding"]) == 1
    assert "--confined" in arguments(pod_of(one(found, "Deployment", "nereid-gm")), "gm", found)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_hangs_is_started_anew_and_probed_where_it_listens(overlay: str) -> None:
    found = objects(overlay)
    for kind, name in WORKLOADS:
        for container in pod_of(one(found, kind, name))["containers"]:
            probes = {
                key: container[key] for key in ("livenessProbe", "readinessProbe", "startupProbe") if key in container
            }
            assert {"livenessProbe", "readinessProbe"} <= probes.keys()
            paths = {key: probe["httpGet"]["path"] for key, probe in probes.items() if "httpGet" in probe}
            if "mosquitto" in container["command"]:
                assert all("tcpSocket" in probe for probe in probes.values())
            else:
                assert paths["livenessProbe"] == "/livez"
                assert paths["readinessProbe"] == "/readyz"
            ports = {port["name"]: port["containerPort"] for port in container.get("ports", ())}
            for probe in probes.values():
                asked = (probe.get("httpGet") or probe["tcpSocket"])["port"]
                port = ports[asked] if isinstance(asked, str) else asked
                health = [arg.rpartition(":")[2] for arg in container["args"] if arg.startswith("--health=")]
                assert health in ([], [str(port)])
