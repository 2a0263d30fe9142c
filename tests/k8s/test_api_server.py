# SPDX-License-Identifier: Apache-2.0
"""The overlays on a real API server: every object is valid, and the GlobalManager may do what it does, no more."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import pytest
import yaml
from tests.cloud.gm.inference_models import cloud_model, inference_model
from tests.cloud.gm.peers import Eyes, Kubelet, Lc, add_node, dataset, model, service, service_ref
from tests.cloud.gm.test_manager import is_running
from tests.cluster.control_plane import ApiServer
from tests.k8s.conftest import K8S, OVERLAYS, Object, objects, rendered, with_component
from tests.mosquitto import Mosquitto

from nereid_cloud.cluster.kinds import (
    DATASET,
    INFERENCE_MODEL,
    JOINT_INFERENCE_SERVICE,
    LEASE,
    MODEL,
    NODE,
    POD,
    SERVICE,
    ref_of,
)
from nereid_cloud.cluster.port import Cluster, Kind, Ref
from nereid_cloud.gm.manager import run
from nereid_cloud.gm.settings import Settings
from nereid_shared.errors import Forbidden, NotFound

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

ACCOUNT = "system:serviceaccount:nereid:nereid-gm"
ELSEWHERE = "elsewhere"
Grant = tuple[str, str, str]  # verb, resource with its group, namespace or "*"


def kubectl(server: ApiServer, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    argv = [*server.kubectl, *arguments]
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def prepared(api_server: ApiServer) -> ApiServer:
    """An API server with Nereid's namespaces, without which nothing in them can be tried."""
    kubectl(api_server, "apply", "--server-side", "-f", str(K8S / "base" / "namespaces.yaml"))
    elsewhere = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ELSEWHERE}}
    kubectl(api_server, "apply", "--server-side", "-f", "-", stdin=json.dumps(elsewhere))
    return api_server


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_api_server_takes_every_object_without_a_warning(overlay: str, prepared: ApiServer) -> None:
    done = kubectl(
        prepared, "apply", "--server-side", "--dry-run=server", "--force-conflicts", "-f", "-",
        stdin=rendered(K8S / "overlays" / overlay),
    )  # fmt: skip
    assert done.stdout.count("(server dry run)") == len(objects(overlay))
    assert "Warning" not in done.stderr


@pytest.fixture(params=["kubeedge", "namespaced"])
def rights(request: pytest.FixtureRequest, tmp_path: Path) -> list[Object]:
    """The account that an overlay makes, and what it gives it."""
    found = objects("kubeedge") if request.param == "kubeedge" else with_component(tmp_path, request.param)
    return [
        obj
        for obj in found
        if obj["kind"] == "ServiceAccount" or obj["apiVersion"].startswith("rbac.authorization.k8s.io")
    ]


@pytest.fixture
def account(prepared: ApiServer, rights: list[Object], tmp_path: Path) -> Iterator[Path]:
    """A kubeconfig of the GlobalManager's service account, with those rights and none that are left of others."""
    text = yaml.safe_dump_all(rights)
    kubectl(prepared, "apply", "-f", "-", stdin=text)
    token = kubectl(prepared, "create", "token", "nereid-gm", "--namespace=nereid").stdout.strip()
    config = yaml.safe_load(prepared.kubeconfig.read_text())
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    yield file
    kubectl(prepared, "delete", "-f", "-", stdin=text)


@pytest.fixture
def real(prepared: ApiServer) -> Iterator[Cluster]:
    from nereid_cloud.cluster.kubernetes import KubernetesCluster  # noqa: PLC0415 - takes a second to import

    with closing(KubernetesCluster(kubeconfig=prepared.kubeconfig)) as cluster:
        for name in ("cloud", "edge-0"):
            with suppress(NotFound):
                cluster.delete(Ref(kind=NODE, name=name))
            add_node(cluster, name)
        yield cluster
        for name in ("cloud", "edge-0"):
            cluster.delete(Ref(kind=NODE, name=name))


async def live(real: Cluster, broker: Mosquitto, kubeconfig: Path, *, confined: bool) -> None:
    """Let a GlobalManager do all it does: serve, count, say Events, delete, refuse elsewhere, give up its Lease."""
    from nereid_cloud.cluster.kubernetes import KubernetesCluster  # noqa: PLC0415 - takes a second to import

    settings = Settings.from_args(
        ["--kubeconfig", str(kubeconfig), "--broker", broker.url, "--lease-namespace", "nereid",
         "--metrics-interval", "200ms", "--delete-timeout", "10s", "--namespace", "default",
         *(["--confined"] if confined else [])]
    )  # fmt: skip
    stop = asyncio.Event()
    with closing(KubernetesCluster(kubeconfig=kubeconfig)) as own:
        leading = asyncio.create_task(run(settings, own, stop=stop))
        async with (
            Eyes(real) as eyes,
            Kubelet(broker.url, real, deploys=False).running(),
            Lc(broker.url, "edge-0", eyes),
        ):
            served = inference_model("served"), {**cloud_model(), "metadata": {"name": "shown", "namespace": "default"}}
            for obj in (model("little"), model("big"), dataset("pictures", "edge-0", part="test"), service(), *served):
                await asyncio.to_thread(real.create, obj)
            for obj in (dataset("others", "edge-0"), service("others"), inference_model("others"), model("others")):
                obj["metadata"]["namespace"] = ELSEWHERE
                await asyncio.to_thread(real.create, obj)
            await eyes.until(lambda: is_running(eyes))
            await eyes.until(lambda: "Running" in eyes.reasons())
            await eyes.until(lambda: eyes.condition(INFERENCE_MODEL, "served", "Ready") == ("True", "Serving"))
            await eyes.until(lambda: eyes.get(SERVICE, "shown"))
            if not confined:
                for kind in (JOINT_INFERENCE_SERVICE, INFERENCE_MODEL):
                    await eyes.until(partial(_is_refused_elsewhere, eyes, kind))
                for kind in (DATASET, MODEL):
                    await eyes.until(partial(_has_status, eyes, kind))
            to_edge = {"spec": {"deployToLayer": "edge", "nodeName": "edge-0", "servingPort": 8502}}
            await asyncio.to_thread(real.patch, ref_of(served[1]), to_edge)
            await eyes.until(lambda: not eyes.get(SERVICE, "shown"))
            for ref in (service_ref(), Ref(kind=DATASET, name="pictures", namespace="default"), *map(ref_of, served)):
                await asyncio.to_thread(real.delete, ref)
            for name in ("served", "shown"):
                await eyes.until(partial(_is_gone, eyes, INFERENCE_MODEL, name, "default"))
            await eyes.until(lambda: not eyes.get(JOINT_INFERENCE_SERVICE, "digits"))
            await eyes.until(lambda: not eyes.get(DATASET, "pictures"))
            for kind in (INFERENCE_MODEL, MODEL):
                await asyncio.to_thread(real.delete, Ref(kind=kind, name="others", namespace=ELSEWHERE))
            for kind in (JOINT_INFERENCE_SERVICE, DATASET):
                # With the status, the finalizer shows whether anybody looked at it.
                assert bool(_finalizers(eyes, kind)) != confined
                await asyncio.to_thread(real.delete, Ref(kind=kind, name="others", namespace=ELSEWHERE))
                await eyes.until(partial(_is_gone, eyes, kind))
            for name in ("little", "big"):
                await asyncio.to_thread(real.delete, Ref(kind=MODEL, name=name, namespace="default"))
            stop.set()
            await leading


def _is_refused_elsewhere(eyes: Eyes, kind: Kind) -> bool:
    status = (eyes.get(kind, "others", ELSEWHERE) or {}).get("status") or {}
    return "NamespaceNotServed" in {condition["reason"] for condition in status.get("conditions") or ()}


def _has_status(eyes: Eyes, kind: Kind) -> bool:
    return bool((eyes.get(kind, "others", ELSEWHERE) or {}).get("status"))


def _is_gone(eyes: Eyes, kind: Kind, name: str = "others", namespace: str = ELSEWHERE) -> bool:
    return eyes.get(kind, name, namespace) is None


def _finalizers(eyes: Eyes, kind: Kind) -> list[str]:
    return list((eyes.get(kind, "others", ELSEWHERE) or {"metadata": {}})["metadata"].get("finalizers") or ())


async def test_the_globalmanager_needs_the_rights_that_it_has_and_no_others(
    real: Cluster, broker: Mosquitto, account: Path, rights: list[Object], prepared: ApiServer
) -> None:
    if prepared.audit is None:
        pytest.skip("a user's cluster: its audit log cannot be read from here")
    with suppress(NotFound):
        real.delete(Ref(kind=LEASE, name="nereid-gm", namespace="nereid"))
    seen = len(prepared.audit.read_text().splitlines())
    confined = "nereid-gm-resources" not in {obj["metadata"]["name"] for obj in rights}
    await live(real, broker, account, confined=confined)
    entries = [json.loads(line) for line in prepared.audit.read_text().splitlines()[seen:]]
    asked = [entry for entry in entries if entry["user"]["username"] == ACCOUNT]
    refused = {_grant_of(entry) for entry in asked if entry["responseStatus"]["code"] == 403}
    assert refused == set()
    used = {_grant_of(entry) for entry in asked}
    granted = _grants(rights)
    # What is granted for the whole cluster is needed beyond the namespaces that are served.
    beyond = {(verb, resource, "*") for verb, resource, namespace in used if namespace not in {"default", "nereid"}}
    never = {grant for grant in granted if grant not in used | beyond}
    # An Event was not said twice; and that an apply may create is asked for without an entry in the log.
    assert never <= {("patch", "/events", "default"), ("create", "apps/deployments", "default"),
                     ("create", "/services", "default")}  # fmt: skip


async def test_the_globalmanager_makes_pods_nowhere_else(account: Path, prepared: ApiServer) -> None:
    from nereid_cloud.cluster.kubernetes import KubernetesCluster  # noqa: PLC0415 - takes a second to import

    container = {"name": "c", "image": "i"}
    pod: Object = {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [container]}}
    with closing(KubernetesCluster(kubeconfig=account)) as own:
        for namespace in ("kube-system", "nereid"):
            with pytest.raises(Forbidden):
                await asyncio.to_thread(own.create, pod | {"metadata": {"name": "p", "namespace": namespace}})
        made = await asyncio.to_thread(own.create, pod | {"metadata": {"name": "p", "namespace": "default"}})
        assert made["kind"] == POD.kind
        await asyncio.to_thread(own.delete, ref_of(made), grace_s=0)
    assert prepared.url


def _grant_of(entry: Object) -> Grant:
    asked = entry["objectRef"]
    resource = "/".join(part for part in (asked["resource"], asked.get("subresource", "")) if part)
    return entry["verb"], f"{asked.get('apiGroup', '')}/{resource}", asked.get("namespace", "")


def _grants(found: list[Object]) -> set[Grant]:
    return {
        (verb, f"{group}/{resource}", role["metadata"].get("namespace", "*"))
        for role in found
        if role["kind"] in {"Role", "ClusterRole"}
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
