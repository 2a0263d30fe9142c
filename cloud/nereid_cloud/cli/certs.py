# SPDX-License-Identifier: Apache-2.0
"""``nereid certs``: certificates for a cluster from a development CA; in production bring your own.

Run it again to add nodes: what is there stays, only the broker's certificate is made anew with all its names.
"""

import base64
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import yaml

from nereid_cloud import data
from nereid_shared.errors import TemporaryError, UserError
from nereid_shared.topics import node_name

GM: Final = "nereid:gm"
WORKERS: Final = "nereid:workers"
# The broker's names within the cluster; the addresses given come on top of them.
IN_CLUSTER: Final = ("nereid-broker.nereid.svc", "nereid-broker.nereid.svc.cluster.local", "nereid-broker")

_ADDRESS: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?")
_NAMESPACE: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def certs(
    folder: Annotated[Path, typer.Argument(help="Folder to write, or to add to.")] = Path("certs"),
    broker: Annotated[
        list[str] | None, typer.Option("--broker", help="Name or address at which nodes reach the cloud broker; again.")
    ] = None,
    node: Annotated[list[str] | None, typer.Option("--node", help="An edge node's name; again for each.")] = None,
    namespace: Annotated[
        list[str] | None, typer.Option("-n", "--namespace", help="Where services will be; again for each.")
    ] = None,
) -> None:
    """Make certificates for the brokers, the GlobalManager, workers and nodes."""
    addresses, nodes = list(map(_address, broker or [])), list(map(_node, node or []))
    namespaces = list(map(_namespace, namespace or ["default"]))
    authority = Authority(folder / "ca")
    if not addresses and not authority.has_server:
        raise UserError(
            "where do nodes reach the cloud broker?", where="--broker", mend="Give its name or address, without a port"
        )
    if addresses:
        authority.server([*addresses, *IN_CLUSTER])
    for name in nodes:
        _copy(authority.client(name), folder / "nodes" / name)
    secrets = [
        _secret("nereid-broker-tls", "nereid", authority.server_files),
        _secret("nereid-gm-tls", "nereid", authority.client(GM)),
        *(_secret("nereid-worker-tls", where, authority.client(WORKERS)) for where in namespaces),
    ]
    file = folder / "secrets.yaml"
    _private(file, yaml.safe_dump_all(secrets, sort_keys=False))
    sys.stdout.write(f"{file}: kubectl apply -f {file}\n")
    for name in nodes:
        sys.stdout.write(f"{folder / 'nodes' / name}: copy its files to /etc/nereid/certs on {name}\n")


class Authority:
    """A development CA in a folder, kept by ``mosquitto/dev-ca.sh``; makes a client's certificate once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._script = data.path("mosquitto") / "dev-ca.sh"

    @property
    def has_server(self) -> bool:
        """Whether there is a broker's certificate already."""
        return (self._folder / "tls.crt").exists()

    @property
    def server_files(self) -> dict[str, Path]:
        """The broker's files, by the name that a Secret has for them."""
        return self._files("tls")

    def server(self, names: Iterable[str]) -> None:
        """Make the broker's certificate for these names and addresses."""
        self._run("server", *names)

    def client(self, common_name: str) -> dict[str, Path]:
        """Return a client's files, by the name that a Secret has for them."""
        if not (self._folder / f"{common_name}.crt").exists():
            self._run("client", common_name)
        return self._files(common_name)

    def _files(self, stem: str) -> dict[str, Path]:
        ours = {f"tls.{kind}": self._folder / f"{stem}.{kind}" for kind in ("crt", "key")}
        return {"ca.crt": self._folder / "ca.crt", **ours}

    def _run(self, *arguments: str) -> None:
        if shutil.which("openssl") is None:
            raise UserError("openssl is missing", mend="Install it, for instance: apt-get install openssl")
        self._folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["sh", str(self._script), str(self._folder.resolve()), *arguments],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise TemporaryError(f"no certificate for {arguments[1]}: {done.stderr.strip() or 'openssl failed'}")


def _address(text: str) -> str:
    if not _ADDRESS.fullmatch(text):
        raise UserError(
            f"{text!r} is neither a name nor an address", where="--broker",
            mend="Write it without scheme and port, such as cloud.example.org or 192.0.2.7",
        )  # fmt: skip
    return text


def _node(text: str) -> str:
    try:
        return node_name(text)
    except ValueError as error:
        raise UserError(str(error), where="--node") from error


def _namespace(text: str) -> str:
    if not _NAMESPACE.fullmatch(text):
        raise UserError(f"{text!r} is no namespace", where="--namespace")
    return text


def _copy(files: dict[str, Path], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, file in files.items():
        _private(folder / name, file.read_text())


def _private(file: Path, text: str) -> None:
    """Write a file that nobody else may read, whatever was there before."""
    file.unlink(missing_ok=True)
    file.touch(mode=0o600)
    file.write_text(text)


def _secret(name: str, namespace: str, files: dict[str, Path]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "type": "Opaque",
        "data": {key: base64.b64encode(file.read_bytes()).decode() for key, file in files.items()},
    }
