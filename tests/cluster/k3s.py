# SPDX-License-Identifier: Apache-2.0
"""K3s in a Docker container: an API server, and where it is wanted a real node."""

import json
import shutil
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Final

import yaml
from tests.cluster.control_plane import ApiServer

IMAGE: Final = "rancher/k3s:v1.34.1-k3s1"
NODE: Final = "edge-0"
_ANSWER_S: Final = 10.0
_PULL_S: Final = 180.0
_READY_S: Final = 120.0
_PORT: Final = 6443
# What a test does not need takes the time that it waits.
_WITHOUT: Final = "traefik,metrics-server,servicelb,local-storage,coredns"


@cache
def problem() -> str:
    """Return why there is no K3s, as one line; "" where its image is there, pulled if need be."""
    if shutil.which("docker") is None:
        return "docker is not installed"
    try:
        if _docker("info", timeout_s=_ANSWER_S).returncode:
            return "no Docker daemon answers"
        if _docker("image", "inspect", IMAGE, timeout_s=_ANSWER_S).returncode == 0:
            return ""
        pulled = _docker("pull", "--quiet", IMAGE, timeout_s=_PULL_S)
    except subprocess.TimeoutExpired as late:
        return f"`{' '.join(late.cmd[:2])}` did not end within {late.timeout:g} s"
    return f"{IMAGE} cannot be pulled: {pulled.stderr.strip()}" if pulled.returncode else ""


class K3s:
    """One container.

    Args:
        folder: where its kubeconfig goes.
        kubectl: arguments that begin a kubectl command; the kubeconfig is added.
        with_node: whether it is a node, too, named `NODE`.
    """

    def __init__(self, folder: Path, *, kubectl: tuple[str, ...], with_node: bool = False) -> None:
        self._kubeconfig, self._kubectl, self._with_node = folder / "kubeconfig", kubectl, with_node
        self._container = ""

    def start(self) -> ApiServer:
        """Start it; on return the API server is ready.

        Raises:
            RuntimeError: it was not, in time.
        """
        roles = (f"--node-name={NODE}",) if self._with_node else ("--disable-agent",)
        started = _docker(
            "run", "--detach", "--privileged", "--tmpfs=/run", "--tmpfs=/var/run", f"--publish=127.0.0.1::{_PORT}",
            "--label=nereid.io/tests", IMAGE, "server", f"--disable={_WITHOUT}", "--tls-san=127.0.0.1", *roles,
        )  # fmt: skip
        if started.returncode:
            raise RuntimeError(f"K3s did not start: {started.stderr.strip()}")
        self._container = started.stdout.strip()
        deadline = time.monotonic() + _READY_S
        while not (server := self._server()) or not self._is_ready(server):
            if time.monotonic() > deadline:
                raise RuntimeError(f"K3s was not ready within {_READY_S:g} s: {self._log()}")
            time.sleep(0.2)
        return server

    def load(self, archive: Path) -> None:
        """Import the images of an archive."""
        place = f"/tmp/{archive.name}"
        for arguments in (
            ("cp", str(archive), f"{self._container}:{place}"),
            ("exec", self._container, "ctr", "-n", "k8s.io", "images", "import", place),
            ("exec", self._container, "rm", place),
        ):
            done = _docker(*arguments)
            assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"

    def stop(self) -> None:
        """Remove the container with all that ran in it."""
        if self._container:
            _docker("rm", "--force", "--volumes", self._container)

    def _server(self) -> ApiServer | None:
        """Return the server as soon as K3s has written its kubeconfig, with the port that Docker gave it."""
        written = _docker("exec", self._container, "cat", "/etc/rancher/k3s/k3s.yaml")
        port = _docker("port", self._container, str(_PORT))
        if written.returncode or port.returncode:
            return None
        config = yaml.safe_load(written.stdout)
        url = f"https://{port.stdout.split()[0]}"
        config["clusters"][0]["cluster"]["server"] = url
        self._kubeconfig.touch(mode=0o600)
        self._kubeconfig.write_text(json.dumps(config))
        kubectl = (*self._kubectl, f"--kubeconfig={self._kubeconfig}")
        return ApiServer(kubeconfig=self._kubeconfig, url=url, token="", kubectl=kubectl)

    def _is_ready(self, server: ApiServer) -> bool:
        argv = [*server.kubectl, "get", "--raw=/readyz"]
        return subprocess.run(argv, capture_output=True, check=False, timeout=_READY_S).returncode == 0

    def _log(self) -> str:
        with tempfile.TemporaryFile("w+") as log:
            subprocess.run(["docker", "logs", "--tail=20", self._container], stdout=log, stderr=log, check=False)
            log.seek(0)
            return log.read()


def _docker(*arguments: str, timeout_s: float = _READY_S) -> subprocess.CompletedProcess[str]:
    argv = ["docker", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=timeout_s)
