# SPDX-License-Identifier: Apache-2.0
"""The contract suite's clusters: each test runs on the LocalCluster, on a real API server, and on one that fails."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nereid_cloud.cluster import kinds
from nereid_cloud.cluster.local import LocalCluster
from nereid_cloud.cluster.port import Cluster, Kind, Object, Ref, WatchEvent
from nereid_shared.errors import NotFound

Make = Callable[..., Object]
SERVICE_ACCOUNT = Kind(group="", version="v1", kind="ServiceAccount", plural="serviceaccounts")
TIMEOUT_S = 30.0


def eventually(find: Callable[[], Any]) -> Any:
    """Return what `find` returns as soon as it is true; controllers of a real cluster take their time."""
    deadline = time.monotonic() + TIMEOUT_S
    while not (found := find()):
        assert time.monotonic() < deadline, f"never came: {find}"
        time.sleep(0.01)
    return found


def absent(cluster: Cluster, ref: Ref) -> bool:
    try:
        cluster.get(ref)
    except NotFound:
        return True
    return False


@pytest.fixture(
    params=[
        "local",
        pytest.param("kubernetes", marks=pytest.mark.cluster),
        pytest.param("faulty", marks=[pytest.mark.cluster, pytest.mark.slow]),
    ]
)
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    if request.param == "local":
        yield from _closed(LocalCluster(tmp_path / "cluster.db"))
        return
    # The client takes a second to import, which the quick tests do without.
    from tests.cluster.faults import FaultProxy  # noqa: PLC0415

    from nereid_cloud.cluster.kubernetes import KubernetesCluster  # noqa: PLC0415

    kubeconfig: Path = request.getfixturevalue("api_server").kubeconfig
    if request.param == "kubernetes":
        yield from _closed(KubernetesCluster(kubeconfig=kubeconfig))
        return
    with FaultProxy(kubeconfig) as proxy:
        # Slow, and every third request is refused for now: an answer comes all the same. Watches are not tried again
        # by the port but by `ListWatch`, which has its own tests.
        proxy.delay_s = 0.002
        proxy.every = lambda number, request: 429 if number % 3 == 0 and not request.is_watch else 0
        yield from _closed(KubernetesCluster(kubeconfig=proxy.kubeconfig(tmp_path)))


def _closed(cluster: Cluster) -> Iterator[Cluster]:
    yield cluster
    cluster.close()


@pytest.fixture
def is_local(cluster: Cluster) -> bool:
    return isinstance(cluster, LocalCluster)


@pytest.fixture
def namespace(cluster: Cluster, is_local: bool) -> Iterator[str]:
    """A namespace of the test's own, in which Pods can be made."""
    made = cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "contract-"}})
    name: str = made["metadata"]["name"]
    if not is_local:
        account = Ref(kind=SERVICE_ACCOUNT, name="default", namespace=name)
        eventually(lambda: not absent(cluster, account))
    yield name
    cluster.delete(Ref(kind=kinds.NAMESPACE, name=name))


@pytest.fixture
def config_map(cluster: Cluster, namespace: str) -> Make:
    """Creates a ConfigMap: the plainest object there is."""

    def make(name: str = "one", *, data: dict[str, str] | None = None, **metadata: Any) -> Object:
        return cluster.create(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": name, "namespace": namespace, **metadata},
                "data": data or {},
            }
        )

    return make


@pytest.fixture
def dataset(namespace: str) -> Make:
    """Makes the manifest of a valid Dataset."""

    def make(name: str = "digits", **spec: Any) -> Object:
        return {
            "apiVersion": "edgeai.io/v1alpha1",
            "kind": "Dataset",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"dataUrl": "/data/digits", "format": "csv", "nodeName": "edge-0", **spec},
        }

    return make


@pytest.fixture
def service(namespace: str) -> Make:
    """Makes the manifest of a valid JointInferenceService."""

    def make(name: str = "digits") -> Object:
        script = {
            "scriptDir": "",
            "scriptBootFile": "builtin:classify",
            "frameworkType": "tflite",
            "frameworkVersion": "2.1",
        }
        return {
            "apiVersion": "neptune.io/v1alpha1",
            "kind": "JointInferenceService",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "edgeWorker": {
                    "name": "edge",
                    "model": {"name": "little"},
                    "nodeName": "edge-0",
                    "hardExampleAlgorithm": {"name": "Margin"},
                    "workerSpec": dict(script),
                },
                "cloudWorker": {
                    "name": "cloud",
                    "model": {"name": "big"},
                    "nodeName": "cloud",
                    "workerSpec": dict(script),
                },
            },
        }

    return make


@pytest.fixture
def pod(namespace: str) -> Make:
    """Makes the manifest of a Pod."""

    def make(name: str = "worker", *, labels: dict[str, str] | None = None, **spec: Any) -> Object:
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": labels or {}},
            "spec": {"containers": [{"name": "main", "image": "localhost/none:1"}], **spec},
        }

    return make


@pytest.fixture
def node(cluster: Cluster) -> Iterator[str]:
    """A Node that nothing runs on."""
    made = cluster.create({"apiVersion": "v1", "kind": "Node", "metadata": {"generateName": "contract-node-"}})
    name: str = made["metadata"]["name"]
    yield name
    cluster.delete(Ref(kind=kinds.NODE, name=name))


class Watching:
    """A watch in a thread, and what it has yielded."""

    def __init__(self, cluster: Cluster, kind: Kind, **options: Any) -> None:
        self.events: list[WatchEvent] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(cluster, kind), kwargs=options)
        self._thread.start()

    def _run(self, cluster: Cluster, kind: Kind, **options: Any) -> None:
        # An API server may end any watch with Gone; the tests are short. An hour: that it ends wakes nobody here.
        for event in cluster.watch(kind, stop=self._stop, timeout_s=3600, **options):
            if event.type != "BOOKMARK":
                self.events.append(event)

    def seen(self) -> list[tuple[str, str]]:
        return [(event.type, event.object["metadata"]["name"]) for event in self.events]

    def expect(self, *seen: tuple[str, str]) -> list[WatchEvent]:
        deadline = time.monotonic() + TIMEOUT_S
        while len(self.events) < len(seen):
            assert time.monotonic() < deadline, f"saw only {self.seen()}"
            time.sleep(0.01)
        assert self.seen() == list(seen)
        return self.events

    def close(self) -> None:
        self._stop.set()
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()


@pytest.fixture
def watching(cluster: Cluster) -> Iterator[Callable[..., Watching]]:
    """Starts watches that end with the test."""
    started: list[Watching] = []

    def start(kind: Kind, **options: Any) -> Watching:
        started.append(Watching(cluster, kind, **options))
        return started[-1]

    yield start
    for watch in started:
        watch.close()
