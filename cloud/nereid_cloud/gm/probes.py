# SPDX-License-Identifier: Apache-2.0
"""How a kubelet asks the workers of a service how they are; no I/O.

Alive is whose event loop turns, with or without a broker, a task or a model. Ready is who has all of these, so that a
Deployment takes no worker away before another can answer.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from nereid_cloud.gm.policy import Policy
from nereid_shared import environment

PORT: Final = 9471


def edge_health(identity: str, node: str) -> str:
    """Return the loopback address of a worker: on a node all have the node's own network, and the port is one.

    Linux takes all of 127/8 for itself.
    """
    high, middle, low = hashlib.sha256(f"{identity}/{node}".encode()).digest()[:3]
    return f"127.{64 + high % 128}.{middle}.{1 + low % 254}"


def values(policy: Policy, host: str = "") -> dict[str, str]:
    """Return what tells a worker where it is probed: at `host`, or at all that its Pod has."""
    return {environment.HEALTH: f"{host}:{PORT}"} if policy.probes else {}


def probes(policy: Policy, host: str = "") -> Mapping[str, Any]:
    """Return a container's probes."""
    if not policy.probes:
        return {}

    def get(path: str) -> dict[str, Any]:
        where = {"host": host} if host else {}
        return {"httpGet": {"path": path, "port": PORT, **where}}

    return {
        # A small machine's imports, and the end of a former process that has the state folder still.
        "startupProbe": {**get("/livez"), "periodSeconds": 2, "timeoutSeconds": 5, "failureThreshold": 150},
        # Two minutes: a model that is being loaded may hold up every thread of Python for a while.
        "livenessProbe": {**get("/livez"), "periodSeconds": 20, "timeoutSeconds": 10, "failureThreshold": 6},
        "readinessProbe": {**get("/readyz"), "periodSeconds": 5, "timeoutSeconds": 5},
    }
