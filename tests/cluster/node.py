# SPDX-License-Identifier: Apache-2.0
"""One real node on this machine: containerd, kubelet and kube-proxy, as root, and everything of them taken down again.

Containers outlive whoever started them. Hence one fixed folder under a lock: a session that was killed leaves what the
next one sweeps away first.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.cluster import archives
from tests.cluster.control_plane import ApiServer
from tests.mosquitto import free_port

FOLDER: Final = Path("/var/tmp/nereid-node")  # fixed, to be found by the next session
ADDRESS: Final = "10.213.0.1"
SERVICES: Final = "10.213.2.0/24"
_PODS: Final = "10.213.1.0/24"
_DEVICE: Final = "nereid-node"
_SANDBOX: Final = "localhost/pause:1"
_CNI: Final = ("/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni")
_PROGRAMS: Final = ("containerd", "ctr", "runc", "ip", "iptables", "conntrack")
_PACKAGES: Final = "containerd runc containernetworking-plugins iproute2 iptables conntrack socat"
_CGROUPS: Final = Path("/sys/fs/cgroup")
_START_S: Final = 30.0
_STOP_S: Final = 20.0


def missing() -> str:
    """Return what has to be there for a node and is not, as one line; "" where all is there."""
    if os.geteuid() != 0:
        return "no node: run as root, or name one: make test-cluster KUBECONFIG=... EDGE_NODE=..."
    absent = [name for name in _PROGRAMS if shutil.which(name, path=_path()) is None]
    if absent or _cni_folder() is None:
        what = ", ".join([*absent, *([] if _cni_folder() else ["CNI plugins"])])
        return f"no node, for want of {what}: apt-get install {_PACKAGES}"
    return ""


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """The machine's only node folder, swept before and after; others wait for it."""
    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    with FOLDER.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _sweep()
        FOLDER.mkdir()
        try:
            _run("ip", "link", "add", _DEVICE, "type", "bridge")
            _run("ip", "address", "add", f"{ADDRESS}/24", "dev", _DEVICE)
            _run("ip", "link", "set", _DEVICE, "up")
            yield FOLDER
        finally:
            _sweep()


class Node:
    """The processes of one node.

    Args:
        program: the tests' Kubernetes.
        pause: the program of sandboxes.
        server: whose node it is.
        name: the node's.
    """

    def __init__(self, program: Path, pause: Path, server: ApiServer, *, name: str) -> None:
        self.name = name
        self._program, self._pause, self._server = str(program), pause, server
        self._socket = FOLDER / "containerd.sock"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start the node; it is Ready some seconds later."""
        for name in ("cni", "log"):
            (FOLDER / name).mkdir()
        self._write_configurations()
        _make_cgroup(_DEVICE)
        self.start_containerd()
        self.load(archives.write(FOLDER / "pause.tar", image=_SANDBOX, program=self._pause))
        self.start_kubelet()
        self._start(
            "proxy", self._program, "proxy", f"--kubeconfig={self._server.kubeconfig}",
            f"--hostname-override={self.name}", "--proxy-mode=iptables", f"--cluster-cidr={_PODS}",
            "--conntrack-max-per-core=0", f"--bind-address={ADDRESS}",
            f"--metrics-bind-address=127.0.0.1:{free_port()}", f"--healthz-bind-address=127.0.0.1:{free_port()}",
        )  # fmt: skip

    def start_containerd(self) -> None:
        """Start containerd; on return it answers. Containers that ran before still run."""
        self._start("containerd", self._program, "exec", "containerd", "--config", str(FOLDER / "containerd.toml"))
        deadline = time.monotonic() + _START_S
        while _try("ctr", "-a", str(self._socket), "version").returncode:
            assert time.monotonic() < deadline, f"containerd does not answer: {self.log('containerd')}"
            time.sleep(0.05)

    def start_kubelet(self) -> None:
        """Start the kubelet; it takes up the containers that run."""
        self._start(
            "kubelet", self._program, "kubelet", f"--config={FOLDER / 'kubelet.json'}",
            f"--kubeconfig={self._server.kubeconfig}", f"--root-dir={FOLDER / 'kubelet'}",
            f"--cert-dir={FOLDER / 'kubelet-certs'}", f"--hostname-override={self.name}", f"--node-ip={ADDRESS}",
        )  # fmt: skip

    def kill(self, part: str) -> None:
        """Kill ``kubelet``, ``containerd`` or ``proxy``; containers go on."""
        process = self._processes.pop(part)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def kill_container(self, container: str) -> None:
        """Kill what runs in a container, by the id that its Pod's status shows."""
        ident = container.removeprefix("containerd://")
        _run("ctr", "-a", str(self._socket), "-n", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", ident)

    def load(self, archive: Path) -> None:
        """Import the images of an archive, as `docker save` and `buildah push` write them."""
        _run("ctr", "-a", str(self._socket), "-n", "k8s.io", "images", "import", str(archive))

    def log(self, part: str) -> str:
        """Return the last lines of a part's log."""
        text = (FOLDER / "log" / f"{part}.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-30:])

    def stop(self) -> None:
        """End the processes; `folder` ends the containers."""
        for process in reversed(self._processes.values()):
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        _try(self._program, "proxy", "--cleanup")

    def _start(self, part: str, *argv: str) -> None:
        with (FOLDER / "log" / f"{part}.log").open("ab") as log:
            environment = {**os.environ, "PATH": _path()}
            self._processes[part] = subprocess.Popen(
                argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=FOLDER, env=environment
            )

    def _write_configurations(self) -> None:
        (FOLDER / "containerd.toml").write_text(_containerd(self._socket))
        (FOLDER / "cni" / "10-pods.conflist").write_text(json.dumps(_cni()))
        (FOLDER / "kubelet.json").write_text(json.dumps(_kubelet(self._socket)))


def _containerd(sock: Path) -> str:
    return f"""\
version = 2
root = "{FOLDER}/containerd"
state = "{FOLDER}/containerd-state"
[grpc]
  address = "{sock}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{_SANDBOX}"
  restrict_oom_score_adj = true # a container of its own has no right to lower it
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{_cni_folder()}"
    conf_dir = "{FOLDER}/cni"
"""


def _cni() -> dict[str, object]:
    # Each Pod has a link of its own to the host, so that a Service's addresses work between Pods of one node, too.
    ranges = [[{"subnet": _PODS}]]
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    ipam = {"type": "host-local", "dataDir": f"{FOLDER}/ipam", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]}
    return {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [{"type": "ptp", "ipMasq": False, "ipam": ipam}, ports],
    }


def _kubelet(sock: Path) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": ADDRESS,
        "readOnlyPort": 0,
        "healthzPort": 0,
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        # Two kubelets on one machine kill each other's Pods unless each has a root of its own.
        "cgroupRoot": f"/{_DEVICE}",
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        "failCgroupV1": False,
        "makeIPTablesUtilChains": False,
        "localStorageCapacityIsolation": False,
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"imagefs.available": "1%", "nodefs.available": "1%", "memory.available": "50Mi"},
        "containerRuntimeEndpoint": f"unix://{sock}",
        "podLogsDir": f"{FOLDER}/pod-logs",
        "resolvConf": "",
        "syncFrequency": "10s",
    }


def _make_cgroup(name: str) -> None:
    if (_CGROUPS / "cgroup.controllers").exists():
        (_CGROUPS / name).mkdir(exist_ok=True)
        for controller in (_CGROUPS / "cgroup.controllers").read_text().split():
            with contextlib.suppress(OSError):
                (_CGROUPS / "cgroup.subtree_control").write_text(f"+{controller}")
        return
    for hierarchy in _CGROUPS.iterdir():
        with contextlib.suppress(OSError):
            (hierarchy / name).mkdir(exist_ok=True)
    for file in ("cpuset.cpus", "cpuset.mems"):
        whole = _CGROUPS / "cpuset" / file
        if whole.exists():
            (_CGROUPS / "cpuset" / name / file).write_text(whole.read_text())


def _sweep() -> None:
    """Take down what a node left: shims with their containers, mounts, cgroups, the device, the folder."""
    for pid in _of_folder():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + _STOP_S
    while (left := _in_cgroup()) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    for mount in _mounts():
        _try("umount", "--lazy", mount)
    for cgroup in _cgroups():
        with contextlib.suppress(OSError):
            cgroup.rmdir()
    if (Path("/sys/class/net") / _DEVICE).exists():
        _try("ip", "link", "delete", _DEVICE)
    if FOLDER.exists():
        shutil.rmtree(FOLDER)


def _of_folder() -> Iterator[int]:
    """Yield the processes that the folder's name shows: containerd, kubelet, and the containers' shims."""
    for proc in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (proc / "cmdline").read_bytes().split(b"\0")
            if any(word.startswith(f"{FOLDER}/".encode()) for word in words) and int(proc.name) != os.getpid():
                yield int(proc.name)


def _cgroups() -> list[Path]:
    """Return the node's cgroups, the deepest first."""
    roots = [_CGROUPS / _DEVICE, *_CGROUPS.glob(f"*/{_DEVICE}")]
    found = [Path(place) for root in roots if root.is_dir() for place, _, _ in os.walk(root)]
    return sorted(found, key=lambda path: len(path.parts), reverse=True)


def _in_cgroup() -> set[int]:
    pids: set[int] = set()
    for cgroup in _cgroups():
        with contextlib.suppress(OSError):
            pids |= {int(word) for word in (cgroup / "cgroup.procs").read_text().split()}
    return pids - {0}


def _mounts() -> list[str]:
    """Return the mounts below the folder, the last one first."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    found = [line.split()[1].replace("\\040", " ") for line in lines]
    return [mount for mount in reversed(found) if mount.startswith(f"{FOLDER}/")]


def _cni_folder() -> str | None:
    return next((place for place in _CNI if (Path(place) / "ptp").exists()), None)


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def _run(*argv: str) -> None:
    done = _try(*argv)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr or done.stdout}"


def _try(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, "PATH": _path()})
