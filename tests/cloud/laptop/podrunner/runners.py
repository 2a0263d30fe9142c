# SPDX-License-Identifier: Apache-2.0
"""What the PodRunner's tests share: its process, Pods of small Python programs, and waiting for what the API says."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nereid_cloud.cluster.kinds import EVENT, POD, kind_of
from nereid_cloud.cluster.port import Cluster, Object, Ref
from nereid_shared.errors import NotFound

NODE = "edge-0"
TIMEOUT_S = 30.0

# A container that runs until it is told to end, and one that does not listen.
PATIENT = (
    "import signal; stop = {signal.SIGTERM}; signal.pthread_sigmask(signal.SIG_BLOCK, stop);"
    "print('here', flush=True); signal.sigwait(stop); print('bye', flush=True)"
)
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('here', flush=True); time.sleep(600)"
)


class Runner:
    """One PodRunner process."""

    def __init__(self, state: Path, *arguments: str) -> None:
        self.state = state
        options = ("--node", NODE, "--state", str(state), "--backoff", "0.2", "--heartbeat", "0.5", *arguments)
        with (state / "podrunner.log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "nereid_cloud.laptop.podrunner", *options], stderr=log
            )

    @property
    def pods(self) -> Path:
        return self.state / "nodes" / NODE / "pods"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """Stop it with its Pods, or kill it where it does not stop."""
        try:
            self.stop()
        except subprocess.TimeoutExpired:
            self.kill()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(TIMEOUT_S)


class Runners:
    """Starts PodRunners, and ends them with all that they ran."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._runners: list[Runner] = []

    def __call__(self, *arguments: str) -> Runner:
        runner = Runner(self._state, *arguments)
        self._runners.append(runner)
        return runner

    def close(self) -> None:
        for runner in self._runners:
            if runner.process.poll() is None:
                runner.end()
        for lock in self._state.glob("nodes/*/pods/*/containers/*/*/lock"):
            if not (lock.parent / "exit.json").exists():
                with contextlib.suppress(ProcessLookupError, ValueError):
                    os.kill(int(lock.read_text()), signal.SIGKILL)


def pod(name: str, program: str, *, container: dict[str, Any] | None = None, **spec: Any) -> Object:
    """Return a Pod of one container that runs a Python program."""
    main = {"name": "main", "image": "none", "command": ["python", "-c", program], **(container or {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {"nodeName": NODE, "containers": [main], "terminationGracePeriodSeconds": 5, **spec},
    }


def ref(name: str) -> Ref:
    return Ref(kind=POD, name=name, namespace="default")


def until(cluster: Cluster, wanted: Ref | Object, met: Callable[[Object], object]) -> Object:
    """Return the object as soon as the API shows it so.

    Raises:
        AssertionError: it did not in time; the message has what it was last.
    """
    if not isinstance(wanted, Ref):
        metadata = wanted["metadata"]
        wanted = Ref(kind=kind_of(wanted), name=metadata["name"], namespace=metadata.get("namespace", ""))
    namespace = wanted.namespace or None
    fields = f"metadata.name={wanted.name}"
    listing = cluster.list(wanted.kind, namespace=namespace, fields=fields)
    last = None
    for last in listing.items:
        if met(last):
            return last
    for event in cluster.watch(
        wanted.kind, resource_version=listing.resource_version, stop=threading.Event(), namespace=namespace,
        fields=fields, timeout_s=TIMEOUT_S,
    ):  # fmt: skip
        if event.type == "BOOKMARK":
            continue
        last = event.object
        if met(last):
            return last
    raise AssertionError(f"{wanted.kind.kind} {wanted.name} never became so: {json.dumps(last, indent=1)}")


def until_event(cluster: Cluster, name: str, reason: str) -> Object:
    """Return the first Event about a Pod with this reason."""
    for seen in cluster.watch(EVENT, resource_version="", stop=threading.Event(), timeout_s=TIMEOUT_S):
        if seen.object.get("reason") == reason and seen.object["involvedObject"]["name"] == name:
            return seen.object
    raise AssertionError(f"no Event {reason} about {name}")


def until_gone(cluster: Cluster, wanted: Ref) -> None:
    """Return when the API has the object no more."""
    listing = cluster.list(wanted.kind, namespace=wanted.namespace, fields=f"metadata.name={wanted.name}")
    if not listing.items:
        return
    for event in cluster.watch(
        wanted.kind, resource_version=listing.resource_version, stop=threading.Event(), namespace=wanted.namespace,
        fields=f"metadata.name={wanted.name}", timeout_s=TIMEOUT_S,
    ):  # fmt: skip
        if event.type == "DELETED":
            return
    raise AssertionError(f"{wanted.kind.kind} {wanted.name} is still there")


def container(obj: Object) -> dict[str, Any]:
    """Return the status of a Pod's only container, {} before there is one."""
    statuses = obj.get("status", {}).get("containerStatuses") or [{}]
    status: dict[str, Any] = statuses[0]
    return status


def state(obj: Object) -> dict[str, Any]:
    """Return that container's state."""
    found: dict[str, Any] = container(obj).get("state", {})
    return found


def running(obj: Object) -> bool:
    return "running" in state(obj)


def pid(obj: Object) -> int:
    return int(container(obj)["containerID"].removeprefix("process://"))


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def log(obj: Object, name: str = "main.log") -> str:
    """Return what a container wrote."""
    return (Path(obj["metadata"]["annotations"]["nereid.io/log-dir"]) / name).read_text()


def annotated(obj: Object) -> bool:
    return "nereid.io/log-dir" in obj["metadata"].get("annotations", {})


def is_gone(cluster: Cluster, wanted: Ref) -> bool:
    try:
        cluster.get(wanted)
    except NotFound:
        return True
    return False
