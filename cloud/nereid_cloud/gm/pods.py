# SPDX-License-Identifier: Apache-2.0
"""The Pods and the Deployment of a service, as manifests; no I/O.

The edge Pod carries only identity and mounts; everything else reaches its worker as a retained task, so that a change
of the task needs no new Pod.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any, Final

from msgspec.structs import replace

from nereid_cloud.cluster.port import Object
from nereid_cloud.gm.names import HOSTNAME_LABEL, ROLE_LABEL, SERVICE_LABEL
from nereid_cloud.gm.paths import dataset_path, model_folder, script_config_map, script_folder
from nereid_cloud.gm.plan import EdgePlan
from nereid_cloud.gm.policy import Policy, Runtime, Side
from nereid_shared import environment
from nereid_shared.digests import sealed
from nereid_shared.messages import Task, TaskModel, canonical_json
from nereid_shared.resources import JointInferenceService, WorkerSpec, parameters_of
from nereid_shared.topics import service_id

STATE_ROOT: Final = f"{environment.HOST_ROOT}/workers"
STATE_MOUNT: Final = f"{environment.HOST_ROOT}/worker"
COMMAND: Final = ("python", "-m", "nereid_worker")
SCRIPT_MOUNT: Final = f"{environment.HOST_ROOT}/script"
TEMPORARY: Final = f"{environment.HOST_ROOT}/tmp"  # noqa: S108 - a folder of the container's own
CERTIFICATES: Final = f"{environment.HOST_ROOT}/certs"
GRACE_S: Final = 10
NOBODY: Final = 65532


def edge_pod(service: JointInferenceService, raw: Object, edge: EdgePlan, *, little: Object, policy: Policy) -> Object:
    """Return the Pod of one node; its name changes with all that it is made of."""
    worker = service.spec.edge_worker
    identity = service_id(service.metadata.name, service.metadata.uid)
    state = {"name": "state", "hostPath": {"path": f"{STATE_ROOT}/{identity}", "type": "DirectoryOrCreate"}}
    volumes, mounts = _joined(
        ([state], [{"name": "state", "mountPath": STATE_MOUNT}]),
        _temporary(),
        _data([model_folder(little), script_folder(worker.worker_spec)], map(dataset_path, edge.datasets.values())),
        _script(worker.worker_spec),
    )
    env = {
        environment.ROLE: "edge",
        environment.NODE: edge.node,
        environment.SERVICE: identity,
        environment.BROKER: edge.broker,
        environment.STATE: STATE_MOUNT,
        environment.LOG_FORMAT: policy.log_format,
        "TMPDIR": TEMPORARY,
    }
    if policy.edge_keepalive_s is not None:
        env[environment.KEEPALIVE] = str(policy.edge_keepalive_s)
    if script_config_map(worker.worker_spec):
        env[environment.SCRIPT_DIR] = SCRIPT_MOUNT
    spec = {
        "nodeName": edge.node,
        **_pod_defaults(),
        # On KubeEdge a node's Pods have no cluster network, no cluster DNS and the node's broker on its loopback.
        "hostNetwork": True,
        "dnsPolicy": "Default",
        # The kubelet makes the state folder for root. Without capabilities root is no more than its owner.
        "securityContext": {"runAsUser": 0, "runAsGroup": 0, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": worker.name,
                **_runs(worker.worker_spec, "edge", policy),
                "env": [_own_name(), *_env(env)],
                "volumeMounts": mounts,
            }
        ],
        "volumes": volumes,
        # Without a limit: a node that loses the cloud for an hour must keep its worker and its containers.
        "tolerations": [{"operator": "Exists", "effect": "NoExecute"}],
    }
    template = hashlib.sha256(canonical_json([service.metadata.uid, edge.node, spec])).hexdigest()[:8]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{_cut(service.metadata.name, 48)}-edge-{template}",
            "namespace": service.metadata.namespace,
            "labels": labels_of(service, "edge"),
            "ownerReferences": [owner_of(raw)],
        },
        "spec": spec,
    }


def cloud_deployment(
    service: JointInferenceService, raw: Object, task: Task, *, hostname: str, big: Object, broker: str, policy: Policy
) -> Object:
    """Return the Deployment of the cloud workers, with their whole task in the environment."""
    worker = service.spec.cloud_worker
    labels = labels_of(service, "cloud")
    volumes, mounts = _joined(
        _temporary(),
        _data([model_folder(big), script_folder(worker.worker_spec)]),
        _script(worker.worker_spec),
        _certificates(policy),
    )
    env = {
        environment.ROLE: "cloud",
        environment.SERVICE: task.service,
        environment.BROKER: broker,
        environment.TASK: task.encode().decode(),
        environment.LOG_FORMAT: policy.log_format,
        "TMPDIR": TEMPORARY,
    }
    if policy.worker_tls_secret:
        env[environment.CERTS] = CERTIFICATES
    spec: dict[str, Any] = {
        "nodeSelector": {HOSTNAME_LABEL: hostname},
        **_pod_defaults(),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": NOBODY,
            "runAsGroup": NOBODY,
            "fsGroup": NOBODY,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": worker.name,
                **_runs(worker.worker_spec, "cloud", policy),
                "env": [_own_name(), *_env(env)],
                "volumeMounts": mounts,
            }
        ],
        "volumes": volumes,
        # The service names the node: what keeps chance comers away from it is not meant for this Pod.
        "tolerations": [{"operator": "Exists", "effect": "NoSchedule"}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": deployment_name(service),
            "namespace": service.metadata.namespace,
            "labels": labels,
            "ownerReferences": [owner_of(raw)],
        },
        "spec": {
            "replicas": worker.replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def cloud_task(service: JointInferenceService, *, big: Object, nodes: Iterable[str], group: str) -> Task:
    """Return what the cloud workers run; `group` is the secret name of their share group."""
    worker = service.spec.cloud_worker
    spec = big["spec"]
    task = Task(
        uid=service.metadata.uid,
        service=service_id(service.metadata.name, service.metadata.uid),
        role="cloud",
        namespace=service.metadata.namespace,
        name=service.metadata.name,
        generation=service.metadata.generation,
        hash="",
        model=TaskModel(
            name=worker.model.name, url=spec["modelUrl"], format=spec.get("format", ""), sha256=spec.get("sha256") or ""
        ),
        script_dir=SCRIPT_MOUNT if script_config_map(worker.worker_spec) else worker.worker_spec.script_dir,
        script_boot_file=worker.worker_spec.script_boot_file,
        parameters=_parameters(worker.worker_spec),
        nodes=sorted(nodes),
        group=group,
        max_batch=worker.batching.max_size,
        max_wait_s=worker.batching.max_wait_s,
    )
    # A new generation alone (an edge field changed) must not restart the cloud workers.
    return replace(sealed(task), generation=0)


def deployment_name(service: JointInferenceService) -> str:
    """Return the name of the service's Deployment: one per uid."""
    return f"{_cut(service.metadata.name, 40)}-cloud-{service.metadata.uid.replace('-', '')[:8]}"


def labels_of(service: JointInferenceService, role: str) -> dict[str, str]:
    """Return the labels of a service's workers."""
    return {SERVICE_LABEL: service.metadata.uid, ROLE_LABEL: role}


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


def task_in(deployment: Object) -> Task | None:
    """Return the task that a Deployment carries."""
    return task_of(deployment["spec"]["template"]["spec"])


def task_of(pod_spec: Mapping[str, Any]) -> Task | None:
    """Return the task that a cloud worker's Pod carries."""
    for entry in pod_spec["containers"][0].get("env") or ():
        if entry.get("name") == environment.TASK:
            return Task.decode(entry["value"].encode(), max_bytes=1 << 20)
    return None


def _pod_defaults() -> dict[str, Any]:
    return {
        "restartPolicy": "Always",
        # Mounted tokens kept Pods from starting after an offline restart of edgecore.
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_S,
    }


def _runs(spec: WorkerSpec, side: Side, policy: Policy) -> dict[str, Any]:
    """Return what a container runs, with which rights and resources."""
    image = spec.image or ""
    runtime = policy.runtime(spec.framework_type, spec.framework_version) or Runtime(image=image)
    return {
        "image": image or runtime.image,
        "imagePullPolicy": "IfNotPresent" if image else runtime.image_pull_policy,
        "command": list(COMMAND),
        # The last line of a script that raises is in the Pod's status, and so in the service's.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "resources": runtime.resources(side),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def _certificates(policy: Policy) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    if not policy.worker_tls_secret:
        return [], []
    secret = {"secretName": policy.worker_tls_secret, "defaultMode": 0o440}
    return [{"name": "certs", "secret": secret}], [{"name": "certs", "mountPath": CERTIFICATES, "readOnly": True}]


def _own_name() -> dict[str, Any]:
    return {"name": environment.WORKER, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}


def _env(values: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"name": name, "value": value} for name, value in values.items()]


def _temporary() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return a volume and its mount for temporary files: all else in the container is read-only."""
    return [{"name": "tmp", "emptyDir": {}}], [{"name": "tmp", "mountPath": TEMPORARY}]


def _data(
    folders: Iterable[PurePosixPath | None], places: Iterable[PurePosixPath | None] = ()
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return read-only volumes and mounts, each path under its own name within the container.

    A folder that is not there keeps the Pod from starting, and its Events say so; a place may be a file or a folder.
    """
    types = {str(path): "" for path in places if path} | {str(path): "Directory" for path in folders if path}
    volumes, mounts = [], []
    for index, (path, type_) in enumerate(sorted(types.items())):
        volumes.append({"name": f"data-{index}", "hostPath": {"path": path, "type": type_}})
        mounts.append({"name": f"data-{index}", "mountPath": path, "readOnly": True})
    return volumes, mounts


def _script(spec: WorkerSpec) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return volume and mount of a script that comes as a ConfigMap, if it does."""
    name = script_config_map(spec)
    if not name:
        return [], []
    return [{"name": "script", "configMap": {"name": name}}], [
        {"name": "script", "mountPath": SCRIPT_MOUNT, "readOnly": True}
    ]


def _joined(
    *parts: tuple[list[dict[str, Any]], list[dict[str, Any]]],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return [volume for volumes, _ in parts for volume in volumes], [mount for _, mounts in parts for mount in mounts]


def _parameters(spec: WorkerSpec) -> dict[str, str]:
    return parameters_of(list(spec.parameters))


def _cut(name: str, length: int) -> str:
    return re.sub(r"[.-]+$", "", name[:length])
