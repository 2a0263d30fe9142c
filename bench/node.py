# SPDX-License-Identifier: Apache-2.0
"""One real node for measurements: two brokers, a LocalController process, workers as processes, one service.

What the GlobalManager would publish stands in the cloud broker's retained topic; nothing else is made up.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psutil
from tests.mosquitto import Mosquitto

from bench.echo import BareClient
from nereid_shared import topics
from nereid_shared.digests import digest_of, task_hash
from nereid_shared.messages import Desired, Task, TaskModel, TaskRow

NODE: Final = "edge-0"
SERVICE: Final = "bench-5f0c2a10"
WORKER: Final = "bench-edge-0"
TIMEOUT_S: Final = 120.0
SCRIPTS: Final = Path(__file__).parent / "scripts"
_UID: Final = "5f0c2a10-0000-4000-8000-000000000001"


class NodeRig:
    """The brokers and the LocalController; use it as a context manager.

    Args:
        folder: where all files go.
        cloud_port: where the LocalController finds the cloud broker; by default where it is.
    """

    def __init__(self, folder: Path, *, cloud_port: int | None = None) -> None:
        self.folder = folder
        self.cloud, self.edge = Mosquitto(folder / "cloud"), Mosquitto(folder / "edge")
        self._cloud_url = f"mqtt://127.0.0.1:{cloud_port}" if cloud_port else self.cloud.url
        self._processes: list[subprocess.Popen[bytes]] = []
        self.lc_pid = self.edge_worker_pid = 0

    def __enter__(self) -> Self:
        try:
            self.cloud.start()
            self.edge.start()
            self.lc_pid = self.start(
                "lc",
                ["nereid_edge", "--node", NODE, "--state", str(self.folder / "lc-state"), "--cloud-broker",
                 self._cloud_url, "--edge-broker", self.edge.url, "--status-interval", "1s"],
            ).pid  # fmt: skip
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in reversed(self._processes):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.edge.kill()
        self.cloud.kill()

    def start(self, name: str, module: list[str], env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start ``python -m module…``; it ends with the rig."""
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *module], stdout=log, stderr=log, env={**os.environ, **(env or {})}
            )
        self._processes.append(process)
        return process

    def start_cloud_worker(self, task: Task) -> subprocess.Popen[bytes]:
        """Start a real cloud worker."""
        return self.start(
            "cloud-worker", ["nereid_worker"],
            {"NEREID_ROLE": "cloud", "NEREID_WORKER": "bench-cloud", "NEREID_SERVICE": SERVICE,
             "NEREID_BROKER": self.cloud.url, "NEREID_TASK": task.encode().decode()},
        )  # fmt: skip

    def start_edge_worker(self) -> subprocess.Popen[bytes]:
        """Start a real edge worker; its task comes by the desired state."""
        process = self.start(
            "edge-worker", ["nereid_worker"],
            {"NEREID_WORKER": WORKER, "NEREID_NODE": NODE, "NEREID_SERVICE": SERVICE, "NEREID_BROKER": self.edge.url,
             "NEREID_STATE": str(self.folder / "worker-state")},
        )  # fmt: skip
        self.edge_worker_pid = process.pid
        return process

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """End one of the processes that were started."""
        self._processes.remove(process)
        process.terminate()
        process.wait(20)

    def desire(self, tasks: dict[str, TaskRow]) -> None:
        """Publish the node's desired state, as the GlobalManager does."""
        body = Desired(cluster="bench", epoch=1, rev=1, digest=digest_of(tasks), tasks=tasks).encode()
        BareClient(self.cloud.port).publish_retained(topics.DESIRED.of(node=NODE), body)

    def wait_for(self, what: Callable[[], object]) -> None:
        """Return once something is so.

        Raises:
            RuntimeError: a process ended, or it took too long; with the ends of all logs.
        """
        pause, deadline = threading.Event(), time.monotonic() + TIMEOUT_S
        while not what():
            ended = [process.args for process in self._processes if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                logs = "\n".join(f"{log}:\n{log.read_text()[-2000:]}" for log in self.folder.glob("*.log"))
                raise RuntimeError(f"ended: {ended}\n{logs}")
            pause.wait(0.05)


def service_row(*, model: Path, script: str = "", **parameters: str) -> TaskRow:
    """Return the task of a service all of whose samples are hard; `script` is one of `bench/scripts`."""
    spec: dict[str, Any] = {
        "edgeWorker": {
            "name": "edge", "model": {"name": "little"}, "nodeName": NODE, "deadline": "5s",
            "hardExampleAlgorithm": {"name": "CloudOnly"},
            "workerSpec": {
                "scriptDir": str(SCRIPTS) if script else "", "scriptBootFile": script or "builtin:classify",
                "parameters": [{"key": key, "value": value} for key, value in parameters.items()],
            },
        },
        "cloudWorker": {"name": "cloud", "model": {"name": "big"}, "nodeName": "cloud"},
    }  # fmt: skip
    little = {"uid": "m", "generation": 1, "spec": {"modelUrl": str(model), "format": "tflite"}}
    return _row("JointInferenceService", spec, {"worker": WORKER, "service": SERVICE, "models": {"little": little}})


def service(row: TaskRow) -> dict[str, TaskRow]:
    """Return it with its uid."""
    return {_UID: row}


def dataset_row(path: Path) -> TaskRow:
    """Return the task of a csv dataset."""
    return _row("Dataset", {"dataUrl": str(path), "format": "csv", "nodeName": NODE}, {})


def cloud_task(*, model: Path, script: str = "") -> Task:
    """Return the cloud worker's task."""
    return Task(
        uid=_UID, service=SERVICE, role="cloud", namespace="default", name="bench", generation=1, hash="h",
        model=TaskModel(name="big", url=str(model), format="tflite"), script_dir=str(SCRIPTS) if script else "",
        script_boot_file=script or "builtin:classify", nodes=[NODE], group="bench-group",
    )  # fmt: skip


def rss_mib(pid: int) -> float:
    """Return a process's resident memory, shared pages included."""
    return float(psutil.Process(pid).memory_info().rss) / 2**20


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process has used."""
    # In nanoseconds, where `stat` counts ticks of 10 ms.
    return sum(int(thread.read_text().split()[0]) for thread in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def _row(kind: str, spec: dict[str, Any], refs: dict[str, Any]) -> TaskRow:
    return TaskRow(
        kind=kind, namespace="default", name="bench", generation=1, hash=task_hash(spec, refs), spec=spec, refs=refs
    )
