# SPDX-License-Identifier: Apache-2.0
"""What the LocalCluster demands of Kubernetes' own kinds: small schemas of the fields that Nereid reads.

Fields beyond them are kept unseen. Metadata is checked for every kind, custom resources included.
"""

from typing import Any, Final

_TEXT: Final = {"type": "string"}
_NAME: Final = {"type": "string", "minLength": 1}
_FLAG: Final = {"type": "boolean"}
_SYSTEM_TEXT: Final = {"type": "string", "nullable": True}
_SYSTEM_NUMBER: Final = {"type": "integer", "nullable": True}
_TEXTS: Final = {"type": "object", "additionalProperties": _TEXT}
_OPEN: Final = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_LABEL_NAME: Final = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}


def _open(*required: str, **properties: Any) -> dict[str, Any]:
    return {**_OPEN, "required": list(required), "properties": properties}


METADATA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "name": _TEXT,
        "generateName": _TEXT,
        "namespace": _TEXT,
        "labels": _TEXTS,
        "annotations": _TEXTS,
        "finalizers": {"type": "array", "items": _TEXT},
        "ownerReferences": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["apiVersion", "kind", "name", "uid"],
                "properties": {
                    "apiVersion": _NAME,
                    "kind": _NAME,
                    "name": _NAME,
                    "uid": _NAME,
                    "controller": _FLAG,
                    "blockOwnerDeletion": _FLAG,
                },
            },
        },
        "uid": _SYSTEM_TEXT,
        "resourceVersion": _SYSTEM_TEXT,
        "selfLink": _SYSTEM_TEXT,
        "creationTimestamp": _SYSTEM_TEXT,
        "deletionTimestamp": _SYSTEM_TEXT,
        "generation": _SYSTEM_NUMBER,
        "deletionGracePeriodSeconds": _SYSTEM_NUMBER,
        "managedFields": {"type": "array", "nullable": True, "x-kubernetes-preserve-unknown-fields": True},
    },
}

_CONTAINER: Final = _open(
    "name",
    "image",
    name=_LABEL_NAME,
    image={"type": "string", "minLength": 1},
    command={"type": "array", "items": _TEXT},
    args={"type": "array", "items": _TEXT},
    env={"type": "array", "items": _open("name", name=_TEXT, value=_TEXT)},
    volumeMounts={"type": "array", "items": _open("name", "mountPath", name=_TEXT, mountPath=_TEXT)},
)
_POD_SPEC: Final = _open(
    "containers",
    containers={"type": "array", "minItems": 1, "items": _CONTAINER},
    volumes={"type": "array", "items": _open("name", name=_LABEL_NAME)},
    nodeName=_TEXT,
    nodeSelector=_TEXTS,
    restartPolicy={"type": "string", "enum": ["Always", "Never", "OnFailure"], "default": "Always"},
    terminationGracePeriodSeconds={"type": "integer", "minimum": 0, "default": 30},
)
_DEPLOYMENT_SPEC: Final = _open(
    "selector",
    "template",
    replicas={"type": "integer", "minimum": 0, "default": 1},
    selector=_open(matchLabels=_TEXTS),
    template=_open(metadata=_open(labels=_TEXTS, annotations=_TEXTS), spec=_POD_SPEC),
    strategy=_open(
        type={"type": "string", "enum": ["RollingUpdate", "Recreate"], "default": "RollingUpdate"},
    )
    | {"default": {}},
    revisionHistoryLimit={"type": "integer", "minimum": 0, "default": 10},
    progressDeadlineSeconds={"type": "integer", "minimum": 0, "default": 600},
)
_SERVICE_SPEC: Final = _open(
    type={
        "type": "string",
        "enum": ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
        "default": "ClusterIP",
    },
    selector=_TEXTS,
    ports={
        "type": "array",
        "items": _open(
            "port",
            name=_TEXT,
            protocol={"type": "string", "enum": ["SCTP", "TCP", "UDP"], "default": "TCP"},
            port={"type": "integer", "minimum": 1, "maximum": 65535},
        ),
    },
)
_SIX_DIGITS: Final = {
    "type": "string",
    "nullable": True,
    "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)$",
}
_LEASE_SPEC: Final = _open(
    holderIdentity={"type": "string", "nullable": True},
    leaseDurationSeconds={"type": "integer", "nullable": True, "minimum": 1},
    leaseTransitions={"type": "integer", "nullable": True, "minimum": 0},
    acquireTime=_SIX_DIGITS,
    renewTime=_SIX_DIGITS,
)

SCHEMAS: Final[dict[str, dict[str, Any]]] = {
    "Pod": _open("spec", spec=_POD_SPEC),
    "Deployment": _open("spec", spec=_DEPLOYMENT_SPEC),
    "Service": _open("spec", spec=_SERVICE_SPEC),
    "Lease": _open(spec=_LEASE_SPEC),
    "ConfigMap": _open(data=_TEXTS, binaryData=_TEXTS),
    "Event": _open("involvedObject", involvedObject=_OPEN, reason=_TEXT, message=_TEXT, type=_TEXT),
    "Node": _open(spec=_OPEN | {"default": {}}, status=_OPEN),
}
