# SPDX-License-Identifier: Apache-2.0
"""What of an object others have to look at again when it changes; no I/O."""

from nereid_cloud.cluster.port import Object
from nereid_cloud.cluster.readiness import condition_of


def content(obj: Object | None) -> object:
    """Return what others read of an object: not its status."""
    if obj is None:
        return None
    return obj["metadata"].get("uid"), obj["metadata"].get("generation"), obj["metadata"].get("labels"), obj.get("spec")


def wish(obj: Object | None) -> object:
    """Return what a user says of an object, its deletion included."""
    return content(obj), (obj or {}).get("metadata", {}).get("deletionTimestamp")


def node_facts(obj: Object | None) -> object:
    """Return what matters of a Node: its heartbeats do not."""
    if obj is None:
        return None
    metadata = obj["metadata"]
    ready = condition_of(obj, "Ready").get("status")
    return metadata.get("uid"), metadata.get("labels"), metadata.get("annotations"), ready
