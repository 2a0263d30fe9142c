# SPDX-License-Identifier: Apache-2.0
"""The fixture `api_server`: a real Kubernetes API server with Nereid's CRDs, or a skip that says what to install."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import yaml
from tests.cluster import building
from tests.cluster.control_plane import ApiServer, ControlPlane
from tests.cluster.kubectl import Kubectl

from nereid_cloud import data

VARIABLE = "NEREID_TEST_KUBECONFIG"


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build before the first test: within a test the build would fall to its time-out."""
    wanted = any(item.get_closest_marker("cluster") or "api_server" in _fixtures(item) for item in session.items)
    if wanted and not session.config.option.collectonly and VARIABLE not in os.environ:
        capture = session.config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture else nullcontext():
            building.binary()


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
