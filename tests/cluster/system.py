# SPDX-License-Identifier: Apache-2.0
"""A whole Nereid on an API server, as processes: brokers, GlobalManager, LocalController, PodRunners."""

import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.mosquitto import Mosquitto

from nereid_cloud import data

CLOUD: Final = "cloud"
EDGE: Final = "edge-0"
SAMPLE_ROOT: Final = "/var/lib/nereid/examples/digits"
_STOP_S: Final = 20.0
_LAST_LINES: Final = 20


class System:
    """The processes of one system; ``with`` bounds them.

    Args:
        kubeconfig: of the API server.
        namespace: of the leader's Lease.
        folder: where everything is kept; each process has its log there.
        gm_kubeconfig: the GlobalManager's own way to the API server, where it has one.
    """

    def __init__(self, kubeconfig: Path, *, namespace: str, folder: Path, gm_kubeconfig: Path | None = None) -> None:
        self.state = folder / "system"
        self._gm_kubeconfig = str(gm_kubeconfig or kubeconfig)
        self._kubeconfig, self._namespace = str(kubeconfig), namespace
        self.cloud_broker = Mosquitto(folder / "broker-cloud")
        self.edge_broker = Mosquitto(folder / "broker-edge", persistence=True)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        self.state.mkdir()
        try:
            self.cloud_broker.start()
            self.edge_broker.start()
            self._start_all()
        except BaseException:
            self._stop_all()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_all()

    def kill(self, name: str) -> None:
        """Kill a process: ``gm``, ``lc`` or ``podrunner-`` and a node."""
        process = self._processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def start_gm(self) -> None:
        """Start the GlobalManager; it reports counters each second."""
        self._start(
            "gm", "nereid_cloud.gm", "--kubeconfig", self._gm_kubeconfig, "--broker", self.cloud_broker.url,
            "--metrics-interval", "1s", "--identity", "gm", "--lease-namespace", self._namespace,
            "--delete-timeout", "10s",
        )  # fmt: skip

    def start_lc(self) -> None:
        """Start the edge node's LocalController."""
        self._start(
            "lc", "nereid_edge", "--node", EDGE, "--state", str(self.state / "lc"),
            "--cloud-broker", self.cloud_broker.url, "--edge-broker", self.edge_broker.url, "--status-interval", "1s",
        )  # fmt: skip

    def _start_all(self) -> None:
        self.start_gm()
        self.start_lc()
        self._start_podrunner(CLOUD)
        edge = ("--labels", "node-role.kubernetes.io/edge=")
        self._start_podrunner(EDGE, *edge, "--annotations", f"nereid.io/edge-broker={self.edge_broker.url}")

    def _start_podrunner(self, node: str, *more: str) -> None:
        self._start(
            f"podrunner-{node}", "nereid_cloud.laptop.podrunner", "--node", node, "--state", str(self.state),
            "--kubeconfig", self._kubeconfig, "--backoff", "0.5", *more,
        )  # fmt: skip

    def _start(self, name: str, module: str, *arguments: str) -> None:
        with (self.state / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", module, *arguments], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def _stop_all(self) -> None:
        # The PodRunners last: they end the workers, which say goodbye to the others.
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.edge_broker.kill()
        self.cloud_broker.kill()
        # For the eyes of who looks at a failure.
        for file in sorted(self.state.glob("*.log")):
            last = file.read_text(errors="replace").splitlines()[-_LAST_LINES:]
            sys.stderr.write("\n".join([f"== {file.stem}", *last, ""]))


def sample(folder: Path, *, pictures: int) -> str:
    """Unpack the digits below a folder and return the shipped sample manifest with their paths there."""
    example = data.path("examples") / "digits"
    shutil.copytree(example / "models", folder / "models")
    with tarfile.open(example / "digits.tar.gz") as archive:
        archive.extractall(folder / "data", filter="data")
    index = folder / "data" / "index.csv"
    index.write_text("".join(index.read_text().splitlines(keepends=True)[: pictures + 1]))
    return (data.path("samples") / "digits.yaml").read_text().replace(SAMPLE_ROOT, str(folder))
