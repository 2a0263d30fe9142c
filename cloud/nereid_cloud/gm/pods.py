# SPDX-License-Identifier: Apache-2.0
"""The Pods and the Deployment of a service, as manifests; no I/O.

The edge Pod carries only identity and mounts; everything else reaches its worker as a retained task, so that a change
of the task needs no new Pod.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from msgspec.structs import replace

from nereid_cloud.cluster.port import Object
from nereid_cloud.gm.names import HOSTNAME_LABEL, ROLE_LABEL, SERVICE_LABEL
from nereid_cloud.gm.paths import dataset_path, model_folder, script_config_map, script_folder
from nereid_cloud.gm.plan import EdgePlan
from nereid_cloud.gm.podparts import (
    COMMAND,
    NO_VOLUMES,
    Volumes,
    cache,
    certificates,
    cloud_spec,
    cloud_values,
    cut,
    data,
    edge_spec,
    edge_values,
    environ,
    joined,
    owner_of,
    rights,
    state,
    temporary,
)
from nereid_cloud.gm.policy import Policy, Runtime, Side
from nereid_cloud.gm.probes import edge_health, probes, values
from nereid_shared import environment
from nereid_shared.digests import sealed
from nereid_shared.messages import Task, TaskModel, canonical_json
from nereid_shared.resources import JointInferenceService, WorkerSpec, parameters_of
from nereid_shared.topics import service_id

SCRIPT_MOUNT: Final = f"{environment.HOST_ROOT}/script"


def edge_pod(service: JointInferenceService, raw: Object, edge: EdgePlan, *, little: Object, policy: Policy) -> Object:
    """Return the Pod of one node; its name changes with all that it is made of."""
    worker = service.spec.edge_worker
    identity = service_id(service.metadata.name, service.metadata.uid)
    volumes, mounts = joined(
        state(identity),
        temporary(),
        data([model_folder(little), script_folder(worker.worker_spec)], map(dataset_path, edge.datasets.values())),
        cache() if model_folder(little) is None else NO_VOLUMES,
        _script(worker.worker_spec),
    )
    host = edge_health(identity, edge.node)
    env = {environment.ROLE: "edge", **edge_values(edge.node, identity, edge.broker, policy), **values(policy, host)}
    if script_config_map(worker.worker_spec):
        env[environment.SCRIPT_DIR] = SCRIPT_MOUNT
    spec = {
        **edge_spec(edge.node),
        "containers": [
            {
                "name": worker.name,
                **_runs(worker.worker_spec, "edge", policy),
                **probes(policy, host),
                "env": environ(env),
                "volumeMounts": mounts,
            }
        ],
        "volumes": volumes,
    }
    template = hashlib.sha256(canonical_json([service.metadata.uid, edge.node, spec])).hexdigest()[:8]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{cut(service.metadata.name, 48)}-edge-{template}",
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
    volumes, mounts = joined(
        temporary(),
        data([model_folder(big), script_folder(worker.worker_spec)]),
        _script(worker.worker_spec),
        certificates(policy),
    )
    env = {
        environment.ROLE: "cloud",
        **cloud_values(task.service, broker, policy),
        **values(policy),
        environment.TASK: task.encode().decode(),
    }
    spec: dict[str, Any] = {
        "nodeSelector": {HOSTNAME_LABEL: hostname},
        **cloud_spec(),
        "containers": [
            {
                "name": worker.name,
                **_runs(worker.worker_spec, "cloud", policy),
                **probes(policy),
                "env": environ(env),
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
    return f"{cut(service.metadata.name, 40)}-cloud-{service.metadata.uid.replace('-', '')[:8]}"


def labels_of(service: JointInferenceService, role: str) -> dict[str, str]:
    """Return the labels of a service's workers."""
    return {SERVICE_LABEL: service.metadata.uid, ROLE_LABEL: role}


def task_in(deployment: Object) -> Task | None:
    """Return the task that a Deployment carries."""
    return task_of(deployment["spec"]["template"]["spec"])


def task_of(pod_spec: Mapping[str, Any]) -> Task | None:
    """Return the task that a cloud worker's Pod carries."""
    for entry in pod_spec["containers"][0].get("env") or ():
        if entry.get("name") == environment.TASK:
            return Task.decode(entry["value"].encode(), max_bytes=1 << 20)
    return None


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
        "securityContext": rights(),
    }


def _script(spec: WorkerSpec) -> Volumes:
    """Return volume and mount of a script that comes as a ConfigMap, if it does."""
    name = script_config_map(spec)
    if not name:
        return NO_VOLUMES
    return [{"name": "script", "configMap": {"name": name}}], [
        {"name": "script", "mountPath": SCRIPT_MOUNT, "readOnly": True}
    ]


def _parameters(spec: WorkerSpec) -> dict[str, str]:
    return parameters_of(list(spec.parameters))
