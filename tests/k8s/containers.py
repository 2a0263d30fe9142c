# SPDX-License-Identifier: Apache-2.0
"""A whole Nereid as containers with TLS, put up as docs/kubeedge.md says and taken down without a trace.

Nothing but the API server is used, and ports of a cloud node: so it works on a user's cluster, too.
"""

import base64
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import yaml
from tests.cluster.fixtures import RealCluster
from tests.cluster.kubectl import Kubectl
from tests.cluster.system import sample
from tests.flow.patience import until
from tests.k8s import errands
from tests.k8s.conftest import K8S, rendered
from tests.k8s.errands import ROOT

TEST_FILES: Final = f"{ROOT}/test"
NAMESPACES: Final = ("nereid", "nereid-edge")
PARTS: Final = (
    ("nereid", "statefulset/nereid-broker"),
    ("nereid-edge", "daemonset/nereid-node"),
    ("nereid", "deployment/nereid-gm"),
)
_EDGE_ROLE: Final = "node-role.kubernetes.io/edge"
_CHUNK: Final = 400_000  # a ConfigMap is at most 1 MiB

_FILE_SERVER: Final = {
    "files": {
        "image": f"nereid-edge:{version('nereid-ai')}",
        "command": ["python", "-m", "http.server", "{port}", "--directory", "/models/{modelName}"],
        "models": "/models/{modelName}/{version}",
        "ready": "/{version}/saved_model.pb",
    }
}
"""A server of others, as the runtime table has TensorFlow's: it serves nothing but the files themselves."""

_SEED = f"""
import io, pathlib, shutil, tarfile
root = pathlib.Path("{ROOT}")
if any((root / name).exists() for name in ("lc", "workers", "test")):
    say("taken")
else:
    parts = sorted(pathlib.Path("/parts").glob("*/part"))
    tarfile.open(fileobj=io.BytesIO(b"".join(part.read_bytes() for part in parts))).extractall(root / "test")
    (root / "test" / "certs").mkdir()
    (root / "workers" / ".removed-test").mkdir(parents=True)
    for name in ("ca.crt", "tls.crt", "tls.key"):
        shutil.copyfile(f"/certs/{{name}}", root / "test" / "certs" / name)
    say("done")
"""
_CLEAN = f"""
import pathlib, shutil
root = pathlib.Path("{ROOT}")
# Without a test's files what is there is somebody's.
for name in ("lc", "workers", "test") if (root / "test").exists() else ():
    shutil.rmtree(root / name, ignore_errors=True)
say("done")
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Containers:
    """The system.

    Attributes:
        cluster: where it is.
        cloud: the node of the cloud's parts; the edge itself where there is no other.
        kubectl: in the namespace of services.
        manifest: the sample, with nodes and paths that exist there.
    """

    cluster: RealCluster
    cloud: str
    kubectl: Kubectl
    manifest: str

    def topics(self) -> set[str]:
        """Return the retained topics of services and workers on both brokers."""
        maps = self.kubectl.json("configmap", "--namespace=nereid")["items"]
        url = next(one["data"]["SERVICES_BROKER"] for one in maps if "SERVICES_BROKER" in (one.get("data") or {}))
        certs = {"/certs": {"secret": {"secretName": "nereid-gm-tls", "defaultMode": 0o440}}}
        in_cloud = errands.run(self.kubectl, errands.RETAINED, namespace="nereid", volumes=certs, env={"URL": url})
        at_edge = self.on_edge(errands.RETAINED, URL="mqtt://127.0.0.1:11883")
        return set(json.loads(in_cloud)) | set(json.loads(at_edge))

    def on_edge(self, script: str, **env: str) -> str:
        """Run a program on the edge node, which sees Nereid's folder."""
        node, files = self.cluster.edge, {ROOT: errands.host(ROOT)}
        return errands.run(self.kubectl, script, namespace="nereid-edge", node=node, volumes=files, env=env)

    def story(self) -> str:
        """Return what a reader of a failure wants to see."""
        said = [self.kubectl.run("get", "pods,events,jis", "--all-namespaces", "-o", "wide").stdout]
        if self.cluster.server.is_ours:
            for namespace, part in PARTS:
                argv = (part, f"--namespace={namespace}", "--all-containers", "--tail=15")
                said.append(self.kubectl.run("logs", *argv).stdout)
        return "\n".join(said)


def cloud_of(kubectl: Kubectl, edge: str) -> str:
    """Return a node that is no edge; the edge itself where there is none."""
    others = [node["metadata"] for node in kubectl.json("nodes")["items"] if node["metadata"]["name"] != edge]
    return next((one["name"] for one in others if _EDGE_ROLE not in one.get("labels", {})), edge)


def put_up(kubectl: Kubectl, cluster: RealCluster, place: Path, *, pictures: int, fps: int) -> Containers | str:
    """Apply everything and see it rolled out; return it, or why these nodes cannot be used."""
    cloud = cloud_of(kubectl, cluster.edge)
    addresses = kubectl.json("node", cloud)["status"]["addresses"]
    address = next(one["address"] for one in addresses if one["type"] == "InternalIP")
    certs = place / "certs"
    argv = [sys.executable, "-m", "nereid_cloud.cli", "certs", str(certs)]
    made = [*argv, "--broker", address, "--node", cluster.edge]
    subprocess.run(made, check=True, timeout=60, stdout=subprocess.DEVNULL)
    _apply(cluster, (K8S / "base" / "namespaces.yaml").read_text())
    _apply(cluster, (certs / "secrets.yaml").read_text())

    files = place / "digits"
    text = sample(files, pictures=pictures).replace(str(files), f"{TEST_FILES}/digits")
    text = text.replace("nodeName: cloud", f"nodeName: {cloud}").replace(
        "nodeName: edge-0", f"nodeName: {cluster.edge}"
    )
    text = text.replace('value: "50"', f'value: "{fps}"')
    for node in {cluster.edge, cloud}:
        said = _seed(kubectl, node, files, certs / "nodes" / cluster.edge)
        if said != "done":
            return f"{ROOT} of node {node} is in use: this is a node of somebody's"
    _apply(cluster, rendered(_overlay(place, address, is_single=cloud == cluster.edge)))
    manifest = place / "digits.yaml"
    manifest.write_text(text)
    system = Containers(cluster=cluster, cloud=cloud, kubectl=kubectl, manifest=str(manifest))
    for namespace, name in PARTS:
        done = kubectl.run("rollout", "status", name, f"--namespace={namespace}", "--timeout=120s", timeout_s=130)
        assert done.returncode == 0, done.stderr + system.story()
    return system


def take_down(kubectl: Kubectl, cluster: RealCluster, place: Path) -> None:
    """Take away all but the definitions, whatever there is of it."""
    for namespace in NAMESPACES:
        what = ("daemonset,deployment,statefulset", "--all", f"--namespace={namespace}")
        kubectl.run("delete", *what, "--timeout=60s", timeout_s=70)
    if kubectl.run("get", "namespace", "nereid-edge").returncode == 0:
        until(lambda: not _pods(kubectl, "nereid-edge"), "the node's Pods to be gone", within_s=60.0)
        for node in {cluster.edge, cloud_of(kubectl, cluster.edge)}:
            where = {ROOT: errands.host(ROOT)}
            errands.run(kubectl, _CLEAN, namespace="nereid-edge", node=node, volumes=where)
    overlay = place / "overlay"
    if overlay.exists():
        others = [one for one in yaml.safe_load_all(rendered(overlay)) if one["kind"] != "CustomResourceDefinition"]
        kubectl.run("delete", "--ignore-not-found", "--wait=false", "-f", "-", stdin=yaml.safe_dump_all(others))
    for namespace in NAMESPACES:
        kubectl.run("delete", "namespace", namespace, "--ignore-not-found", "--timeout=60s", timeout_s=70)
    kubectl.run("delete", "secret", "nereid-worker-tls", "--ignore-not-found")


def _pods(kubectl: Kubectl, namespace: str) -> list[Any]:
    found = kubectl.json("pods", f"--namespace={namespace}")["items"]
    return [pod for pod in found if pod["metadata"].get("labels", {}).get("app") != "nereid-errand"]


def _seed(kubectl: Kubectl, node: str, files: Path, certs: Path) -> str:
    """Put the sample's files and the node's certificates below Nereid's folder of a node."""
    packed = _packed(files)
    parts = [packed[at : at + _CHUNK] for at in range(0, len(packed), _CHUNK)]
    volumes: dict[str, dict[str, Any]] = {ROOT: errands.host(ROOT), "/certs": {"secret": {"secretName": "test-certs"}}}
    objects: list[dict[str, Any]] = [
        _object("Secret", "test-certs", {one.name: one.read_bytes() for one in _of(certs)})
    ]
    for number, part in enumerate(parts):
        objects.append(_object("ConfigMap", f"test-part-{number}", {"part": part}))
        volumes[f"/parts/{number}"] = {"configMap": {"name": f"test-part-{number}"}}
    for obj in objects:
        kubectl("apply", "--server-side", "--namespace=nereid-edge", "-f", "-", stdin=json.dumps(obj))
    return errands.run(kubectl, _SEED, namespace="nereid-edge", node=node, volumes=volumes)


def _of(folder: Path) -> Iterable[Path]:
    return (one for one in sorted(folder.iterdir()) if one.is_file())


def _object(kind: str, name: str, files: dict[str, bytes]) -> dict[str, Any]:
    content = {key: base64.b64encode(value).decode() for key, value in files.items()}
    key = "data" if kind == "Secret" else "binaryData"
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "nereid-edge"}, key: content}


def _packed(files: Path) -> bytes:
    """Return the sample's files but for the pictures that its index does not name."""
    named = (files / "data" / "index.csv").read_text()
    for picture in (files / "data").rglob("*.png"):
        if picture.name not in named:
            picture.unlink()

    def of_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        return member

    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        archive.add(files, arcname="digits", filter=of_root)
    return stream.getvalue()


def _apply(cluster: RealCluster, manifest: str) -> None:
    """Apply objects of several namespaces."""
    argv = [*cluster.server.kubectl, "apply", "--server-side", "--force-conflicts", "-f", "-"]
    done = subprocess.run(argv, input=manifest, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def _overlay(folder: Path, address: str, *, is_single: bool) -> Path:
    """Write an overlay of this cluster's address and certificates."""
    own = folder / "overlay"
    own.mkdir()
    up = "../" * len(own.parts[1:])
    brokers = {"nodes": ["CLOUD_BROKER", 30883]}
    certs = [{"op": "replace", "path": "/spec/template/spec/volumes/2/hostPath/path", "value": f"{TEST_FILES}/certs"}]
    patches = [{"target": {"kind": "DaemonSet", "name": "nereid-node"}, "patch": json.dumps(certs)}]
    if is_single:
        brokers["services"] = ["SERVICES_BROKER", 30884]
    else:
        # Not every cluster has a class of storage.
        data = {"name": "data", "emptyDir": {}}
        claims = [
            {"op": "remove", "path": "/spec/volumeClaimTemplates"},
            {"op": "add", "path": "/spec/template/spec/volumes/-", "value": data},
        ]
        patches.append({"target": {"kind": "StatefulSet", "name": "nereid-broker"}, "patch": json.dumps(claims)})
    maps: list[dict[str, Any]] = [
        {
            "name": f"nereid-{part}",
            "namespace": "nereid-edge" if part == "nodes" else "nereid",
            "behavior": "replace",
            "literals": [f"{name}=mqtts://{address}:{port}"],
        }
        for part, (name, port) in brokers.items()
    ]
    (own / "runtimes.yaml").write_text((K8S / "base" / "runtimes.yaml").read_text() + yaml.safe_dump(_FILE_SERVER))
    runtimes = {"name": "nereid-runtimes", "namespace": "nereid", "behavior": "replace", "files": ["runtimes.yaml"]}
    maps.append(runtimes)
    base = f"{up}{str(K8S)[1:]}/overlays/{'single-node' if is_single else 'kubeedge'}"
    written = {"resources": [base], "configMapGenerator": maps, "patches": patches}
    (own / "kustomization.yaml").write_text(yaml.safe_dump(written))
    return own
