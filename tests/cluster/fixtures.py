# SPDX-License-Identifier: Apache-2.0
"""The fixture `api_server`: a real Kubernetes API server with Nereid's CRDs, or a skip that says what to install."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from tests.cluster import building
from tests.cluster.control_plane import ApiServer, ControlPlane
from tests.cluster.kubectl import Kubectl
from tests.cluster.node import ADDRESS, SERVICES, Node, folder, missing

from nereid_cloud import data

VARIABLE = "NEREID_TEST_KUBECONFIG"
NODE_VARIABLE = "NEREID_TEST_EDGE_NODE"
IMAGES = Path(__file__).parents[2] / "dist" / "images"


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build before the first test: within a test the build would fall to its time-out."""
    wanted = any(_WANTING & set(_fixtures(item)) for item in session.items)
    if wanted and not session.config.option.collectonly and VARIABLE not in os.environ:
        capture = session.config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture else nullcontext():
            building.binary()
            building.pause()


_WANTING = frozenset({"api_server", "real_cluster"})


def _fixtures(item: pytest.Item) -> list[str]:
    return getattr(item, "fixturenames", [])


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A real API server with controllers, without nodes: that of `NEREID_TEST_KUBECONFIG`, else our own."""
    given = os.environ.get(VARIABLE)
    if given:
        server = _of_kubeconfig(Path(given))
        _apply_crds(server)
        yield server
        return
    program = building.binary()
    if program is None:
        pytest.skip(building.MISSING)
    control_plane = ControlPlane(program, tmp_path_factory.mktemp("control-plane"))
    try:
        server = control_plane.start()
        _apply_crds(server)
        yield server
    finally:
        control_plane.stop()


@pytest.fixture
def kubectl(api_server: ApiServer) -> Iterator[Kubectl]:
    """A kubectl whose namespace is the test's own, and goes with it."""
    tool = Kubectl(api_server.kubectl, namespace=f"test-{secrets.token_hex(4)}")
    tool("create", "namespace", tool.namespace)
    yield tool
    tool("delete", "namespace", tool.namespace, "--wait=false")


@dataclass(frozen=True, slots=True, kw_only=True)
class RealCluster:
    """A cluster with a node that runs containers.

    Attributes:
        server: its API server.
        edge: the name of the node that is an edge.
        node: its processes, to be killed; None where the node is the user's.
    """

    server: ApiServer
    edge: str
    node: Node | None = None


@pytest.fixture(scope="session")
def real_cluster() -> Iterator[RealCluster]:
    """A cluster with a real node: that of `NEREID_TEST_KUBECONFIG` and `NEREID_TEST_EDGE_NODE`, else our own.

    Our own has the images of ``dist/images`` (made by ``make images``); a user's has to have them beforehand.
    """
    given, edge = os.environ.get(VARIABLE), os.environ.get(NODE_VARIABLE)
    if given and edge:
        server = _of_kubeconfig(Path(given))
        _apply_crds(server)
        yield RealCluster(server=server, edge=edge)
        return
    program, pause, problem = building.binary(), building.pause(), missing()
    if program is None or pause is None or problem:
        pytest.skip(problem or building.MISSING)
    with folder() as place:
        control_plane = ControlPlane(program, place, address=ADDRESS, services=SERVICES)
        try:
            server = control_plane.start()
            _apply_crds(server)
            yield from _with_node(Node(program, pause, server, name="edge-0"), server)
        finally:
            control_plane.stop()


def _with_node(node: Node, server: ApiServer) -> Iterator[RealCluster]:
    tool = Kubectl(server.kubectl, namespace="default")
    try:
        node.start()
        for archive in sorted(IMAGES.glob("*.tar")):
            node.load(archive)
        tool("wait", "--for=create", f"node/{node.name}", "--timeout=60s")
        tool("label", "node", node.name, "node-role.kubernetes.io/edge=")
        tool("wait", "--for=condition=Ready", f"node/{node.name}", "--timeout=60s")
        yield RealCluster(server=server, edge=node.name, node=node)
        # The kubelet itself takes its Pods down best: their networks, their volumes, their cgroups.
        tool.run("delete", "pods", "--all-namespaces", "--all", "--grace-period=1", "--timeout=20s")
    finally:
        node.stop()


def _of_kubeconfig(path: Path) -> ApiServer:
    config = yaml.safe_load(path.read_text())
    context = next(one["context"] for one in config["contexts"] if one["name"] == config["current-context"])
    cluster = next(one["cluster"] for one in config["clusters"] if one["name"] == context["cluster"])
    user = next(one["user"] for one in config["users"] if one["name"] == context["user"])
    return ApiServer(kubeconfig=path, url=cluster["server"], token=user.get("token", ""), kubectl=_kubectl_of(path))


def _kubectl_of(path: Path) -> tuple[str, ...]:
    installed = shutil.which("kubectl")
    if installed:
        return (installed, f"--kubeconfig={path}")
    program = building.binary()
    if program is None:
        pytest.skip("no kubectl: install it (https://kubernetes.io/docs/tasks/tools), or Go 1.24 or later")
    return (str(program), "kubectl", f"--kubeconfig={path}")


def _apply_crds(server: ApiServer) -> None:
    tool = Kubectl(server.kubectl, namespace="default")
    tool("apply", "--server-side", "--force-conflicts", "-f", str(data.path("crds")))
    tool("wait", "--for=condition=Established", "--timeout=30s", "-f", str(data.path("crds")))
