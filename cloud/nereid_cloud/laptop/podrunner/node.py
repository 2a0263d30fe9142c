# SPDX-License-Identifier: Apache-2.0
"""The node's own object and its Lease: registered, renewed, and marked NotReady at the end."""

import asyncio
import logging
import os
import platform
import time
from pathlib import Path
from typing import Any

from nereid_cloud.cluster.kinds import LEASE, NODE
from nereid_cloud.cluster.port import Cluster, Object, Ref
from nereid_cloud.cluster.readiness import is_ready
from nereid_cloud.laptop.podrunner.settings import Settings
from nereid_shared.errors import AlreadyExists, NereidError, NotFound
from nereid_shared.times import rfc3339, rfc3339_micros

_LEASES = "kube-node-lease"
# The kubelet's own.
_LEASE_DURATION_S = 40
# A status that says nothing new is written this often.
_STATUS_S = 60.0
_MAX_PODS = 110
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}

logger = logging.getLogger(__name__)


class NodeAgent:
    """Keeps one Node object true."""

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self._cluster, self._settings = cluster, settings
        self._ref = Ref(kind=NODE, name=settings.node)
        self._lease = Ref(kind=LEASE, name=settings.node, namespace=_LEASES)
        self._written_at = float("-inf")

    async def run(self) -> None:
        """Register the node, and renew it for ever."""
        while True:
            try:
                await asyncio.to_thread(self._renew)
            except NereidError as error:
                logger.warning("node not renewed", extra={"problem": str(error)})
            await asyncio.sleep(self._settings.heartbeat_s)

    async def stop(self) -> None:
        """Mark the node NotReady."""
        try:
            await asyncio.to_thread(self._write_status, ready=False)
        except NereidError as error:
            logger.warning("node not marked NotReady", extra={"problem": str(error)})

    def _renew(self) -> None:
        try:
            node = self._cluster.get(self._ref)
        except NotFound:
            node = self._register()
        self._label(node)
        if not is_ready(node) or time.monotonic() - self._written_at >= _STATUS_S:
            self._write_status(ready=True)
        self._renew_lease(node)

    def _register(self) -> Object:
        logger.info("node registered", extra={"node": self._settings.node})
        return self._cluster.create(
            {"apiVersion": "v1", "kind": "Node", "metadata": {"name": self._settings.node, **self._metadata()}}
        )

    def _metadata(self) -> dict[str, dict[str, str]]:
        labels = {
            "kubernetes.io/hostname": self._settings.node,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": _architecture(),
            **self._settings.labels,
        }
        return {"labels": labels, "annotations": dict(self._settings.annotations)}

    def _label(self, node: Object) -> None:
        wanted = self._metadata()
        metadata = node["metadata"]
        if any(
            (metadata.get(field) or {}).get(key) != value for field in wanted for key, value in wanted[field].items()
        ):
            self._cluster.patch(self._ref, {"metadata": wanted})

    def _write_status(self, *, ready: bool) -> None:
        node = self._cluster.get(self._ref)
        self._cluster.patch(self._ref, {"status": self._status(node, ready=ready)}, subresource="status")
        self._written_at = time.monotonic()

    def _status(self, node: Object, *, ready: bool) -> dict[str, Any]:
        now = rfc3339()
        before = {condition["type"]: condition for condition in node.get("status", {}).get("conditions", ())}
        status = "True" if ready else "False"
        old = before.get("Ready", {})
        before["Ready"] = {
            "type": "Ready",
            "status": status,
            "reason": "PodRunnerReady" if ready else "PodRunnerStopped",
            "message": "the PodRunner runs Pods" if ready else "the PodRunner was stopped",
            "lastHeartbeatTime": now,
            "lastTransitionTime": old["lastTransitionTime"] if old.get("status") == status else now,
        }
        resources = {"cpu": str(os.cpu_count() or 1), "memory": str(_memory_bytes()), "pods": str(_MAX_PODS)}
        return {
            "conditions": list(before.values()),
            "addresses": [
                {"type": "InternalIP", "address": self._settings.address},
                {"type": "Hostname", "address": self._settings.node},
            ],
            "capacity": resources,
            "allocatable": resources,
            "nodeInfo": _node_info(),
        }

    def _renew_lease(self, node: Object) -> None:
        now = rfc3339_micros()
        spec = {"holderIdentity": self._settings.node, "leaseDurationSeconds": _LEASE_DURATION_S, "renewTime": now}
        try:
            self._cluster.patch(self._lease, {"spec": spec})
        except NotFound:
            owner = {"apiVersion": "v1", "kind": "Node", "name": self._settings.node, "uid": node["metadata"]["uid"]}
            metadata = {"name": self._settings.node, "namespace": _LEASES, "ownerReferences": [owner]}
            try:
                self._cluster.create(
                    {"apiVersion": LEASE.api_version, "kind": "Lease", "metadata": metadata, "spec": spec}
                )
            except AlreadyExists:
                logger.info("lease made by another", extra={"node": self._settings.node})


def _architecture() -> str:
    return _MACHINES.get(platform.machine(), platform.machine())


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _node_info() -> dict[str, str]:
    return {
        "architecture": _architecture(),
        "bootID": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "containerRuntimeVersion": f"process://python-{platform.python_version()}",
        "kernelVersion": platform.release(),
        "kubeProxyVersion": "",
        "kubeletVersion": "podrunner",
        "machineID": "",
        "operatingSystem": "linux",
        "osImage": platform.platform(),
        "systemUUID": "",
    }
