# SPDX-License-Identifier: Apache-2.0
"""``python -m nereid_cloud.laptop.controllers --state DIR``: what Kubernetes' control plane does, for a LocalCluster.

Deployments get their Pods, Pods their node, silent nodes are marked, and deleted services leave no folders behind. The
rest is done by the LocalCluster in the transaction that causes it.
"""

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nereid_cloud.cluster import kinds
from nereid_cloud.cluster.local import DATABASE, LocalCluster
from nereid_cloud.cluster.port import Cluster, Ref
from nereid_cloud.laptop.deployments import DeploymentController
from nereid_cloud.laptop.leftovers import OWNERS, Leftovers
from nereid_cloud.laptop.node_lifecycle import NodeLifecycle
from nereid_cloud.laptop.reconciling import reconcile_on_changes
from nereid_cloud.laptop.scheduling import schedule
from nereid_shared import logs
from nereid_shared.errors import UserError
from nereid_shared.times import rfc3339_micros

LEASE: Final = Ref(kind=kinds.LEASE, namespace="kube-system", name="nereid-controllers")
"""Says when the controllers started last, and by its existence that they run on this cluster."""

NODE_GRACE_S: Final = 5.0  # a cluster's 40 s would outlast a demonstration

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the controllers are told.

    Attributes:
        state: the state folder; the cluster's file is in it.
        node_grace_s: the silence after which a node is not ready.
        log_json: whether the log is JSON.
    """

    state: Path
    node_grace_s: float = NODE_GRACE_S
    log_json: bool = False


def run(
    cluster: Cluster, stop: threading.Event, *, state: Path | None = None, node_grace_s: float = NODE_GRACE_S
) -> None:
    """Carry out Deployments, bind Pods, watch over nodes, and clear up after services until `stop` is set.

    Args:
        cluster: where the objects are.
        stop: ends it.
        state: the folder that has the nodes' folders; None where there are none to clear up.
        node_grace_s: the silence after which a node is not ready.
    """
    leftovers = None if state is None else Leftovers(cluster, state=state)
    deployments, nodes = DeploymentController(cluster), NodeLifecycle(cluster, grace_s=node_grace_s)

    def reconcile() -> None:
        nodes.reconcile()
        deployments.reconcile()
        schedule(cluster)
        if leftovers is not None:
            leftovers.reconcile()

    _sign(cluster)
    watched = (kinds.DEPLOYMENT, kinds.POD, kinds.NODE, *OWNERS)
    reconcile_on_changes(cluster, watched, reconcile, stop=stop, every_s=min(1.0, node_grace_s / 4))


def _sign(cluster: Cluster) -> None:
    now = rfc3339_micros()
    lease = {
        "apiVersion": LEASE.kind.api_version,
        "kind": LEASE.kind.kind,
        "metadata": {"name": LEASE.name, "namespace": LEASE.namespace},
        "spec": {"holderIdentity": str(os.getpid()), "acquireTime": now, "renewTime": now},
    }
    cluster.apply(lease, manager=LEASE.name)


def main(arguments: Sequence[str]) -> int:
    """Run until SIGTERM or SIGINT; return the exit code."""
    settings = _settings(arguments)
    logs.configure(json=settings.log_json)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        with closing(LocalCluster(settings.state / DATABASE)) as cluster:
            logger.info("controllers started", extra={"state": str(settings.state)})
            run(cluster, stop, state=settings.state, node_grace_s=settings.node_grace_s)
    except UserError as error:
        print(f"controllers: {error}", file=sys.stderr)  # noqa: T201 - what a user sees
        return 2
    logger.info("controllers stopped")
    return 0


def _settings(arguments: Sequence[str]) -> Settings:
    parser = argparse.ArgumentParser(prog="python -m nereid_cloud.laptop.controllers", description=__doc__)
    add = parser.add_argument
    add("--state", required=True, type=Path, metavar="DIR", help="the state folder")
    add("--node-grace", type=float, default=NODE_GRACE_S, metavar="S", help="silence of a node (default: %(default)s)")
    add("--log-json", action="store_true", help="write JSON lines")
    options = parser.parse_args(arguments)
    return Settings(state=options.state, node_grace_s=options.node_grace, log_json=options.log_json)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
