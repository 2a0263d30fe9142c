# SPDX-License-Identifier: Apache-2.0
"""The fixture `api_server`: a real Kubernetes API server with Nereid's CRDs, or a skip that says what to install."""

import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest
import yaml
from tests.cluster import building, k3s
from tests.cluster.control_plane import ApiServer, ControlPlane
from tests.cluster.k3s import K3s
from tests.cluster.kubectl import Kubectl
from tests.cluster.node import ADDRESS, SERVICES, Node, folder, missing

from nereid_cloud import data

VARIABLE = "NEREID_TEST_KUBECONFIG"
NODE_VARIABLE = "NEREID_TEST_EDGE_NODE"
REQUIRED_VARIABLE = "NEREID_REQUIRE"
IMAGES = Path(__file__).parents[2] / "dist" / "images"

LEVELS = frozenset({"cluster", "node"})
_WANTING = frozenset({"api_server", "own_server", "real_cluster"})


def pytest_collection_finish(session: pytest.Session) -> None:
    """Pull or build before the first test: within a test that would fall to its time-out."""
    wanted = any(_WANTING & set(_fixtures(item)) for item in session.items)
    if wanted and not session.config.option.collectonly and VARIABLE not in os.environ:
        capture = session.config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture else nullcontext():
            if k3s.problem():
                building.binary()
                building.pause()


def _fixtures(item: pytest.Item) -> list[str]:
    return getattr(item, "fixturenames", [])


def go_without(level: str, reason: str) -> NoReturn:
    """Skip a test whose level, `cluster` or `node`, cannot be had; fail it where `NEREID_REQUIRE` lists that level."""
    required = {one.strip() for one in os.environ.get(REQUIRED_VARIABLE, "").split(",")} - {""}
    if unknown := sorted(required - LEVELS):
        pytest.fail(f"{REQUIRED_VARIABLE}: there is no level {unknown[0]!r}; there are cluster and node", pytrace=False)
    if level in required:
        pytest.fail(f"{REQUIRED_VARIABLE} asks for {level!r}: {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A real API server with controllers, without nodes: that of `NEREID_TEST_KUBECONFIG`, else one of our own."""
    given = os.environ.get(VARIABLE)
    if given:
        yield _with_crds(_of_kubeconfig(Path(given)))
        return
    with ExitStack() as stack:
        started = _in_docker(stack, tmp_path_factory.mktemp("k3s"), with_node=False)
        server = started[1] if started else _from_source(stack, tmp_path_factory.mktemp("control-plane"))
        yield _with_crds(server)


def _in_docker(stack: ExitStack, place: Path, *, with_node: bool) -> tuple[K3s, ApiServer] | None:
    """Start K3s in a container that ends with the stack; None where that cannot be."""
    tool = _kubectl_program()
    if k3s.problem() or tool is None:
        return None
    container = K3s(place, kubectl=tool, with_node=with_node)
    stack.callback(container.stop)
    try:
        return container, container.start()
    except RuntimeError as error:
        # Docker is there and K3s does not run in it, rootless for instance: Go may do.
        sys.stderr.write(f"{error}\n")
        return None


def _from_source(stack: ExitStack, place: Path, **options: str) -> ApiServer:
    program = building.binary()
    if program is None:
        go_without("cluster", f"{building.MISSING}; {k3s.problem()}")
    control_plane = ControlPlane(program, place, **options)
    stack.callback(control_plane.stop)
    return control_plane.start()


@pytest.fixture
def own_server(api_server: ApiServer) -> ApiServer:
    """The same, where it was made for the tests: Nodes can be simulated in it, and definitions removed."""
    if not api_server.is_ours:
        pytest.skip(f"this would change Nodes or definitions of a user's cluster: unset {VARIABLE}")
    return api_server


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
def real_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster]:
    """A cluster with a real node: that of `NEREID_TEST_KUBECONFIG` and `NEREID_TEST_EDGE_NODE`, else our own.

    Our own has the images of ``dist/images`` (made by ``make images``); a user's has to have them beforehand.
    """
    given, edge = os.environ.get(VARIABLE), os.environ.get(NODE_VARIABLE)
    if given and edge:
        yield RealCluster(server=_with_crds(_of_kubeconfig(Path(given))), edge=edge)
        return
    with ExitStack() as stack:
        started = _in_docker(stack, tmp_path_factory.mktemp("k3s-node"), with_node=True)
        if started:
            container, server = started
            _prepare(Kubectl(_with_crds(server).kubectl, namespace="default"), k3s.NODE, container.load)
            yield RealCluster(server=server, edge=k3s.NODE)
            return
        problem = missing()
        if problem:
            go_without("node", f"{problem}; or Docker: {k3s.problem()}")
        yield stack.enter_context(own_cluster())


@contextmanager
def own_cluster() -> Iterator[RealCluster]:
    """A cluster with a node of this machine, which has what `missing` asks for."""
    with ExitStack() as stack:
        place = stack.enter_context(folder())
        server = _with_crds(_from_source(stack, place, address=ADDRESS, services=SERVICES))
        yield from _with_node(server)


def _prepare(tool: Kubectl, node: str, load: Callable[[Path], None]) -> None:
    """Give a node the project's images and the role of an edge, and wait until it is Ready."""
    for archive in sorted(IMAGES.glob("*.tar")):
        load(archive)
    tool("wait", "--for=create", f"node/{node}", "--timeout=60s")
    tool("label", "node", node, "node-role.kubernetes.io/edge=")
    tool("wait", "--for=condition=Ready", f"node/{node}", "--timeout=60s")


def _with_node(server: ApiServer) -> Iterator[RealCluster]:
    program, pause = building.binary(), building.pause()
    assert program is not None
    assert pause is not None
    tool = Kubectl(server.kubectl, namespace="default")
    node = Node(program, pause, server, name="edge-0")
    try:
        node.start()
        _prepare(tool, node.name, node.load)
        yield RealCluster(server=server, edge=node.name, node=node)
        # The kubelet itself takes its Pods down best: their networks, their volumes, their cgroups.
        tool.run("delete", "deployments,statefulsets,daemonsets,jobs", "--all-namespaces", "--all", "--timeout=20s")
        tool.run("delete", "pods", "--all-namespaces", "--all", "--grace-period=1", "--timeout=20s")
    finally:
        node.stop()


def _of_kubeconfig(path: Path) -> ApiServer:
    config = yaml.safe_load(path.read_text())
    context = next(one["context"] for one in config["contexts"] if one["name"] == config["current-context"])
    cluster = next(one["cluster"] for one in config["clusters"] if one["name"] == context["cluster"])
    user = next(one["user"] for one in config["users"] if one["name"] == context["user"])
    return ApiServer(
        kubeconfig=path, url=cluster["server"], token=user.get("token", ""), kubectl=_kubectl_of(path), is_ours=False
    )


def _kubectl_of(path: Path) -> tuple[str, ...]:
    program = _kubectl_program()
    if program is None:
        go_without("cluster", "no kubectl: install it (https://kubernetes.io/docs/tasks/tools), or Go 1.24 or later")
    return (*program, f"--kubeconfig={path}")


def _kubectl_program() -> tuple[str, ...] | None:
    installed = shutil.which("kubectl")
    if installed:
        return (installed,)
    program = building.binary()
    return (str(program), "kubectl") if program else None


def _with_crds(server: ApiServer) -> ApiServer:
    tool = Kubectl(server.kubectl, namespace="default")
    tool("apply", "--server-side", "--force-conflicts", "-f", str(data.path("crds")))
    tool("wait", "--for=condition=Established", "--timeout=30s", "-f", str(data.path("crds")))
    return server
