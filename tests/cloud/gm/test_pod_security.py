# SPDX-License-Identifier: Apache-2.0
"""What Pod security of a real API server refuses, as a service's reason."""

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest
from tests.cloud.gm.peers import Eyes, add_node, model, service
from tests.cluster.control_plane import ApiServer
from tests.mosquitto import Mosquitto

from nereid_cloud.cluster.kinds import JOINT_INFERENCE_SERVICE, NAMESPACE, NODE
from nereid_cloud.cluster.port import Cluster, Object, Ref
from nereid_cloud.cluster.readiness import condition_of
from nereid_cloud.gm.manager import run
from nereid_cloud.gm.settings import Settings
from nereid_shared.errors import NotFound

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture
def real(api_server: ApiServer) -> Iterator[Cluster]:
    from nereid_cloud.cluster.kubernetes import KubernetesCluster  # noqa: PLC0415 - takes a second to import

    with closing(KubernetesCluster(kubeconfig=api_server.kubeconfig)) as cluster:
        for name in ("cloud", "edge-0"):
            with suppress(NotFound):
                cluster.delete(Ref(kind=NODE, name=name))
            add_node(cluster, name)
        yield cluster
        for name in ("cloud", "edge-0"):
            cluster.delete(Ref(kind=NODE, name=name))


async def test_a_service_says_that_pod_security_refuses_its_pods(
    real: Cluster, api_server: ApiServer, broker: Mosquitto
) -> None:
    namespace = f"strict-{secrets.token_hex(4)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    real.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}})
    settings = Settings.from_args(
        ["--kubeconfig", str(api_server.kubeconfig), "--broker", broker.url, "--lease-namespace", namespace]
    )
    stop = asyncio.Event()
    leading = asyncio.create_task(run(settings, real, stop=stop))
    async with Eyes(real) as eyes:
        for obj in (model("little"), model("big"), service()):
            obj["metadata"]["namespace"] = namespace
            await asyncio.to_thread(real.create, obj)

        def problems() -> Object | None:
            """The condition, once both sides were refused."""
            ready = condition_of(eyes.get(JOINT_INFERENCE_SERVICE, "digits", namespace), "Ready")
            said = ready.get("message", "")
            return ready if "node edge-0" in said and "hostPath" in said and "-cloud-" in said else None

        ready = await eyes.until(problems)
        assert (ready["type"], ready["status"], ready["reason"]) == ("Ready", "False", "PodForbidden")
        await asyncio.to_thread(real.delete, Ref(kind=NAMESPACE, name=namespace))
        await eyes.until(lambda: eyes.get(JOINT_INFERENCE_SERVICE, "digits", namespace) is None)
        stop.set()
        await leading
