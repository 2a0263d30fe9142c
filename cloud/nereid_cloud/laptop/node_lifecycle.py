# SPDX-License-Identifier: Apache-2.0
"""Marks nodes that no longer renew their Lease, and clears away Pods of nodes that are gone."""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from nereid_cloud.cluster import kinds
from nereid_cloud.cluster.kinds import ref_of
from nereid_cloud.cluster.port import Cluster, Object
from nereid_shared.errors import Conflict, NotFound
from nereid_shared.times import rfc3339

LEASES: Final = "kube-node-lease"
_MISSED_RENEWALS: Final = 3
_ORPHANED_S: Final = 40.0  # Kubernetes' own quarantine: a node may only be registering anew

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sign:
    """A node's last sign of life, by our own clock: a node's clock proves nothing."""

    renewed: str
    at: float
    interval_s: float = 0.0


class NodeLifecycle:
    """Watches over the nodes' Leases."""

    def __init__(self, cluster: Cluster, *, grace_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with every node alive.

        Args:
            cluster: where the nodes are.
            grace_s: the silence after which a node is not ready; three of its own intervals where that is longer.
            clock: seconds that only grow.
        """
        self._cluster, self._grace_s, self._clock = cluster, grace_s, clock
        self._signs: dict[str, _Sign] = {}
        self._orphaned: dict[str, float] = {}

    def reconcile(self) -> None:
        """Look at all Leases, nodes and Pods once."""
        leases = {obj["metadata"]["name"]: obj for obj in self._cluster.list(kinds.LEASE, namespace=LEASES).items}
        nodes = self._cluster.list(kinds.NODE).items
        for node in nodes:
            self._observe(node, leases.get(node["metadata"]["name"], {}))
        names = {node["metadata"]["name"] for node in nodes}
        self._signs = {name: sign for name, sign in self._signs.items() if name in names}
        self._clear(names)

    def _observe(self, node: Object, lease: Object) -> None:
        name, at = node["metadata"]["name"], self._clock()
        renewed = str((lease.get("spec") or {}).get("renewTime", ""))
        sign = self._signs.get(name)
        if sign is None or sign.renewed != renewed:
            # Bounded, so that a node that was away for an hour is not given three more.
            interval_s = 0.0 if sign is None else min(at - sign.at, self._grace_s)
            self._signs[name] = _Sign(renewed=renewed, at=at, interval_s=interval_s)
        elif at - sign.at > max(self._grace_s, _MISSED_RENEWALS * sign.interval_s):
            self._mark(node)

    def _mark(self, node: Object) -> None:
        conditions = (node.get("status") or {}).get("conditions") or []
        ready: Object = next((item for item in conditions if item["type"] == "Ready"), {})
        if ready.get("status") != "True":
            # Whoever said False knew more than that nothing is heard.
            return
        said = {
            "type": "Ready",
            "status": "Unknown",
            "reason": "NodeStatusUnknown",
            "message": "Kubelet stopped posting node status.",
            "lastHeartbeatTime": ready.get("lastHeartbeatTime"),
            "lastTransitionTime": rfc3339(),
        }
        patch = {
            "metadata": {"resourceVersion": node["metadata"]["resourceVersion"]},
            "status": {"conditions": [said if item is ready else item for item in conditions]},
        }
        try:
            self._cluster.patch(ref_of(node), patch, subresource="status")
            logger.info("node not ready", extra={"node": node["metadata"]["name"]})
        except (Conflict, NotFound):
            logger.debug("node changed meanwhile", extra={"node": node["metadata"]["name"]})

    def _clear(self, nodes: Iterable[str]) -> None:
        """Delete the Pods of nodes that have been gone for a while: nobody else would end them."""
        at = self._clock()
        lost = [
            pod for pod in self._cluster.list(kinds.POD).items if pod["spec"].get("nodeName", "") not in {"", *nodes}
        ]
        self._orphaned = {pod["metadata"]["uid"]: self._orphaned.get(pod["metadata"]["uid"], at) for pod in lost}
        for pod in lost:
            if at - self._orphaned[pod["metadata"]["uid"]] > _ORPHANED_S:
                try:
                    self._cluster.delete(ref_of(pod), uid=pod["metadata"]["uid"], grace_s=0)
                    logger.info("pod of an absent node deleted", extra={"pod": pod["metadata"]["name"]})
                except (Conflict, NotFound):
                    logger.debug("pod was gone", extra={"pod": pod["metadata"]["name"]})
