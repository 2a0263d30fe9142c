# SPDX-License-Identifier: Apache-2.0
"""The names that the GlobalManager leaves on objects, and reads from them."""

from typing import Final

MANAGER: Final = "nereid-gm"
FINALIZER: Final = "nereid.io/tasks"

EDGE_BROKER_ANNOTATION: Final = "nereid.io/edge-broker"
EPOCH_ANNOTATION: Final = "nereid.io/epoch"
RETIRED_ANNOTATION: Final = "nereid.io/retired-ledger"

SERVICE_LABEL: Final = "nereid.io/service-uid"
ROLE_LABEL: Final = "nereid.io/role"
VERSION_LABEL: Final = "nereid.io/model-version"
TEMPLATE_LABEL: Final = "nereid.io/template"
EDGE_ROLE_LABEL: Final = "node-role.kubernetes.io/edge"
HOSTNAME_LABEL: Final = "kubernetes.io/hostname"

DEFAULT_EDGE_BROKER: Final = "mqtt://127.0.0.1:1883"
