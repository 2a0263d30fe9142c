# SPDX-License-Identifier: Apache-2.0
"""What a Pod and its worker agree on: names of environment variables, and the folder that is Nereid's on each node."""

from typing import Final

HOST_ROOT: Final = "/var/lib/nereid"
"""On every node: the LocalController's state, the workers', and what users put there for them."""
CACHE: Final = f"{HOST_ROOT}/cache"
"""On every node: what the LocalController has fetched for the node's workers, which see it under the same path."""

ROLE: Final = "NEREID_ROLE"
WORKER: Final = "NEREID_WORKER"
NODE: Final = "NEREID_NODE"
SERVICE: Final = "NEREID_SERVICE"
BROKER: Final = "NEREID_BROKER"
STATE: Final = "NEREID_STATE"
TASK: Final = "NEREID_TASK"
PORT: Final = "NEREID_PORT"
LISTEN: Final = "NEREID_LISTEN"
MODELS: Final = "NEREID_MODELS"
SCRIPT_DIR: Final = "NEREID_SCRIPT_DIR"
CERTS: Final = "NEREID_CERTS"
HEALTH: Final = "NEREID_HEALTH"
KEEPALIVE: Final = "NEREID_KEEPALIVE"
LOG_FORMAT: Final = "NEREID_LOG_FORMAT"
INFO_INTERVAL: Final = "NEREID_INFO_INTERVAL"
