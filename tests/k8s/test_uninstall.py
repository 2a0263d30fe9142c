# SPDX-License-Identifier: Apache-2.0
"""`nereid uninstall` on an API server of its own, since the definitions go too."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.cloud.gm.peers import Eyes, Lc, dataset, model, service, set_ready
from tests.cluster import building
from tests.cluster.control_plane import ApiServer, ControlPlane
from tests.cluster.fixtures import go_without
from tests.k8s.conftest import K8S, rendered
from tests.mosquitto import Mosquitto

from nereid_cloud.cluster.kinds import DATASET, JOINT_INFERENCE_SERVICE
from nereid_cloud.cluster.port import Cluster
from nereid_cloud.gm.manager import run
from nereid_cloud.gm.names import FINALIZER
from nereid_cloud.gm.settings import Settings

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

KINDS = "jis,datasets,models,clusterroles,clusterrolebindings,roles,rolebindings,secrets,namespaces,crds"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    """An API server with an overlay applied, and no node to run it."""
    program = building.binary()
    if program is None:
        go_without("cluster", building.MISSING)
    control_plane = ControlPlane(program, tmp_path)
    try:
        made = control_plane.start()
        namespaces = (K8S / "base" / "namespaces.yaml").read_text()
        for manifest in (namespaces, rendered(K8S / "overlays" / "kubeedge"), _secret()):
            apply(made, manifest)
        kubectl(made, "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        yield made
    finally:
        control_plane.stop()


@pytest.fixture
def real(server: ApiServer) -> Iterator[Cluster]:
    from nereid_cloud.cluster.kubernetes import KubernetesCluster  # noqa: PLC0415 - takes a second to import

    with closing(KubernetesCluster(kubeconfig=server.kubeconfig)) as cluster:
        yield cluster


def _secret() -> str:
    return "apiVersion: v1\nkind: Secret\nmetadata: {name: nereid-worker-tls, namespace: default}\n"


def kubectl(server: ApiServer, *arguments: str, stdin: str = "") -> str:
    argv = [*server.kubectl, *arguments]
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def apply(server: ApiServer, manifest: str) -> None:
    kubectl(server, "apply", "--server-side", "-f", "-", stdin=manifest)


def uninstall(server: ApiServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "nereid_cloud.cli", "--kubeconfig", str(server.kubeconfig), "uninstall", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=90)


def left(server: ApiServer) -> list[str]:
    """What a cluster has of Nereid."""
    kinds = kubectl(server, "api-resources", "-o", "name").split()
    asked = [kind for kind in KINDS.split(",") if kind not in {"jis", "datasets", "models"}]
    names = kubectl(server, "get", ",".join(asked), "--all-namespaces", "-o", "name").split()
    ours = [kind for kind in kinds if kind.endswith((".edgeai.io", ".neptune.io"))]
    return [name for name in names if "nereid" in name or ".edgeai.io" in name or ".neptune.io" in name] + ours


async def test_everything_goes_while_the_globalmanager_clears_up(
    server: ApiServer, real: Cluster, broker: Mosquitto
) -> None:
    settings = Settings.from_args(
        ["--kubeconfig", str(server.kubeconfig), "--broker", broker.url, "--delete-timeout", "10s"]
    )
    for name in ("cloud", "edge-0"):
        # No kubelet stands behind these: what is scheduled there would never go.
        real.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {"unschedulable": True}})
        set_ready(real, name, ready=True)
    stop = asyncio.Event()
    async with Eyes(real) as eyes, Lc(broker.url, "edge-0", eyes) as lc:
        leading = asyncio.create_task(run(settings, real, stop=stop))
        for obj in (model("little"), model("big"), dataset("pictures", "edge-0", part="test"), service()):
            await asyncio.to_thread(real.create, obj)
        await eyes.until(lambda: lc.names == {"digits", "pictures"})
        done = await asyncio.to_thread(uninstall, server)
        assert done.returncode == 0, done.stderr + done.stdout
        # Each node was told before the objects went.
        assert lc.names == set()
        stop.set()
        await leading
    order = [line.split()[0] for line in done.stdout.splitlines()]
    assert order.index("jointinferenceservice") < order.index("model") < order.index("namespace")
    assert order.index("namespace") < order.index("customresourcedefinition")
    assert left(server) == []


def test_without_a_globalmanager_it_says_so_and_force_goes_on(server: ApiServer, real: Cluster) -> None:
    for obj in (model("little"), dataset("pictures", "edge-0"), service()):
        if obj["kind"] != "Model":
            obj["metadata"]["finalizers"] = [FINALIZER]
        real.create(obj)
    done = uninstall(server, "--timeout=1s")
    assert done.returncode == 2
    assert "jointinferenceservice.neptune.io/digits: does not go" in done.stderr
    assert "--force" in done.stderr
    # Nothing else was touched: a GlobalManager that comes back finds its definitions and its rights.
    assert len(real.list(DATASET).items) == len(real.list(JOINT_INFERENCE_SERVICE).items) == 1
    assert "customresourcedefinition.apiextensions.k8s.io/datasets.edgeai.io" in left(server)
    done = uninstall(server, "--force", "--timeout=60s")
    assert done.returncode == 0, done.stderr
    assert left(server) == []
    again = uninstall(server)
    assert (again.returncode, again.stderr) == (0, "")


def test_a_laptop_is_told_of_its_own_way() -> None:
    argv = [sys.executable, "-m", "nereid_cloud.cli", "uninstall"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2
    assert "nereid down" in done.stderr
