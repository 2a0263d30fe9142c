# SPDX-License-Identifier: Apache-2.0
"""A Kubernetes control plane: etcd, API server, controllers and scheduler on free ports."""

import json
import secrets
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

_LOOPBACK = "127.0.0.1"
_READY_S = 60.0
_AUDIT_LOG = "audit.log"
_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts:nereid"]}, {"level": "None"}],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServer:
    """A real API server, with its administrator's credentials.

    Attributes:
        kubectl: arguments that begin a kubectl command on it.
        audit: log of what the service accounts of namespace `nereid` asked; None on a user's cluster.
    """

    kubeconfig: Path
    url: str
    token: str
    kubectl: tuple[str, ...]
    is_ours: bool = True
    audit: Path | None = None


class ControlPlane:
    """The processes of one control plane, with all their files in one folder.

    Args:
        program: the tests' Kubernetes.
        folder: where the files go.
        address: the API server's; nodes and their Pods reach it there where it is not the loopback's.
        services: the addresses of Services.
    """

    def __init__(
        self, program: Path, folder: Path, *, address: str = _LOOPBACK, services: str = "10.87.0.0/24"
    ) -> None:
        self._program, self._folder, self._address, self._services = program, folder, address, services
        self._processes: list[tuple[str, subprocess.Popen[bytes]]] = []

    def start(self) -> ApiServer:
        """Start everything; on return the API server is ready and the controllers are starting.

        Raises:
            RuntimeError: a part ended, or the API server was not ready in time.
        """
        etcd, peer, port = _free_ports(3)
        self._start_etcd(etcd, peer)
        token = secrets.token_hex(16)
        key = self._credentials(token)
        self._start_api_server(etcd, port, key)
        url = f"https://{self._address}:{port}"
        self._await_ready(url, token)
        kubeconfig = self._kubeconfig(url, token)
        self._start_clients(kubeconfig, key)
        kubectl = (str(self._program), "kubectl", f"--kubeconfig={kubeconfig}")
        return ApiServer(kubeconfig=kubeconfig, url=url, token=token, kubectl=kubectl, audit=self._folder / _AUDIT_LOG)

    def stop(self) -> None:
        """Kill what was started: nobody wants its store any more, and an orderly end takes 10 s."""
        for _, process in self._processes:
            process.kill()
        for _, process in self._processes:
            process.wait()

    def _start_etcd(self, client: int, peer: int) -> None:
        self._run(
            "etcd",
            f"--data-dir={self._folder / 'etcd'}",
            f"--listen-client-urls=http://127.0.0.1:{client}", f"--advertise-client-urls=http://127.0.0.1:{client}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}", f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}", "--unsafe-no-fsync", "--log-level=error",
        )  # fmt: skip

    def _start_api_server(self, etcd: int, port: int, key: Path) -> None:
        policy = self._folder / "audit-policy.json"
        policy.write_text(json.dumps(_AUDIT_POLICY))
        self._run(
            "apiserver",
            f"--etcd-servers=http://127.0.0.1:{etcd}", f"--secure-port={port}",
            f"--bind-address={self._address}", f"--advertise-address={self._address}",
            f"--cert-dir={self._folder / 'certs'}", "--authorization-mode=RBAC",
            f"--token-auth-file={self._folder / 'tokens.csv'}", f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-account-issuer=https://kubernetes.default.svc", f"--service-cluster-ip-range={self._services}",
            # The Service `kubernetes` leads to the API server, but not to a loopback address.
            f"--endpoint-reconciler-type={'none' if self._address == _LOOPBACK else 'master-count'}",
            f"--audit-policy-file={policy}", f"--audit-log-path={self._folder / _AUDIT_LOG}",
            "--allow-privileged=true", "--kubelet-preferred-address-types=InternalIP",
        )  # fmt: skip

    def _start_clients(self, kubeconfig: Path, key: Path) -> None:
        same = [f"--{who}kubeconfig={kubeconfig}" for who in ("", "authentication-", "authorization-")]
        same += ["--leader-elect=false", "--secure-port=0"]
        self._run(
            "controllers", *same, f"--service-account-private-key-file={key}",
            f"--root-ca-file={self._certificate}", "--use-service-account-credentials=true",
        )  # fmt: skip
        self._run("scheduler", *same)

    def _run(self, part: str, *arguments: str) -> None:
        with (self._folder / f"{part}.log").open("wb") as log:
            process = subprocess.Popen([str(self._program), part, *arguments], stdout=log, stderr=log, cwd=self._folder)
        self._processes.append((part, process))

    def _credentials(self, token: str) -> Path:
        tokens, key = self._folder / "tokens.csv", self._folder / "sa.key"
        for secret in (tokens, key):
            secret.touch(mode=0o600)
        tokens.write_text(f'{token},admin,1,"system:masters"\n')
        key.write_bytes(subprocess.run([str(self._program), "key"], check=True, capture_output=True).stdout)
        return key

    @property
    def _certificate(self) -> Path:
        return self._folder / "certs" / "apiserver.crt"

    def _await_ready(self, url: str, token: str) -> None:
        request = urllib.request.Request(f"{url}/readyz", headers={"Authorization": f"Bearer {token}"})  # noqa: S310
        deadline = time.monotonic() + _READY_S
        while not self._answers(request):
            self._check_alive()
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"the API server was not ready within {_READY_S:g} s: {self._last_words('apiserver')}"
                )
            time.sleep(0.05)

    def _answers(self, request: urllib.request.Request) -> bool:
        if not self._certificate.exists():
            return False
        try:
            context = ssl.create_default_context(cafile=str(self._certificate))
            with urllib.request.urlopen(request, timeout=5, context=context) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except (urllib.error.URLError, ssl.SSLError, ConnectionError, TimeoutError):
            return False

    def _check_alive(self) -> None:
        for part, process in self._processes:
            if process.poll() is not None:
                raise RuntimeError(f"{part} ended with {process.returncode}: {self._last_words(part)}")

    def _last_words(self, part: str) -> str:
        return "\n".join((self._folder / f"{part}.log").read_text(errors="replace").splitlines()[-5:])

    def _kubeconfig(self, url: str, token: str) -> Path:
        """Write the administrator's kubeconfig: JSON, which is YAML."""
        path = self._folder / "kubeconfig"
        path.touch(mode=0o600)
        cluster = {"server": url, "certificate-authority": str(self._certificate)}
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "test", "cluster": cluster}],
                    "users": [{"name": "admin", "user": {"token": token}}],
                    "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
                    "current-context": "test",
                }
            )
        )
        return path


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
