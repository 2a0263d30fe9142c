# SPDX-License-Identifier: Apache-2.0
"""The GlobalManager on a real API server, whose own controllers make the cloud Pods and collect the garbage."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest
from tests.cloud.gm.peers import Eyes, Kubelet, Lc, add_node, dataset, model, service, service_ref
from tests.cloud.gm.test_manager import is_running
from tests.cluster.control_plane import ApiServer
from tests.mosquitto import Mosquitto

from nereid_cloud.cluster.kinds import DATASET, DEPLOYMENT, JOINT_INFERENCE_SERVICE, LEASE, MODEL, NODE, POD, ref_of
from nereid_cloud.cluster.port import Cluster, Kind, Object, Ref
from nereid_cloud.gm.manager import run
from nereid_cloud.gm.names import EPOCH_ANNOTATION
from nereid_cloud.gm.settings import Settings
from nereid_shared.errors import NotFound, Unavailable
from nereid_shared.messages import Ledger

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

LEASE_REF = Ref(kind=LEASE, name="nereid-gm", namespace="default")


def _datasets(cluster: Cluster) -> list[Object]:
    end = time.monotonic() + 30
    while True:
        try:
            return cluster.list(DATASET).items
        except Unavailable:  # a CRD that was just made: the server is initializing its storage
            assert time.monotonic() < end
            time.sleep(0.1)


@pytest.fixture
def real(own_server: ApiServer) -> Iterator[Cluster]:
    from nereid_cloud.cluster.kubernetes import KubernetesCluster  # noqa: PLC0415 - takes a second to import

    with closing(KubernetesCluster(kubeconfig=own_server.kubeconfig)) as cluster:
        for name in ("cloud", "edge-0"):
            with suppress(NotFound):  # another test's PodRunner may have left it on the shared server
                cluster.delete(Ref(kind=NODE, name=name))
            add_node(cluster, name)
        for left in _datasets(cluster):  # other tests share the server
            cluster.delete(ref_of(left))
        yield cluster
        for name in ("cloud", "edge-0"):
            cluster.delete(Ref(kind=NODE, name=name))


def ours(eyes: Eyes, kind: Kind) -> list[Object]:
    """The objects in this test's namespace: others share the server."""
    return [obj for obj in eyes.all(kind) if obj["metadata"].get("namespace") == "default"]


async def test_a_service_lives_and_dies_on_a_real_api_server(
    real: Cluster, own_server: ApiServer, broker: Mosquitto
) -> None:
    arguments = ["--kubeconfig", str(own_server.kubeconfig), "--broker", broker.url]
    settings = Settings.from_args([*arguments, "--metrics-interval", "200ms", "--delete-timeout", "10s"])
    stop = asyncio.Event()
    leading = asyncio.create_task(run(settings, real, stop=stop))
    async with (
        Eyes(real) as eyes,
        Kubelet(broker.url, real, deploys=False).running(),
        Lc(broker.url, "edge-0", eyes) as lc,
    ):
        for obj in (model("little"), model("big"), dataset("pictures", "edge-0", part="test"), service()):
            await asyncio.to_thread(real.create, obj)
        await eyes.until(lambda: is_running(eyes))
        await eyes.until(lambda: eyes.condition(DATASET, "pictures", "Ready") == ("True", "Counted"))
        lc.ledger = Ledger(seen=10, easy=7, hard=3, answered=3)
        await lc.say_status(samples=7)
        await eyes.until(lambda: eyes.metrics().get("seen") == "10")
        assert eyes.metrics()["uploadCloudRatio"] == "0.3000"
        await eyes.until(lambda: "Running" in eyes.reasons())
        await asyncio.to_thread(real.delete, service_ref())
        await eyes.until(lambda: eyes.get(JOINT_INFERENCE_SERVICE, "digits") is None)
        assert lc.names == {"pictures"}
        await eyes.until(lambda: not ours(eyes, POD) and not ours(eyes, DEPLOYMENT))
        await asyncio.to_thread(real.delete, Ref(kind=DATASET, name="pictures", namespace="default"))
        await eyes.until(lambda: not eyes.all(DATASET))
        for name in ("little", "big"):
            await asyncio.to_thread(real.delete, Ref(kind=MODEL, name=name, namespace="default"))
        stop.set()
        await leading
    lease = real.get(LEASE_REF)
    assert lease["spec"].get("holderIdentity", "") == ""
    assert int(lease["metadata"]["annotations"][EPOCH_ANNOTATION]) >= 1
