# SPDX-License-Identifier: Apache-2.0
"""What `bench.scale` and `bench.api` run on: a cluster, a broker, the GlobalManager, Pods that only claim to run."""

import queue
import string
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.cluster import building
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kubectl import Kubectl
from tests.mosquitto import executable, free_port

from bench.node import cpu_s, rss_mib
from nereid_cloud import data
from nereid_cloud.cluster.kinds import JOINT_INFERENCE_SERVICE, LEASE, NODE, POD, ref_of
from nereid_cloud.cluster.kubernetes import KubernetesCluster
from nereid_cloud.cluster.listwatch import ListWatch
from nereid_cloud.cluster.local import DATABASE, LocalCluster
from nereid_cloud.cluster.port import Cluster, Object, Ref, WatchEvent
from nereid_cloud.gm.names import SERVICE_LABEL
from nereid_shared.errors import NereidError, NotFound

CLOUD: Final = "cloud"
FLEET_LABEL: Final = "nereid.io/bench"
JIS: Final = Ref(kind=JOINT_INFERENCE_SERVICE, name="bench", namespace="default")
SPEAKS: Final = "speaking to the nodes"
_STOP_S: Final = 30.0
_KUBELETS: Final = 4


class Process:
    """One process, with its log in a file, ended with the context."""

    def __init__(self, log: Path, arguments: list[str]) -> None:
        self._log = log
        with log.open("wb") as out:
            self._process = subprocess.Popen(arguments, stdout=out, stderr=out, stdin=subprocess.DEVNULL)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def cpu_s(self) -> float:
        """Return the CPU time used so far."""
        return cpu_s(self.pid)

    def rss_mib(self) -> float:
        """Return the resident memory."""
        return rss_mib(self.pid)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it in order, or after a time by force."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def log(self) -> str:
        """Return what it wrote."""
        return self._log.read_text(errors="replace")


class Broker:
    """Mosquitto under the project's own configuration of a cloud broker, without TLS and without a store."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self._folder, self._config = folder, folder / "broker.conf"
        text = (data.path("mosquitto") / "cloud-dev.conf").read_text()
        self._config.write_text(string.Template(text).safe_substitute(port=self.port))
        self.process = self._start()

    def _start(self) -> Process:
        program = executable()
        assert program is not None, "mosquitto is not installed: apt-get install mosquitto"
        return Process(self._folder / "broker.log", [program, "-c", str(self._config)])

    def restart_empty(self) -> None:
        """Kill it and start it again: nothing is kept."""
        self.process.kill()
        self.process = self._start()


class World:
    """A cluster with a GlobalManager.

    Attributes:
        cluster: for the measurement's own reads and writes.
        server: pids of the API server and of its store; empty with a LocalCluster.
        written: objects that the measurement itself has written.
    """

    def __init__(self, folder: Path, cluster: Cluster, gm_arguments: list[str], server: Mapping[str, int]) -> None:
        self.cluster, self.server, self.written = cluster, server, 0
        self.folder = folder
        self.broker = Broker(folder)
        self._gm_arguments = gm_arguments
        self.gm = self._start_gm()

    def _start_gm(self) -> Process:
        return Process(
            self.folder / "gm.log",
            [sys.executable, "-m", "nereid_cloud.gm", *self._gm_arguments, "--broker", self.broker.url,
             "--identity", "bench", "--metrics-interval", "10s", "--lease-seconds", "15"],
        )  # fmt: skip

    def restart_gm(self) -> float:
        """Stop the GlobalManager, start another, and return the seconds until that one speaks to the nodes."""
        self.gm.stop()
        began = time.perf_counter()
        self.gm = self._start_gm()
        wait_for(lambda: SPEAKS in self.gm.log(), timeout_s=_STOP_S, why="the GlobalManager")
        return time.perf_counter() - began

    def create(self, obj: Object) -> None:
        """Create an object."""
        self.cluster.create(obj)
        self.written += 1

    def set_status(self, ref: Ref, status: Mapping[str, Any]) -> None:
        """Write an object's status."""
        self.cluster.patch(ref, {"status": status}, subresource="status")
        self.written += 1

    def revision(self) -> int:
        """Return how often anything in the cluster was written, events and Leases included."""
        return int(self.cluster.list(LEASE).resource_version)

    def make_nodes(self, names: list[str]) -> None:
        """Create Nodes that are Ready, and stay so."""
        with ThreadPoolExecutor(_KUBELETS) as pool:
            list(pool.map(self._make_node, names))

    def _make_node(self, name: str) -> None:
        labels = {"kubernetes.io/hostname": name} | ({FLEET_LABEL: "yes"} if name != CLOUD else {})
        self.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}})
        self.set_status(Ref(kind=NODE, name=name), {"conditions": [{"type": "Ready", "status": "True"}]})

    def service(self) -> Object | None:
        """Return the service, None where there is none."""
        try:
            return self.cluster.get(JIS)
        except NotFound:
            return None


@contextmanager
def local_world(folder: Path) -> Iterator[World]:
    """A LocalCluster."""
    cluster = LocalCluster(folder / DATABASE)
    with _closing(World(folder, cluster, ["--state", str(folder)], {})) as world:
        yield world


@contextmanager
def api_world(folder: Path) -> Iterator[World]:
    """A real API server with etcd.

    Raises:
        RuntimeError: it cannot be built or started here.
    """
    program = building.binary()
    assert program is not None, building.MISSING
    with ExitStack() as stack:
        plane = _Plane(program, folder)
        stack.callback(plane.stop)
        server = plane.start()
        tool = Kubectl(server.kubectl, namespace="default")
        tool("apply", "--server-side", "-f", str(data.path("crds")))
        tool("wait", "--for=condition=Established", "--timeout=30s", "-f", str(data.path("crds")))
        tool("wait", "--for=create", "serviceaccount/default", "--timeout=30s")
        cluster = KubernetesCluster(kubeconfig=server.kubeconfig)
        arguments = ["--kubeconfig", str(server.kubeconfig)]
        yield stack.enter_context(_closing(World(folder, cluster, arguments, plane.pids())))


def lacks_api_server() -> bool:
    """Whether there is none here, having said what to install."""
    if building.binary() is None:
        print(f"not measured: {building.MISSING}", file=sys.stderr)
        return True
    return False


class _Plane(ControlPlane):
    """Without the controllers that call Nodes without a kubelet lost, and that annotate each Node of a large fleet."""

    _arguments: Final = {"controllers": ["--controllers=*,-node-lifecycle-controller,-ttl-controller"]}

    def _run(self, part: str, *arguments: str) -> None:
        super()._run(part, *arguments, *self._arguments.get(part, []))

    def pids(self) -> dict[str, int]:
        """Return the processes by name."""
        return {name: process.pid for name, process in self._processes if name in ("etcd", "apiserver")}


@contextmanager
def _closing(world: World) -> Iterator[World]:
    try:
        yield world
    finally:
        world.gm.stop()
        world.broker.process.kill()
        world.cluster.close()


class Kubelets:
    """Says of each edge Pod that it runs, and lets deleted ones go; ``with`` bounds its threads."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._stop = threading.Event()
        self._pods: queue.SimpleQueue[Object | None] = queue.SimpleQueue()
        self._seen: set[tuple[str, bool]] = set()
        self.running = 0
        follow = ListWatch(
            world.cluster, POD, on_list=self._take_all, on_event=self._take, stop=self._stop, labels=SERVICE_LABEL
        )
        self._threads = [threading.Thread(target=follow.run, name="pods", daemon=True)]
        self._threads += [threading.Thread(target=self._work, name="kubelet", daemon=True) for _ in range(_KUBELETS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for _ in range(_KUBELETS):
            self._pods.put(None)
        for thread in self._threads[1:]:
            thread.join(_STOP_S)

    def _take_all(self, pods: list[Object]) -> None:
        for pod in pods:
            self._take(WatchEvent(type="ADDED", object=pod))

    def _take(self, event: WatchEvent) -> None:
        metadata = event.object["metadata"]
        key = metadata["uid"], "deletionTimestamp" in metadata
        if event.type != "DELETED" and key not in self._seen and event.object["spec"].get("nodeName"):
            self._seen.add(key)
            self._pods.put(event.object)

    def _work(self) -> None:
        while (pod := self._pods.get()) is not None:
            try:
                if "deletionTimestamp" in pod["metadata"]:
                    self._world.cluster.delete(ref_of(pod), grace_s=0)
                    self._world.written += 1
                else:
                    conditions = [{"type": "Ready", "status": "True"}]
                    self._world.set_status(ref_of(pod), {"phase": "Running", "conditions": conditions})
                    self.running += 1
            except NereidError as error:
                print(f"pod {pod['metadata']['name']}: {error}", file=sys.stderr)


def model(name: str) -> Object:
    """Return a Model of which nobody reads the file."""
    return {
        "apiVersion": "edgeai.io/v1alpha1", "kind": "Model", "metadata": {"name": name, "namespace": "default"},
        "spec": {"modelUrl": f"/var/lib/nereid/models/{name}/{name}.tflite", "format": "tflite"},
    }  # fmt: skip


def service() -> Object:
    """Return a service on all nodes of the fleet."""
    worker_spec = {
        "scriptDir": "", "scriptBootFile": "builtin:classify", "frameworkType": "tflite", "frameworkVersion": "2",
        "parameters": [],
    }  # fmt: skip
    return {
        "apiVersion": "neptune.io/v1alpha1", "kind": "JointInferenceService",
        "metadata": {"name": JIS.name, "namespace": JIS.namespace},
        "spec": {
            "edgeWorker": {
                "name": "little", "model": {"name": "little"}, "nodeSelector": {FLEET_LABEL: "yes"}, "deadline": "1s",
                "hardExampleAlgorithm": {"name": "Margin", "parameters": [{"key": "threshold", "value": "0.15"}]},
                "workerSpec": worker_spec,
            },
            "cloudWorker": {"name": "big", "model": {"name": "big"}, "nodeName": CLOUD, "workerSpec": worker_spec},
        },
    }  # fmt: skip


def wait_for(what: Callable[[], object], *, timeout_s: float, why: str) -> None:
    """Return once something is so.

    Raises:
        RuntimeError: it took too long.
    """
    pause, deadline = threading.Event(), time.monotonic() + timeout_s
    while not what():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{why}: not within {timeout_s:g} s")
        pause.wait(0.05)
