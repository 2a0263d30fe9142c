# SPDX-License-Identifier: Apache-2.0
"""Binds Pods without a node to the ready node that their selector and affinity allow and that has the fewest."""

import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any

from nereid_cloud.cluster import kinds
from nereid_cloud.cluster.kinds import ref_of
from nereid_cloud.cluster.port import Cluster, Object
from nereid_cloud.cluster.readiness import is_ready
from nereid_cloud.laptop.deployments import phase_of
from nereid_shared.errors import Conflict, NotFound
from nereid_shared.times import rfc3339

logger = logging.getLogger(__name__)


def schedule(cluster: Cluster) -> None:
    """Bind every Pod that waits for a node, or say in its condition ``PodScheduled`` why none takes it."""
    pods = cluster.list(kinds.POD).items
    waiting = [pod for pod in pods if not pod["spec"].get("nodeName") and "deletionTimestamp" not in pod["metadata"]]
    if not waiting:
        return
    nodes = cluster.list(kinds.NODE).items
    busy = Counter(pod["spec"]["nodeName"] for pod in pods if pod["spec"].get("nodeName"))
    for pod in waiting:
        willing = [node["metadata"]["name"] for node in nodes if _why_not(pod, node) is None]
        try:
            if willing:
                chosen = min(willing, key=lambda name: (busy[name], name))
                busy[chosen] += 1
                _bind(cluster, pod, chosen)
            else:
                _refuse(cluster, pod, nodes)
        except (Conflict, NotFound):
            logger.debug("pod changed while it was scheduled", extra={"pod": pod["metadata"]["name"]})


def _why_not(pod: Object, node: Object) -> str | None:
    """Return why a node cannot take a Pod, in the scheduler's words."""
    labels = {"kubernetes.io/hostname": node["metadata"]["name"], **(node["metadata"].get("labels") or {})}
    selector = pod["spec"].get("nodeSelector") or {}
    if any(labels.get(key) != value for key, value in selector.items()) or not _fits(pod["spec"], labels):
        return "didn't match Pod's node affinity/selector"
    if (node.get("spec") or {}).get("unschedulable"):
        return "were unschedulable"
    return None if is_ready(node) else "were not ready"


def _fits(spec: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether labels meet one of the terms of a Pod's required node affinity, if it has any."""
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    affinity = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(required) or {}
    terms = affinity.get("nodeSelectorTerms") or ()
    return not terms or any(all(_meets(labels, one) for one in term.get("matchExpressions") or ()) for term in terms)


def _meets(labels: Mapping[str, str], wanted: Mapping[str, Any]) -> bool:
    key, operator, values = wanted["key"], wanted["operator"], wanted.get("values") or ()
    there = key in labels
    if operator in {"Exists", "DoesNotExist"}:
        return there is (operator == "Exists")
    return (there and labels[key] in values) is (operator == "In")


def _bind(cluster: Cluster, pod: Object, node: str) -> None:
    version = {"resourceVersion": pod["metadata"]["resourceVersion"]}
    bound = cluster.patch(ref_of(pod), {"metadata": version, "spec": {"nodeName": node}})
    _set_condition(cluster, bound, {"type": "PodScheduled", "status": "True"})
    logger.info("pod bound", extra={"pod": pod["metadata"]["name"], "node": node})


def _refuse(cluster: Cluster, pod: Object, nodes: list[Object]) -> None:
    reasons = Counter(_why_not(pod, node) for node in nodes)
    told = ", ".join(f"{count} node(s) {reason}" for reason, count in sorted(reasons.items(), key=str))
    message = f"0/{len(nodes)} nodes are available: {told}." if nodes else "no nodes available to schedule pods"
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    _set_condition(cluster, pod, condition)


def _set_condition(cluster: Cluster, pod: Object, said: dict[str, Any]) -> None:
    if phase_of(pod) != "Pending":
        return
    others = [item for item in pod["status"].get("conditions") or () if item["type"] != said["type"]]
    old: Object = next((item for item in pod["status"].get("conditions") or () if item["type"] == said["type"]), {})
    if {key: value for key, value in old.items() if key != "lastTransitionTime"} == said:
        return
    at = old["lastTransitionTime"] if old.get("status") == said["status"] else rfc3339()
    patch = {
        "metadata": {"resourceVersion": pod["metadata"]["resourceVersion"]},
        "status": {"conditions": [*others, {**said, "lastTransitionTime": at}]},
    }
    cluster.patch(ref_of(pod), patch, subresource="status")
