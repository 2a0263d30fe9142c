# SPDX-License-Identifier: Apache-2.0
"""What the Pods of all kinds of workers are made of: volumes, environment, rights; no I/O."""

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any, Final

from nereid_cloud.cluster.port import Object
from nereid_cloud.gm.policy import Policy
from nereid_shared import environment

STATE_ROOT: Final = f"{environment.HOST_ROOT}/workers"
STATE_MOUNT: Final = f"{environment.HOST_ROOT}/worker"
COMMAND: Final = ("python", "-m", "nereid_worker")
TEMPORARY: Final = f"{environment.HOST_ROOT}/tmp"  # noqa: S108 - a folder of the container's own
CERTIFICATES: Final = f"{environment.HOST_ROOT}/certs"
GRACE_S: Final = 10
NOBODY: Final = 65532

Volumes = tuple[list[dict[str, Any]], list[dict[str, Any]]]
"""Volumes of a Pod, and their mounts in its container."""

NO_VOLUMES: Final[Volumes] = ([], [])


def edge_spec(node: str) -> dict[str, Any]:
    """Return what every Pod of a node has."""
    return {
        "nodeName": node,
        **_defaults(),
        # On KubeEdge a node's Pods have no cluster network, no cluster DNS and the node's broker on its loopback.
        "hostNetwork": True,
        "dnsPolicy": "Default",
        # The kubelet makes the state folder for root. Without capabilities root is no more than its owner.
        "securityContext": {"runAsUser": 0, "runAsGroup": 0, "seccompProfile": {"type": "RuntimeDefault"}},
        # Without a limit: a node that loses the cloud for an hour must keep its worker and its containers.
        "tolerations": [{"operator": "Exists", "effect": "NoExecute"}],
    }


def cloud_spec() -> dict[str, Any]:
    """Return what every Pod in the cloud has."""
    return {
        **_defaults(),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": NOBODY,
            "runAsGroup": NOBODY,
            "fsGroup": NOBODY,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


def _defaults() -> dict[str, Any]:
    return {
        "restartPolicy": "Always",
        # Mounted tokens kept Pods from starting after an offline restart of edgecore.
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_S,
    }


def rights() -> dict[str, Any]:
    """Return a container's security context."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def environ(values: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return a container's environment: its Pod's name, and these values."""
    name = {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}
    return [
        {"name": environment.WORKER, "valueFrom": name},
        *({"name": name, "value": value} for name, value in values.items()),
    ]


def edge_values(node: str, identity: str, broker: str, policy: Policy) -> dict[str, str]:
    """Return the values of a node's worker: who it is, and where its broker and its folders are."""
    values = {
        environment.NODE: node,
        environment.SERVICE: identity,
        environment.BROKER: broker,
        environment.STATE: STATE_MOUNT,
        environment.LOG_FORMAT: policy.log_format,
        "TMPDIR": TEMPORARY,
    }
    if policy.edge_keepalive_s is not None:
        values[environment.KEEPALIVE] = str(policy.edge_keepalive_s)
    return values


def cloud_values(identity: str, broker: str, policy: Policy) -> dict[str, str]:
    """Return the values of a cloud worker."""
    values = {
        environment.SERVICE: identity,
        environment.BROKER: broker,
        environment.LOG_FORMAT: policy.log_format,
        "TMPDIR": TEMPORARY,
    }
    if policy.worker_tls_secret:
        values[environment.CERTS] = CERTIFICATES
    return values


def state(identity: str) -> Volumes:
    """Return the folder that a node keeps for the worker of a service."""
    volume = {"name": "state", "hostPath": {"path": f"{STATE_ROOT}/{identity}", "type": "DirectoryOrCreate"}}
    return [volume], [{"name": "state", "mountPath": STATE_MOUNT}]


def certificates(policy: Policy) -> Volumes:
    """Return the cloud workers' certificate, where there is one."""
    if not policy.worker_tls_secret:
        return NO_VOLUMES
    secret = {"secretName": policy.worker_tls_secret, "defaultMode": 0o440}
    return [{"name": "certs", "secret": secret}], [{"name": "certs", "mountPath": CERTIFICATES, "readOnly": True}]


def temporary() -> Volumes:
    """Return a volume and its mount for temporary files: all else in the container is read-only."""
    return [{"name": "tmp", "emptyDir": {}}], [{"name": "tmp", "mountPath": TEMPORARY}]


def data(folders: Iterable[PurePosixPath | None], places: Iterable[PurePosixPath | None] = ()) -> Volumes:
    """Return read-only volumes and mounts, each path under its own name within the container.

    A folder that is not there keeps the Pod from starting, and its Events say so; a place may be a file or a folder.
    """
    types = {str(path): "" for path in places if path} | {str(path): "Directory" for path in folders if path}
    volumes, mounts = [], []
    for index, (path, type_) in enumerate(sorted(types.items())):
        volumes.append({"name": f"data-{index}", "hostPath": {"path": path, "type": type_}})
        mounts.append({"name": f"data-{index}", "mountPath": path, "readOnly": True})
    return volumes, mounts


def cache() -> Volumes:
    """Return what the LocalController has fetched for the node's workers, under the path by which it names it.

    Made where it is not there: a Pod may start before anything is fetched.
    """
    volume = {"name": "cache", "hostPath": {"path": environment.CACHE, "type": "DirectoryOrCreate"}}
    return [volume], [{"name": "cache", "mountPath": environment.CACHE, "readOnly": True}]


def joined(*parts: Volumes) -> Volumes:
    """Return all of these volumes, and all of their mounts."""
    return [volume for volumes, _ in parts for volume in volumes], [mount for _, mounts in parts for mount in mounts]


def owner_of(raw: Object) -> dict[str, Any]:
    """Return the owner reference to a custom resource.

    Without blockOwnerDeletion: that needs rights on the owner's finalizers.
    """
    metadata = raw["metadata"]
    return {
        "apiVersion": raw["apiVersion"],
        "kind": raw["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
    }


def cut(name: str, length: int) -> str:
    """Return the beginning of a name as a name."""
    return re.sub(r"[.-]+$", "", name[:length])
