# SPDX-License-Identifier: Apache-2.0
"""A whole Nereid on one machine: which processes, which ports, which folders (design, section 2).

A cloud broker, the cluster's controllers, a GlobalManager and a PodRunner for the cloud's node; for each edge node a
broker, a LocalController, a PodRunner and a link that can be cut. All of them are the programs that run on a cluster,
except for the PodRunner and the controllers, which stand for the kubelet and Kubernetes' own.
"""

import json
import os
import shutil
import socket
import string
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nereid_cloud import data
from nereid_cloud.gm.names import EDGE_BROKER_ANNOTATION
from nereid_cloud.laptop.supervisor import Program
from nereid_shared.environment import HOST_ROOT
from nereid_shared.errors import UserError

BASE_PORT: Final = 18830
CLOUD_NODE: Final = "cloud"
EDGE_LABEL: Final = "node-role.kubernetes.io/edge"
RESTART_BACKOFF_S: Final = "0.5"
"""First delay before a container restarts; a kubelet's 10 s would try the patience of whoever mends a script."""

HEARTBEAT_S: Final = "1"
"""A node that is lost shows after five of these, not after a kubelet's forty seconds."""

KEEPALIVE: Final = "5s"
"""A broker or a peer that falls silent on the loopback shows after two of these, not after 20 s twice."""

LC_HEARTBEAT: Final = "3s"
NODE_TIMEOUT: Final = "10s"
"""A LocalController that falls silent counts as offline after three of its heartbeats."""

MOSQUITTO_MEND: Final = "Install it, for instance: apt-get install mosquitto mosquitto-clients"


def edge_nodes(count: int) -> list[str]:
    """Return the names of `count` edge nodes."""
    return [f"edge-{number}" for number in range(count)]


CONTROL: Final = "links.sock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Loopback ports: the cloud broker's, and per node its broker's and its link's."""

    cloud: int
    brokers: dict[str, int]
    links: dict[str, int]

    @classmethod
    def choose(cls, nodes: list[str], base: int | None) -> "Ports":
        """Return `base` for the cloud broker, the next ones for the nodes' brokers; any free ones where `base` is 0.

        None means those that are usual, if they are free, else any free ones.

        Raises:
            UserError: one of the ports is taken.
        """
        if base is None:
            try:
                return cls.choose(nodes, BASE_PORT)
            except UserError:
                return cls.choose(nodes, 0)
        if base == 0:
            free = _free_ports(2 * len(nodes) + 1)
            return cls(
                cloud=free[0],
                brokers=dict(zip(nodes, free[1 : len(nodes) + 1], strict=True)),
                links=dict(zip(nodes, free[len(nodes) + 1 :], strict=True)),
            )
        brokers = {node: base + 1 + number for number, node in enumerate(nodes)}
        for owner, port in {"the cloud broker": base, **{f"the broker of {n}": p for n, p in brokers.items()}}.items():
            if not _is_free(port):
                raise UserError(
                    f"port {port}, meant for {owner}, is taken",
                    where="--base-port",
                    mend="End what listens there, or choose another --base-port (0 takes any free ones)",
                )
        return cls(cloud=base, brokers=brokers, links=dict(zip(nodes, _free_ports(len(nodes)), strict=True)))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_ports(count: int) -> list[int]:
    # All at once, so that no two are the same.
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """Where everything of one system is.

    Attributes:
        state: the state folder.
        nodes: names of the edge nodes.
    """

    state: Path
    nodes: list[str]
    ports: Ports

    @property
    def control(self) -> Path:
        """The links' control socket."""
        return self.state / CONTROL

    @property
    def logs(self) -> Path:
        """Folder of the processes' logs."""
        return self.state / "logs"

    def node_state(self, node: str) -> Path:
        """What ``/var/lib/nereid`` is on that node."""
        return self.state / "nodes" / node / HOST_ROOT.lstrip("/")

    @property
    def cloud_broker(self) -> str:
        """The cloud broker's URL, past any link."""
        return f"mqtt://127.0.0.1:{self.ports.cloud}"

    def edge_broker(self, node: str) -> str:
        """The URL of a node's broker."""
        return f"mqtt://127.0.0.1:{self.ports.brokers[node]}"

    def watch_lines(self) -> list[str]:
        """Return the ``mosquitto_sub`` lines that show what goes on."""
        head = "mosquitto_sub -V mqttv5 -h 127.0.0.1"
        return [
            f"{head} -p {self.ports.cloud} -v -t 'neptune/nodes/#' -t 'neptune/gm/#'",
            *(f"{head} -p {port} -v -t 'neptune/workers/#'  # {node}" for node, port in self.ports.brokers.items()),
        ]

    def write_brokers(self) -> None:
        """Write the brokers' configurations from the files in ``mosquitto/``.

        Raises:
            UserError: Mosquitto is not installed.
        """
        if _mosquitto() is None:
            raise UserError("mosquitto is not installed", mend=MOSQUITTO_MEND)
        for name, port in {CLOUD_NODE: self.ports.cloud, **self.ports.brokers}.items():
            folder = self.state / "brokers" / name
            folder.mkdir(parents=True, exist_ok=True)
            template = data.path("mosquitto") / ("cloud-dev.conf" if name == CLOUD_NODE else "edge-dev.conf")
            text = string.Template(template.read_text()).substitute(port=port, state=folder)
            (folder / "mosquitto.conf").write_text(text)

    def programs(self) -> Iterator[Program]:
        """Yield the processes in the order in which they start."""
        python = (sys.executable, "-m")
        state = ("--state", str(self.state))
        for broker in (CLOUD_NODE, *self.nodes):
            config = str(self.state / "brokers" / broker / "mosquitto.conf")
            yield self._program(f"broker-{broker}", _mosquitto() or "mosquitto", "-c", config)
        yield self._program("links", *python, "nereid_cloud.laptop", "links", *state)
        yield self._program("controllers", *python, "nereid_cloud.laptop.controllers", *state)
        yield self._program(
            "gm",
            *python,
            "nereid_cloud.gm",
            *state,
            "--broker",
            self.cloud_broker,
            "--metrics-interval",
            "1s",
            "--node-timeout",
            NODE_TIMEOUT,
            "--keepalive",
            KEEPALIVE,
            "--edge-keepalive",
            KEEPALIVE,
        )
        yield self._podrunner(CLOUD_NODE)
        for node in self.nodes:
            yield self._program(
                f"lc-{node}", *python, "nereid_edge", "--node", node, "--state", str(self.node_state(node) / "lc"),
                "--cloud-broker", f"mqtt://127.0.0.1:{self.ports.links[node]}",
                "--edge-broker", self.edge_broker(node), "--status-interval", "1s",
                "--heartbeat", LC_HEARTBEAT, "--keepalive", KEEPALIVE,
            )  # fmt: skip
            yield self._podrunner(node)

    def _podrunner(self, node: str) -> Program:
        argv = [
            sys.executable, "-m", "nereid_cloud.laptop.podrunner", "--node", node, "--state", str(self.state),
            "--host-root", f"{HOST_ROOT}={self.node_state(node)}", "--backoff", RESTART_BACKOFF_S,
            "--heartbeat", HEARTBEAT_S,
        ]  # fmt: skip
        if node != CLOUD_NODE:
            argv += [
                "--labels",
                f"{EDGE_LABEL}=",
                "--annotations",
                f"{EDGE_BROKER_ANNOTATION}={self.edge_broker(node)}",
            ]
        return self._program(f"podrunner-{node}", *argv, stop_s=20.0)

    def _program(self, name: str, *argv: str, stop_s: float = 10.0) -> Program:
        kept = ("HOME", "LANG", "LC_ALL", "PATH", "TZ")
        env = {key: os.environ[key] for key in kept if key in os.environ}
        return Program(name=name, argv=argv, env=env, log=self.logs / f"{name}.log", stop_s=stop_s)

    def save(self) -> None:
        """Write down nodes and ports, for the commands that look at a running system."""
        body = {
            "nodes": self.nodes,
            "cloud": self.ports.cloud,
            "brokers": self.ports.brokers,
            "links": self.ports.links,
        }
        (self.state / "system.json").write_text(json.dumps(body, indent=1) + "\n")

    @classmethod
    def load(cls, state: Path) -> "System":
        """Return the system that was last started on a state folder.

        Raises:
            UserError: there is none.
        """
        try:
            body = json.loads((state / "system.json").read_text())
        except (OSError, ValueError) as error:
            raise UserError("no system was started there", where=str(state), mend="Start one: nereid up") from error
        ports = Ports(cloud=body["cloud"], brokers=body["brokers"], links=body["links"])
        return cls(state=state, nodes=body["nodes"], ports=ports)


def _mosquitto() -> str | None:
    # Debian puts it into /usr/sbin, which is not in every user's PATH.
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
