# SPDX-License-Identifier: Apache-2.0
"""The LocalController's settings, read once from the command line."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self

from nereid_shared.errors import UserError
from nereid_shared.health import address_of
from nereid_shared.link_settings import LinkSettings, TlsFiles
from nereid_shared.quantities import duration_s, size_bytes
from nereid_shared.topics import node_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one LocalController needs to know.

    Attributes:
        node: the Kubernetes node's name.
        state: folder for the desired state and the outbox; it belongs to this node alone.
        cloud, edge: the two brokers.
        status_interval_s: rhythm in which counts that changed go to the GlobalManager; other changes go at once.
        heartbeat_s: rhythm of `state`, and of each task's status, without change.
        accepted_clusters: clusters whose documents may prune what another cluster's left.
        json_logs: one JSON object a line instead of text.
        health: where probes are answered, if anywhere.
        cache: folder for what is fetched for the workers, who find it under the same path; None: beside `state`.
        cache_max_bytes: what that may take, but for what tasks need.
    """

    node: str
    state: Path
    cloud: LinkSettings
    edge: LinkSettings
    status_interval_s: float = 10.0
    heartbeat_s: float = 30.0
    accepted_clusters: frozenset[str] = frozenset()
    json_logs: bool = False
    health: tuple[str, int] | None = None
    cache: Path | None = None
    cache_max_bytes: int = 10 * 2**30

    @property
    def cache_folder(self) -> Path:
        """Where what is fetched lies."""
        return self.state.parent / "cache" if self.cache is None else self.cache

    @property
    def edge_is_unprotected(self) -> bool:
        """Whether what workers say and cameras see crosses a network that anybody may listen to."""
        if self.edge.tls is not None or self.edge.host == "localhost":
            return False
        try:
            return not ip_address(self.edge.host).is_loopback
        except ValueError:
            return True

    @classmethod
    def from_args(cls, argv: Sequence[str]) -> Self:
        """Read the command line.

        Raises:
            UserError: a value has no sense; argparse itself ends the process with 2 on an unknown option.
        """
        given = _parser().parse_args(argv)
        try:
            node = node_name(given.node)
        except ValueError as error:
            raise UserError(str(error), where="--node") from error
        tls = TlsFiles(ca=given.tls_ca, cert=given.tls_cert, key=given.tls_key) if given.tls_ca else None
        link: dict[str, Any] = {
            "client_id": f"nereid-lc-{node}",
            # MQTT counts whole seconds, and takes 0 for none.
            "keepalive_s": max(1, round(_seconds(given.keepalive, "--keepalive"))),
            # A sample of 20 kB over 40 ms of round trip: 20 in flight would cap the link at 340 a second.
            "max_inflight": 100,
        }
        return cls(
            node=node,
            state=given.state,
            cloud=LinkSettings.from_url(given.cloud_broker, tls=tls, **link),
            edge=LinkSettings.from_url(given.edge_broker, **link),
            status_interval_s=_seconds(given.status_interval, "--status-interval"),
            heartbeat_s=_seconds(given.heartbeat, "--heartbeat"),
            accepted_clusters=frozenset(given.accept_cluster),
            json_logs=given.log_format == "json",
            health=address_of(given.health) if given.health else None,
            cache=given.cache,
            cache_max_bytes=_bytes(given.cache_size, "--cache-size"),
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nereid_edge", description="The LocalController of one edge node.")
    parser.add_argument("--node", required=True, help="the Kubernetes node's name")
    parser.add_argument("--state", required=True, type=Path, help="folder for the desired state and the outbox")
    parser.add_argument("--cloud-broker", required=True, metavar="URL", help="mqtt://host:port or mqtts://host:port")
    parser.add_argument("--edge-broker", default="mqtt://127.0.0.1:1883", metavar="URL", help="this node's own broker")
    parser.add_argument(
        "--status-interval", default="10s", metavar="DURATION", help="rhythm of counts that change (10s)"
    )
    parser.add_argument("--heartbeat", default="30s", metavar="DURATION", help="rhythm of what does not change (30s)")
    parser.add_argument(
        "--keepalive", default="20s", metavar="DURATION", help="silence after which a broker is asked for a sign (20s)"
    )
    parser.add_argument(
        "--accept-cluster", action="append", default=[], metavar="ID", help="let this cluster prune another one's tasks"
    )
    parser.add_argument("--tls-ca", type=Path, metavar="FILE", help="CA of the cloud broker (mqtts)")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="this node's certificate")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="the certificate's key")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="folder for fetched models (cache, beside --state)")
    parser.add_argument(
        "--cache-size", default="10Gi", metavar="SIZE", help="what it may take, but for what tasks need (10Gi)"
    )
    parser.add_argument("--log-format", choices=("text", "json"), default="text")
    parser.add_argument("--health", default="", metavar="HOST:PORT", help="where /livez and /readyz are answered")
    return parser


def _bytes(text: str, where: str) -> int:
    try:
        return size_bytes(text)
    except ValueError as error:
        raise UserError(str(error), where=where, mend="Write a size such as 10Gi") from error


def _seconds(text: str, where: str) -> float:
    try:
        seconds = duration_s(text)
    except ValueError as error:
        raise UserError(str(error), where=where, mend="Write a duration such as 1s") from error
    if seconds <= 0:
        raise UserError("must be above zero", where=where, mend="Write a duration such as 1s")
    return seconds
