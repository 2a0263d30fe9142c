# SPDX-License-Identifier: Apache-2.0
"""Events on a real API server: counted, held back where an object says too much, and written on a second try."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.control_plane import ApiServer
from tests.cluster.faults import FaultProxy
from tests.cluster.kubectl import Kubectl
from tests.shared.resources.cases import MODEL, changed

from nereid_cloud.cluster.kubernetes import KubernetesCluster
from nereid_cloud.gm.events import BURST, REFILL_S, Recorder

pytestmark = pytest.mark.cluster

Object = dict[str, Any]


@pytest.fixture
def proxy(api_server: ApiServer) -> Iterator[FaultProxy]:
    with FaultProxy(api_server.kubeconfig) as between:
        yield between


@pytest.fixture
def cluster(proxy: FaultProxy, tmp_path: Path) -> Iterator[KubernetesCluster]:
    with closing(KubernetesCluster(kubeconfig=proxy.kubeconfig(tmp_path))) as through:
        yield through


@pytest.fixture
def model(cluster: KubernetesCluster, kubectl: Kubectl) -> Object:
    return cluster.create(changed(MODEL, {"metadata.namespace": kubectl.namespace}))


def events(kubectl: Kubectl) -> dict[str, int]:
    return {event["message"]: event["count"] for event in kubectl.json("events")["items"]}


async def test_what_is_said_again_is_counted(cluster: KubernetesCluster, kubectl: Kubectl, model: Object) -> None:
    recorder = Recorder(cluster)
    for message in ("one", "two", "one", "one"):
        await recorder.record(model, "Normal", "Said", message)
    assert events(kubectl) == {"one": 3, "two": 1}


async def test_an_object_that_says_too_much_is_held_back(
    cluster: KubernetesCluster, kubectl: Kubectl, model: Object
) -> None:
    now = 0.0
    recorder = Recorder(cluster, clock=lambda: now)
    for number in range(BURST + 5):
        await recorder.record(model, "Normal", "Said", f"number {number}")
    assert len(events(kubectl)) == BURST
    now = REFILL_S * 1.5
    for message in ("later", "too soon"):
        await recorder.record(model, "Normal", "Said", message)
    assert events(kubectl).keys() - {f"number {number}" for number in range(BURST)} == {"later"}


async def test_a_busy_server_is_asked_again(
    cluster: KubernetesCluster, kubectl: Kubectl, model: Object, proxy: FaultProxy
) -> None:
    proxy.refuse(500, "InternalError", when=lambda request: request.method == "POST", times=2)
    await Recorder(cluster).record(model, "Warning", "Said", "at last")
    assert events(kubectl) == {"at last": 1}
