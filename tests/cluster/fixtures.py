# SPDX-License-Identifier: Apache-2.0
"""The fixture `api_server`: a real Kubernetes API server with Nereid's CRDs, or a skip that says what to install."""

import os
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path

import pytest
import yaml
from tests.cluster import building
from tests.cluster.control_plane import ApiServer, ControlPlane

from nereid_cloud.cluster.kinds import CUSTOM_RESOURCE_DEFINITION
from nereid_cloud.cluster.port import Cluster, Ref

VARIABLE = "NEREID_TEST_KUBECONFIG"

_ESTABLISHED_S = 20.0


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


def _of_kubeconfig(path: Path) -> ApiServer:
    config = yaml.safe_load(path.read_text())
    context = next(one["context"] for one in config["contexts"] if one["name"] == config["current-context"])
    cluster = next(one["cluster"] for one in config["clusters"] if one["name"] == context["cluster"])
    user = next(one["user"] for one in config["users"] if one["name"] == context["user"])
    return ApiServer(kubeconfig=path, url=cluster["server"], token=user.get("token", ""))


def _apply_crds(server: ApiServer) -> None:
    # The client takes a second to import, which tests without a cluster do without.
    from nereid_cloud import crds  # noqa: PLC0415
    from nereid_cloud.cluster.kubernetes import KubernetesCluster  # noqa: PLC0415

    with closing(KubernetesCluster(kubeconfig=server.kubeconfig)) as cluster:
        for crd in crds.load():
            cluster.apply(crd, manager="tests")
        for crd in crds.load():
            _await_established(cluster, Ref(kind=CUSTOM_RESOURCE_DEFINITION, name=crd["metadata"]["name"]))


def _await_established(cluster: Cluster, ref: Ref) -> None:
    deadline = time.monotonic() + _ESTABLISHED_S
    while not any(
        condition["type"] == "Established" and condition["status"] == "True"
        for condition in cluster.get(ref).get("status", {}).get("conditions") or ()
    ):
        assert time.monotonic() < deadline, f"{ref.name} was not established"
        time.sleep(0.05)
