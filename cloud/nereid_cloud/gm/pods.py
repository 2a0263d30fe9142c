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
from urllib.parse import unquote, urlsplit

from msgspec.structs import replace

from nereid_cloud.cluster.port import Object
from nereid_cloud.gm.names import HOSTNAME_LABEL, ROLE_LABEL, SERVICE_LABEL
from nereid_cloud.gm.plan import EdgePlan
from nereid_shared.desired import task_hash
from nereid_shared.messages import ModelRef, Task, canonical_json
from nereid_shared.resources import JointInferenceService, WorkerSpec, parameters_of
from nereid_shared.topics import service_id

STATE_ROOT: Final = "/var/lib/nereid/workers"
STATE_MOUNT: Final = "/var/lib/nereid/worker"
COMMAND: Final = ("python", "-m", "nereid_worker")
GRACE_S: Final = 10


def edge_pod(
    service: JointInferenceService, raw: Object, edge: EdgePlan, *, little: Object, default_image: str
) -> Object:
    """Return the Pod of one node; its name changes with all that it is made of."""
    worker = service.spec.edge_worker
    identity = service_id(service.metadata.name, service.metadata.uid)
    state = {"name": "state", "hostPath": {"path": f"{STATE_ROOT}/{identity}", "type": "DirectoryOrCreate"}}
    volumes, mounts = _volumes(
        [_model_folder(little), worker.worker_spec.script_dir], [_dataset_path(one) for one in edge.datasets.values()]
    )
    env = {
        "NEREID_ROLE": "edge",
        "NEREID_NODE": edge.node,
        "NEREID_SERVICE": identity,
        "NEREID_BROKER": edge.broker,
        "NEREID_STATE": STATE_MOUNT,
    }
    spec = {
        "nodeName": edge.node,
        **_pod_defaults(),
        "containers": [
            {
                "name": worker.name,
                "image": _image(raw, "edgeWorker") or default_image,
                "command": list(COMMAND),
                "env": [_own_name(), *_env(env)],
                "volumeMounts": [{"name": "state", "mountPath": STATE_MOUNT}, *mounts],
            }
        ],
        "volumes": [state, *volumes],
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
    service: JointInferenceService, raw: Object, task: Task, *, hostname: str, big: Object, broker: str, image: str
) -> Object:
    """Return the Deployment of the cloud workers, with their whole task in the environment."""
    worker = service.spec.cloud_worker
    labels = labels_of(service, "cloud")
    volumes, mounts = _volumes([_model_folder(big), worker.worker_spec.script_dir])
    env = {
        "NEREID_ROLE": "cloud",
        "NEREID_SERVICE": task.service,
        "NEREID_BROKER": broker,
        "NEREID_TASK": task.encode().decode(),
    }
    container: dict[str, Any] = {
        "name": worker.name,
        "image": _image(raw, "cloudWorker") or image,
        "command": list(COMMAND),
        "env": [_own_name(), *_env(env)],
    }
    spec: dict[str, Any] = {"nodeSelector": {HOSTNAME_LABEL: hostname}, **_pod_defaults(), "containers": [container]}
    if volumes:
        container["volumeMounts"], spec["volumes"] = mounts, volumes
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
        model=ModelRef(
            name=worker.model.name, url=spec["modelUrl"], format=spec.get("format", ""), sha256=spec.get("sha256") or ""
        ),
        script_dir=worker.worker_spec.script_dir,
        script_boot_file=worker.worker_spec.script_boot_file,
        parameters=_parameters(worker.worker_spec),
        nodes=sorted(nodes),
        group=group,
        max_batch=worker.batching.max_size,
        max_wait_s=worker.batching.max_wait_s,
    )
    # A new generation alone (an edge field changed) must not restart the cloud workers.
    content = task.content(without={"hash", "generation"})
    return replace(task, hash=task_hash(content, {}), generation=0)


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
        if entry.get("name") == "NEREID_TASK":
            return Task.decode(entry["value"].encode(), max_bytes=1 << 20)
    return None


def _pod_defaults() -> dict[str, Any]:
    return {
        "restartPolicy": "Always",
        "hostNetwork": True,
        # Mounted tokens kept Pods from starting after an offline restart of edgecore.
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_S,
    }


def _own_name() -> dict[str, Any]:
    return {"name": "NEREID_WORKER", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}


def _env(values: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"name": name, "value": value} for name, value in values.items()]


def _volumes(
    folders: Iterable[str | None], places: Iterable[str | None] = ()
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return read-only volumes and mounts, each path under its own name within the container.

    A folder that is not there keeps the Pod from starting, and its Events say so; a place may be a file or a folder.
    """
    types = {path: "" for path in places if path} | {path: "Directory" for path in folders if path}
    volumes, mounts = [], []
    for index, (path, type_) in enumerate(sorted(types.items())):
        volumes.append({"name": f"data-{index}", "hostPath": {"path": path, "type": type_}})
        mounts.append({"name": f"data-{index}", "mountPath": path, "readOnly": True})
    return volumes, mounts


def local_path(url: str) -> PurePosixPath | None:
    """Return the path on the node that a URL names, or None where it is elsewhere."""
    if url.startswith("/"):
        return PurePosixPath(url)
    parts = urlsplit(url)
    return PurePosixPath(unquote(parts.path)) if parts.scheme == "file" else None


def _model_folder(model: Object) -> str | None:
    path = local_path(model["spec"]["modelUrl"])
    return None if path is None else str(path.parent)


def _dataset_path(dataset: Object) -> str | None:
    """A csv or txt file lists files beside it, so its folder is what the worker needs."""
    path = local_path(dataset["spec"]["dataUrl"])
    if path is None:
        return None
    return str(path.parent if path.suffix else path)


def _parameters(spec: WorkerSpec) -> dict[str, str]:
    return parameters_of(list(spec.parameters))


def _image(raw: Object, side: str) -> str:
    return str(raw["spec"][side]["workerSpec"].get("image") or "")


def _cut(name: str, length: int) -> str:
    return re.sub(r"[.-]+$", "", name[:length])
