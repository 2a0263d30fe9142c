# SPDX-License-Identifier: Apache-2.0
"""The PodRunner's settings, read once from its command line and environment."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from nereid_cloud.laptop.podrunner.volumes import HostRoot
from nereid_shared.environment import HOST_ROOT
from nereid_shared.errors import UserError
from nereid_shared.topics import node_name

_STATE_ON_NODES = PurePosixPath(HOST_ROOT)
_INHERITED = ("HOME", "LANG", "TZ", "TMPDIR", "USER")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a PodRunner is told.

    Attributes:
        node: the name of the node that it is.
        state: the state folder; also the LocalCluster's where `kubeconfig` is None.
        kubeconfig: the cluster's, or None for the LocalCluster in `state`.
        labels: the node's labels beside the hostname, which it always has.
        annotations: the node's annotations.
        host_roots: where host paths of Pods lie on this machine.
        address: the node's and its Pods' address.
        backoff_s: the delay before a container's second restart; doubles up to `backoff_ceiling_s`.
        backoff_ceiling_s: the longest delay between restarts.
        heartbeat_s: how often the node's Lease is renewed.
        log_bytes: the size at which a container's log moves aside.
        keep_pods: whether SIGTERM leaves the Pods running, as SIGKILL always does.
        environment: what every container's environment begins with.
        log_json: whether the PodRunner's own log is JSON.
    """

    node: str
    state: Path
    kubeconfig: Path | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    host_roots: tuple[HostRoot, ...] = ()
    address: str = "127.0.0.1"
    backoff_s: float = 10.0
    backoff_ceiling_s: float = 300.0
    heartbeat_s: float = 5.0
    log_bytes: int = 10 * 1024 * 1024
    keep_pods: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    log_json: bool = False

    @property
    def folder(self) -> Path:
        """The node's own folder."""
        return self.state / "nodes" / self.node


def read(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Return the settings of a command line.

    Raises:
        UserError: a value cannot be used.
    """
    options = _parser().parse_args(arguments)
    try:
        node = node_name(options.node)
    except ValueError as error:
        raise UserError(str(error), where="--node", mend="Choose another name") from error
    state = options.state.absolute()
    default = HostRoot(path=_STATE_ON_NODES, folder=state / "nodes" / node / _STATE_ON_NODES.relative_to("/"))
    return Settings(
        node=node, state=state, kubeconfig=options.kubeconfig, labels=_pairs(options.labels, "--labels"),
        annotations=_pairs(options.annotations, "--annotations"),
        host_roots=(*(_root(text) for text in options.host_root), default),
        address=options.address, backoff_s=options.backoff, backoff_ceiling_s=options.backoff_ceiling,
        heartbeat_s=options.heartbeat, log_bytes=options.log_bytes, keep_pods=options.keep_pods,
        environment=base_environment(environment), log_json=options.log_json,
    )  # fmt: skip


def base_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what an image's ENV would bring, with this interpreter's programs first in PATH."""
    programs = str(Path(sys.executable).parent)
    path = environment.get("PATH", "/usr/local/bin:/usr/bin:/bin")
    env = {"LANG": "C.UTF-8"} | {name: environment[name] for name in _INHERITED if name in environment}
    env |= {"PATH": f"{programs}:{path}", "PYTHONUNBUFFERED": "1"}
    if sys.prefix != sys.base_prefix:
        env["VIRTUAL_ENV"] = sys.prefix
    return env


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m nereid_cloud.laptop.podrunner", description=__doc__)
    add = parser.add_argument
    add("--node", required=True, help="the name of the node that this is")
    add("--state", required=True, type=Path, metavar="DIR", help="the state folder")
    add("--kubeconfig", type=Path, metavar="FILE", help="a cluster's, instead of the LocalCluster in the state folder")
    add("--labels", action="append", default=[], metavar="K=V,…", help="labels of the node")
    add("--annotations", action="append", default=[], metavar="K=V,…", help="annotations of the node")
    add("--host-root", action="append", default=[], metavar="PATH=DIR", help="where host paths below PATH are found")
    add("--address", default="127.0.0.1", help="the node's address (default: %(default)s)")
    add("--backoff", type=float, default=10.0, metavar="S", help="delay before a second restart (default: %(default)s)")
    add("--backoff-ceiling", type=float, default=300.0, metavar="S", help="longest delay (default: %(default)s)")
    add("--heartbeat", type=float, default=5.0, metavar="S", help="between Lease renewals (default: %(default)s)")
    add("--log-bytes", type=int, default=10 * 1024 * 1024, metavar="N", help="largest log (default: %(default)s)")
    add("--keep-pods", action="store_true", help="leave the Pods running at SIGTERM, for the next start to adopt")
    add("--log-json", action="store_true", help="write JSON lines")
    return parser


def _pairs(texts: Sequence[str], where: str) -> dict[str, str]:
    pairs = {}
    for text in ",".join(texts).split(","):
        key, equals, value = text.partition("=")
        if equals:
            pairs[key.strip()] = value
        elif text.strip():
            raise UserError(f"{text!r} is not key=value", where=where, mend="Write key=value,key=value")
    return pairs


def _root(text: str) -> HostRoot:
    path, equals, folder = text.partition("=")
    if not equals or not path.startswith("/"):
        raise UserError(f"{text!r} is not PATH=DIR", where="--host-root", mend="Write an absolute PATH, = and a folder")
    return HostRoot(path=PurePosixPath(path), folder=Path(folder).absolute())
