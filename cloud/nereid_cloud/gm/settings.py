# SPDX-License-Identifier: Apache-2.0
"""The GlobalManager's settings, read once from the command line."""

import argparse
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Self, get_args

from nereid_cloud.gm.leader import LeaseSettings
from nereid_cloud.gm.names import DEFAULT_EDGE_BROKER
from nereid_cloud.gm.policy import ANY, Policy, Runtime, ServiceType, read_runtimes
from nereid_cloud.gm.settling import SETTLE_S
from nereid_shared.errors import UserError
from nereid_shared.health import address_of
from nereid_shared.link import LinkSettings, TlsFiles
from nereid_shared.quantities import duration_s

METRICS_INTERVAL_CLUSTER = "10s"
METRICS_INTERVAL_LAPTOP = "1s"
LEASE_CLUSTER_S = 15.0
LEASE_LAPTOP_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All of them.

    Attributes:
        state: state folder of a LocalCluster; None on a real cluster.
        kubeconfig: a real cluster's; None where the Pod's own credentials are meant.
        link: the cloud broker.
        workers_broker: the cloud broker's URL as cloud workers reach it.
        lease: the leader's Lease.
        metrics_interval_s: seconds between two writes of a service's counters, at least.
        node_timeout_s: silence after which a LocalController counts as offline: three of its heartbeats.
        delete_timeout_s: how long a deletion waits for a node that is there and does not answer.
        settle_s: patience with nodes' first words after a start.
        policy: what workers may be.
        confined: whether nothing of other namespaces than the policy's is read.
        health: where probes are answered, if anywhere.
        json_logs: one JSON object a line instead of text.
    """

    state: Path | None
    kubeconfig: Path | None
    link: LinkSettings
    workers_broker: str
    lease: LeaseSettings
    metrics_interval_s: float
    node_timeout_s: float = 90.0
    delete_timeout_s: float = 30.0
    settle_s: float = SETTLE_S
    policy: Policy = field(default_factory=Policy)
    confined: bool = False
    health: tuple[str, int] | None = None
    json_logs: bool = False

    @classmethod
    def from_args(cls, arguments: Sequence[str]) -> Self:
        """Parse a command line; a wrong one ends the process with usage on standard error.

        Raises:
            UserError: the broker's URL or a file is wrong, or confined to no namespace.
        """
        args = _parser().parse_args(arguments)
        if args.confined and not args.namespace:
            raise UserError("to which namespaces?", where="--confined", mend="Name each with --namespace")
        identity = args.identity or f"{socket.gethostname()}-{secrets.token_hex(4)}"
        tls = None
        if args.ca or args.cert or args.key:
            tls = TlsFiles(ca=args.ca, cert=args.cert, key=args.key)
        interval = METRICS_INTERVAL_LAPTOP if args.state else METRICS_INTERVAL_CLUSTER
        lease_s = LEASE_LAPTOP_S if args.state else LEASE_CLUSTER_S
        return cls(
            state=args.state,
            kubeconfig=args.kubeconfig,
            link=LinkSettings.from_url(
                args.broker, client_id=f"nereid-gm-{identity}", tls=tls, keepalive_s=max(1, round(args.keepalive))
            ),
            workers_broker=args.workers_broker or args.broker,
            lease=LeaseSettings(
                identity=identity, namespace=args.lease_namespace, lease_s=args.lease_seconds or lease_s
            ),
            metrics_interval_s=duration_s(interval) if args.metrics_interval is None else args.metrics_interval,
            node_timeout_s=args.node_timeout,
            delete_timeout_s=args.delete_timeout,
            policy=_policy(args),
            confined=args.confined,
            health=address_of(args.health) if args.health else None,
            json_logs=args.log_format == "json",
        )


def _policy(args: argparse.Namespace) -> Policy:
    image = args.worker_image or f"nereid-worker:{version('nereid-ai')}"
    return Policy(
        runtimes=read_runtimes(args.runtimes) if args.runtimes else {ANY: Runtime(image=image)},
        host_roots=tuple(args.host_root),
        namespaces=frozenset(args.namespace),
        edge_broker=args.edge_broker,
        worker_tls_secret=args.worker_tls_secret,
        probes=args.state is None,
        edge_keepalive_s=max(1, round(args.edge_keepalive)) if args.edge_keepalive else None,
        log_format=args.log_format,
        # On a laptop Pods have the machine's own addresses, and what they serve is not for its network.
        listen="127.0.0.1" if args.state else "",
        service_type=args.service_type,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m nereid_cloud.gm", description="The GlobalManager.")
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--state", type=Path, help="state folder of a local cluster")
    place.add_argument("--kubeconfig", type=Path, help="kubeconfig of a real cluster")
    place.add_argument("--in-cluster", action="store_true", help="the cluster that this Pod runs in")
    parser.add_argument("--broker", required=True, help="cloud broker, mqtt://host:port or mqtts://host:port")
    parser.add_argument("--workers-broker", default="", help="the same broker as cloud workers reach it")
    for name, text in (("ca", "CA of the broker"), ("cert", "our certificate"), ("key", "its key")):
        parser.add_argument(f"--{name}", type=Path, help=f"{text}, PEM")
    parser.add_argument("--metrics-interval", type=_seconds, help="between writes of counters, such as 1s")
    parser.add_argument("--node-timeout", type=_seconds, default=90.0, help="silence after which a node is offline")
    parser.add_argument("--delete-timeout", type=_seconds, default=30.0, help="how long a deletion waits for a node")
    parser.add_argument("--keepalive", type=_seconds, default=20.0, help="silence after which the broker is asked")
    parser.add_argument("--edge-keepalive", type=_seconds, help="the same between edge workers and their broker")
    parser.add_argument("--lease-seconds", type=float, help="after which a silent leader is replaced")
    parser.add_argument("--lease-namespace", default="default", help="namespace of the Lease")
    parser.add_argument("--identity", default="", help="name in the Lease; must never run twice")
    parser.add_argument("--worker-image", default="", help="image of workers that name none")
    parser.add_argument("--runtimes", type=Path, help="YAML table of images and resources by framework, instead")
    parser.add_argument(
        "--host-root",
        action="append",
        default=[],
        type=PurePosixPath,
        help="users' folders on nodes must be below it; may be repeated; without one they may be anywhere",
    )
    parser.add_argument(
        "--namespace", action="append", default=[], help="serve services of this one; may be repeated; else of all"
    )
    parser.add_argument(
        "--confined",
        action="store_true",
        help="read nothing outside those namespaces, Nodes apart; who applies a service elsewhere is not told",
    )
    parser.add_argument("--edge-broker", default=DEFAULT_EDGE_BROKER, help="a node's own broker as its Pods reach it")
    parser.add_argument(
        "--worker-tls-secret", default="", help="Secret with the cloud workers' certificate, in their namespace"
    )
    parser.add_argument(
        "--service-type",
        choices=get_args(ServiceType),
        default="NodePort",
        help="how models in the cloud are exposed; ClusterIP within the cluster only",
    )
    parser.add_argument("--health", default="", help="host:port where /livez and /readyz are answered")
    parser.add_argument("--log-format", choices=("text", "json"), default="text")
    return parser


def _seconds(text: str) -> float:
    try:
        return duration_s(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
