# SPDX-License-Identifier: Apache-2.0
"""The overlay single-node with TLS on a real node: every part a container of our own images, the sample served."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.cluster.fixtures import IMAGES, RealCluster, go_without
from tests.cluster.kubectl import Kubectl
from tests.cluster.system import sample
from tests.flow.patience import until
from tests.k8s.conftest import K8S, rendered

pytestmark = [pytest.mark.node, pytest.mark.slow, pytest.mark.timeout(400)]

ROOT = Path("/var/lib/nereid")
PICTURES = 60


@pytest.fixture
def kubectl(real_cluster: RealCluster) -> Kubectl:
    if real_cluster.node is None:
        pytest.skip("this test makes folders on the node, so it takes none of a user's cluster")
    if not list(IMAGES.glob("nereid-*.tar")):
        go_without("node", "no images: make images")
    if ROOT.exists():
        pytest.skip(f"{ROOT} is there already: this machine is a node of somebody's")
    return Kubectl(real_cluster.server.kubectl, namespace="default")


@pytest.fixture
def system(kubectl: Kubectl, real_cluster: RealCluster, tmp_path: Path) -> Iterator[Kubectl]:
    """The overlay, applied and rolled out."""
    node = kubectl.json("node", real_cluster.edge)
    address = next(a["address"] for a in node["status"]["addresses"] if a["type"] == "InternalIP")
    certs = tmp_path / "certs"
    argv = [sys.executable, "-m", "nereid_cloud.cli", "certs", str(certs)]
    subprocess.run([*argv, "--broker", address, "--node", real_cluster.edge], check=True, timeout=60)
    text = rendered(overlay(tmp_path, address, certs / "nodes" / real_cluster.edge))
    try:
        apply(real_cluster, (K8S / "base" / "namespaces.yaml").read_text())
        apply(real_cluster, (certs / "secrets.yaml").read_text())
        apply(real_cluster, text)
        for namespace, name in (
            ("nereid", "statefulset/nereid-broker"), ("nereid-edge", "daemonset/nereid-node"),
            ("nereid", "deployment/nereid-gm"),
        ):  # fmt: skip
            done = kubectl.run("rollout", "status", name, f"--namespace={namespace}", "--timeout=90s", timeout_s=100)
            assert done.returncode == 0, done.stderr + story(kubectl)
        yield kubectl
    finally:
        for namespace in ("nereid", "nereid-edge"):
            kubectl.run("delete", "namespace", namespace, "--timeout=60s", timeout_s=70)
        shutil.rmtree(ROOT, ignore_errors=True)


def apply(cluster: RealCluster, manifest: str) -> None:
    """Apply objects of several namespaces."""
    argv = [*cluster.server.kubectl, "apply", "--server-side", "--force-conflicts", "-f", "-"]
    done = subprocess.run(argv, input=manifest, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def overlay(folder: Path, address: str, certs: Path) -> Path:
    """Write an overlay of this node's address and certificates."""
    own = folder / "overlay"
    own.mkdir()
    up = "../" * len(own.parts[1:])
    patch = [{"op": "replace", "path": "/spec/template/spec/volumes/2/hostPath/path", "value": str(certs)}]
    brokers = {"nodes": ["CLOUD_BROKER", 30883], "services": ["SERVICES_BROKER", 30884]}
    (own / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "resources": [f"{up}{str(K8S)[1:]}/overlays/single-node"],
                "configMapGenerator": [
                    {
                        "name": f"nereid-{part}",
                        "namespace": "nereid-edge" if part == "nodes" else "nereid",
                        "behavior": "replace",
                        "literals": [f"{name}=mqtts://{address}:{port}"],
                    }
                    for part, (name, port) in brokers.items()
                ],
                "patches": [{"target": {"kind": "DaemonSet", "name": "nereid-node"}, "patch": json.dumps(patch)}],
            }
        )
    )
    return own


def story(kubectl: Kubectl) -> str:
    """What a reader of a failure wants to see."""
    said = [kubectl.run("get", "pods,events,jis", "--all-namespaces", "-o", "wide").stdout]
    for namespace, name in (("nereid", "nereid-gm"), ("nereid", "nereid-broker"), ("nereid-edge", "nereid-node")):
        label = f"--selector=app.kubernetes.io/name={name}"
        said.append(kubectl.run("logs", f"--namespace={namespace}", label, "--all-containers", "--tail=15").stdout)
    return "\n".join(said)


def test_the_sample_is_served_by_containers_and_leaves_nothing(
    system: Kubectl, real_cluster: RealCluster, tmp_path: Path
) -> None:
    digits = ROOT / "examples" / "digits"
    digits.mkdir(parents=True)
    manifest = tmp_path / "digits.yaml"
    text = sample(digits, pictures=PICTURES).replace("nodeName: cloud", f"nodeName: {real_cluster.edge}")
    manifest.write_text(text.replace("nodeName: edge-0", f"nodeName: {real_cluster.edge}"))
    system("apply", "-f", str(manifest))
    done = system.run("wait", "jis/digits", "--for=condition=Ready", "--timeout=90s", timeout_s=100)
    assert done.returncode == 0, done.stderr + story(system)

    def metrics() -> dict[str, str]:
        status = system.json("jis", "digits").get("status") or {}
        return {metric["key"]: metric["value"] for metric in status.get("metrics") or ()}

    def all_answered() -> bool:
        now = metrics()
        return now.get("seen") == str(PICTURES) and now.get("hard") == now.get("answered") != "0"

    until(all_answered, "an answer for each hard sample", within_s=60.0)
    system("delete", "-f", str(manifest), "--timeout=60s", timeout_s=70)
    pods = system.json("pods").get("items")
    assert [pod["metadata"]["name"] for pod in pods or () if "deletionTimestamp" not in pod["metadata"]] == []
