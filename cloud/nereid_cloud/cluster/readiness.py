# SPDX-License-Identifier: Apache-2.0
"""What an object says of itself in its status's conditions: Nodes, Pods and our own kinds alike; no I/O."""

from typing import Any

from nereid_cloud.cluster.port import Object


def condition_of(obj: Object | None, type_: str) -> dict[str, Any]:
    """Return one condition, empty where the object, or the condition, is not there."""
    conditions = ((obj or {}).get("status") or {}).get("conditions") or ()
    return next((condition for condition in conditions if condition.get("type") == type_), {})


def is_ready(obj: Object | None) -> bool:
    """Whether an object is there and Ready by its own condition; Unknown is not Ready."""
    return bool(condition_of(obj, "Ready").get("status") == "True")
