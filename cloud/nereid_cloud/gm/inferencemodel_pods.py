# SPDX-License-Identifier: Apache-2.0
"""The Pods, the Deployment and the Service of an InferenceModel, as manifests; no I/O.

Our worker at the edge carries only identity and mounts, its versions reach it as a retained task; in the cloud a change
of the task rolls through the Deployment. A server of others finds its version's files in a folder, put there by our
image before it starts.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from msgspec.structs import replace

from nereid_cloud.cluster.port import Object
from nereid_cloud.gm.inferencemodel_plan import Server
from nereid_cloud.gm.names import EDGE_ROLE_LABEL, ROLE_LABEL, SERVICE_LABEL, TEMPLATE_LABEL, VERSION_LABEL
from nereid_cloud.gm.podparts import (
    COMMAND,
    NO_VOLUMES,
    NOBODY,
    TEMPORARY,
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
from nereid_cloud.gm.policy import Policy, Side
from nereid_cloud.gm.probes import edge_health, probes
from nereid_cloud.gm.probes import values as health_values
from nereid_shared import environment
from nereid_shared.messages import ServingTask, canonical_json
from nereid_shared.places import node_path
from nereid_shared.resources import InferenceModel
from nereid_shared.serving import READY_PATH, SERVING_ROLE, sealed, versions_of
from nereid_shared.topics import service_id

CONTAINER: Final = "server"
FILES: Final = "files"
FILES_COMMAND: Final = ("python", "-m", "nereid_worker.model_folder")
"""The step that puts a version's files where a server of others looks for them."""

# A server that drains goes on answering for some seconds, then ends what is under way.
GRACE_S: Final = 30
_PROBE: Final[Mapping[str, Any]] = {"periodSeconds": 1, "timeoutSeconds": 2, "failureThreshold": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelParts:
    """What the Pods of one InferenceModel are made of.

    Attributes:
        task: what our worker serves; for a server of others, the files that it needs. None for an image of the user's.
    """

    model: InferenceModel
    raw: Object
    server: Server
    task: ServingTask | None
    policy: Policy

    @property
    def identity(self) -> str:
        """The model's identity on topics and in folders."""
        return service_id(self.model.metadata.name, self.model.metadata.uid)

    def metadata(self, name: str, labels: Mapping[str, str]) -> dict[str, Any]:
        """Return the metadata of an object that this model owns."""
        return {
            "name": name,
            "namespace": self.model.metadata.namespace,
            "labels": dict(labels),
            "ownerReferences": [owner_of(self.raw)],
        }


EDGE_SERVING_ROLE: Final = f"{SERVING_ROLE}-edge"
"""What a node's Pod is labelled as; one of the cloud's is labelled `SERVING_ROLE`."""


def edge_pod(parts: ModelParts, node: str, *, broker: str) -> Object:
    """Return the Pod of one node; its name changes with all that it is made of."""
    model = parts.model
    host = edge_health(parts.identity, node)
    values = {**edge_values(node, parts.identity, broker, parts.policy), **health_values(parts.policy, host)}
    spec = {**edge_spec(node), **_runs(parts, "edge", values, state(parts.identity), host=host)}
    template = _digest([model.metadata.uid, node, spec])
    # Which version our worker serves changes without a new Pod.
    version = {} if parts.server.is_ours else _version_label(parts.server)
    name = f"{cut(model.metadata.name, 48)}-serving-{template}"
    metadata = parts.metadata(name, {**labels_of(model, is_edge=True), **version})
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def cloud_deployment(parts: ModelParts, *, selector: Mapping[str, str], broker: str) -> Object:
    """Return the Deployment of the cloud's servers; a new version's Pods come one by one, before the old ones go."""
    values = {**cloud_values(parts.identity, broker, parts.policy), **health_values(parts.policy)}
    if parts.task is not None and parts.server.is_ours:
        # A new generation alone (the replicas changed) must not restart the servers.
        values[environment.TASK] = replace(parts.task, generation=0).encode().decode()
    labels = labels_of(parts.model, is_edge=False)
    spec = {**cloud_spec(), **_where(selector), **_runs(parts, "cloud", values, certificates(parts.policy))}
    # Which Pods are of the present template is only known to Kubernetes: its own label's value cannot be reckoned.
    marks = {TEMPLATE_LABEL: _digest(spec), **_version_label(parts.server)}
    template = {"metadata": {"labels": {**labels, **marks}}, "spec": spec}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": parts.metadata(deployment_name(parts.model), labels),
        "spec": {
            "replicas": parts.model.spec.replicas,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "selector": {"matchLabels": labels},
            "template": template,
        },
    }


def cloud_service(parts: ModelParts, *, port: int) -> Object:
    """Return the Service that the cloud's servers are reached by."""
    labels = labels_of(parts.model, is_edge=False)
    ports = [{"name": "http", "protocol": "TCP", "port": port, "targetPort": parts.server.port}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": parts.metadata(service_name(parts.model), labels),
        "spec": {"type": parts.policy.service_type, "selector": labels, "ports": ports},
    }


def labels_of(model: InferenceModel, *, is_edge: bool) -> dict[str, str]:
    """Return the labels of a model's Pods."""
    return {SERVICE_LABEL: model.metadata.uid, ROLE_LABEL: EDGE_SERVING_ROLE if is_edge else SERVING_ROLE}


def deployment_name(model: InferenceModel) -> str:
    """Return the name of the model's Deployment: one per uid."""
    return f"{cut(model.metadata.name, 40)}-serving-{model.metadata.uid.replace('-', '')[:8]}"


def service_name(model: InferenceModel) -> str:
    """Return the name of the model's Service, which is a label of DNS: no dots, a letter first, at most 63."""
    name = cut(model.metadata.name.replace(".", "-"), 50)
    return name if name[:1].isalpha() else f"m-{name}"


def _digest(value: object) -> str:
    return hashlib.sha256(canonical_json(value)).hexdigest()[:8]


def _version_label(server: Server) -> dict[str, str]:
    return {VERSION_LABEL: server.version} if server.version else {}


def _where(selector: Mapping[str, str]) -> dict[str, Any]:
    """Return where the cloud's Pods may be: on what the model names, else anywhere but on the edge."""
    if selector:
        # What keeps chance comers away from a node that is named is not meant for this Pod.
        return {"nodeSelector": dict(selector), "tolerations": [{"operator": "Exists", "effect": "NoSchedule"}]}
    terms = [{"matchExpressions": [{"key": EDGE_ROLE_LABEL, "operator": "DoesNotExist"}]}]
    return {
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}
    }


def _runs(parts: ModelParts, side: Side, values: Mapping[str, str], more: Volumes, *, host: str = "") -> dict[str, Any]:
    """Return the part of a Pod's spec that says what runs in it."""
    server = parts.server
    container = {
        "name": CONTAINER,
        "image": server.runtime.image,
        "imagePullPolicy": server.runtime.image_pull_policy,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "resources": server.runtime.resources(side),
        "ports": [{"name": "http", "containerPort": server.port, "protocol": "TCP"}],
    }
    if server.is_ours:
        return _ours(parts, side, {**container, **probes(parts.policy, host)}, values, more)
    return _foreign(parts, side, container)


def _ours(
    parts: ModelParts, side: Side, container: Mapping[str, Any], values: Mapping[str, str], more: Volumes
) -> dict[str, Any]:
    env = {environment.ROLE: SERVING_ROLE, **values, environment.PORT: str(parts.server.port)}
    if parts.policy.listen:
        env[environment.LISTEN] = parts.policy.listen
    folders = [node_path(file["downloadURL"]) for file in versions_of(parts.raw["spec"]).values()]
    cached = cache() if side == "edge" and None in folders else NO_VOLUMES
    # Unchecked: one version's folder that is not there must not keep the others from being served.
    places = data((), (path and path.parent for path in folders))
    volumes, mounts = joined(more, temporary(), cached, places)
    # In the cloud readiness is what rolls a Deployment on, so there it is asked often, and where requests go.
    ready = {"readinessProbe": {"httpGet": {"path": READY_PATH, "port": "http"}, **_PROBE}} if side == "cloud" else {}
    container = {
        **container, **ready, "command": list(COMMAND), "env": environ(env), "volumeMounts": mounts,
        "securityContext": rights(),
    }  # fmt: skip
    return {"containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": GRACE_S}


def _foreign(parts: ModelParts, side: Side, container: Mapping[str, Any]) -> dict[str, Any]:
    """Return a server of others: a user's image as it is, or one of the runtime table with its version's files."""
    server = parts.server
    container = {
        **container,
        "env": [{"name": environment.PORT, "value": str(server.port)}],
        "readinessProbe": {"tcpSocket": {"port": "http"}, **_PROBE},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    spec: dict[str, Any] = {
        # Who it runs as is the image's affair.
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "terminationGracePeriodSeconds": GRACE_S,
        "volumes": [],
    }
    if parts.task is None:
        return {**spec, "containers": [container]}
    words = {"port": str(server.port), "modelName": parts.model.spec.model_name, "version": server.version}
    folder = _filled(server.runtime.models, words)
    mount = {"name": "models", "mountPath": "/" + folder.strip("/").partition("/")[0]}
    container["command"] = [_filled(part, words) for part in server.runtime.command]
    container["volumeMounts"] = [{**mount, "readOnly": True}]
    if server.runtime.ready:
        container["readinessProbe"] = {
            "httpGet": {"path": _filled(server.runtime.ready, words), "port": "http"},
            **_PROBE,
        }
    files, volumes = _files(parts, side, parts.task, folder)
    files["volumeMounts"].insert(0, mount)
    return {
        **spec,
        "initContainers": [files],
        "containers": [container],
        "volumes": [{"name": "models", "emptyDir": {}}, *volumes],
    }


def _files(
    parts: ModelParts, side: Side, task: ServingTask, folder: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the step that fetches the version's archive and unpacks it into the server's folder."""
    runtime = parts.policy.workers
    wanted = [one for one in task.versions if one.version == task.target]
    only = sealed(replace(task, versions=wanted, generation=0))
    places = [node_path(one.url) for one in wanted]
    volumes, mounts = joined(temporary(), data(path and path.parent for path in places))
    values = {
        environment.TASK: only.encode().decode(),
        environment.MODELS: folder,
        environment.LOG_FORMAT: parts.policy.log_format,
        "TMPDIR": TEMPORARY,
    }
    user = 0 if side == "edge" else NOBODY
    return {
        "name": FILES,
        "image": runtime.image,
        "imagePullPolicy": runtime.image_pull_policy,
        "command": list(FILES_COMMAND),
        "env": environ(values),
        "volumeMounts": mounts,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {**rights(), "runAsUser": user, "runAsGroup": user},
    }, volumes


def _filled(text: str, words: Mapping[str, str]) -> str:
    """Return a text of the runtime table with the model's own words in it; other braces stay."""
    for word, value in words.items():
        text = text.replace(f"{{{word}}}", value)
    return text
