# SPDX-License-Identifier: Apache-2.0
"""Objects that the commands are shown."""

from typing import Any

from tests.shared.resources.cases import SERVICE, Object

from nereid_cloud.cluster import kinds
from nereid_cloud.cluster.local import LocalCluster
from nereid_cloud.cluster.port import Ref

SERVICE_REF = Ref(kind=kinds.JOINT_INFERENCE_SERVICE, name="digits", namespace="default")


def condition(kind: str, status: str, reason: str = "", **more: Any) -> Object:
    return {"type": kind, "status": status, "reason": reason, "lastTransitionTime": "2026-01-01T00:00:00Z", **more}


def service(cluster: LocalCluster, *conditions: Object, **status: Any) -> Object:
    """Make the service, with its status."""
    cluster.create(SERVICE)
    return cluster.patch(SERVICE_REF, {"status": {"conditions": list(conditions), **status}}, subresource="status")


def pod(cluster: LocalCluster, name: str, **metadata: Any) -> Object:
    """Make a Pod that runs."""
    made = cluster.create(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", **metadata},
            "spec": {"nodeName": "edge-0", "containers": [{"name": "worker", "image": "nereid"}]},
        }
    )
    running = {"name": "worker", "ready": True, "restartCount": 2, "state": {"running": {}}}
    ref = Ref(kind=kinds.POD, name=name, namespace="default")
    cluster.patch(ref, {"status": {"phase": "Running", "containerStatuses": [running]}}, subresource="status")
    return made


def event(cluster: LocalCluster, name: str, about: Object, **more: Any) -> Object:
    """Make an Event about an object."""
    return cluster.create({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": "default"},
        "involvedObject": {
            "kind": about["kind"], "name": about["metadata"]["name"], "uid": about["metadata"]["uid"],
        },
        "type": "Normal", "count": 1, "source": {"component": "nereid-gm"},
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:00Z",
        **more,
    })  # fmt: skip
