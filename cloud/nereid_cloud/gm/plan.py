# SPDX-License-Identifier: Apache-2.0
"""What a service needs of other objects: nodes, models and datasets resolved, or why they cannot be; no I/O.

Level-triggered: the plan is made anew from what is there, so a problem heals when the missing thing appears.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from nereid_cloud.cluster.port import Object
from nereid_cloud.gm.checks import (
    Found,
    broken,
    broker_of,
    forbidden_path,
    hostname,
    labels_of,
    missing,
    named_nodes,
    not_served,
    text_of,
)
from nereid_cloud.gm.conditions import Problem
from nereid_cloud.gm.paths import dataset_path, model_folder, script_folder
from nereid_cloud.gm.policy import Policy
from nereid_shared.defaults import BUILTIN_PREFIX
from nereid_shared.messages import canonical_json
from nereid_shared.resources import HARD_EXAMPLE_RULES, DatasetRef, JointInferenceService

# Linux takes at most 128 KiB in one variable of the environment, where a cloud worker has its whole task.
MAX_TASK_BYTES: Final = 120 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The objects that a service of one namespace may name, by name, and what it may be; not to be changed."""

    nodes: Mapping[str, Object]
    models: Mapping[str, Object]
    datasets: Mapping[str, Object]
    policy: Policy = field(default_factory=Policy)


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgePlan:
    """One node's part of a service.

    Attributes:
        broker: URL of the node's own broker, as a Pod on it reaches it.
        datasets: those that the worker reads there, by name.
    """

    node: str
    broker: str
    datasets: Mapping[str, Object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a service comes to.

    Attributes:
        nodes: the nodes that the service is meant for, as far as they exist.
        parts: what the workers are made of; None where the service as a whole cannot start.
        problems: what is missing or wrong.
    """

    nodes: tuple[str, ...]
    parts: "Parts | None"
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a service's workers are made of.

    Attributes:
        edges: the nodes that can run it.
        cloud_hostname: value of the cloud node's hostname label.
    """

    edges: tuple[EdgePlan, ...]
    little: Object
    big: Object
    cloud_hostname: str


def plan(service: JointInferenceService, raw: Object, world: World) -> Plan:
    """Resolve what a service names."""
    little, no_little = _object("Model", service.spec.edge_worker.model.name, world.models)
    big, no_big = _object("Model", service.spec.cloud_worker.model.name, world.models)
    cloud, no_cloud = _object("Node", service.spec.cloud_worker.node_name, world.nodes)
    nodes, not_nodes = _nodes(service, world)
    edges, not_on_edges = _edges(service, nodes, world)
    fatal = (
        *broken(raw),
        *_rule(service),
        *_forbidden(service, world.policy),
        *dict.fromkeys((*no_little, *no_big)),
        *no_cloud,
        *_folders(service, (little, big), world.policy),
        *_crowd(service, nodes),
    )
    parts = None
    if not fatal and little is not None and big is not None and cloud is not None:
        parts = Parts(edges=edges, little=little, big=big, cloud_hostname=hostname(cloud))
    return Plan(nodes=nodes, parts=parts, problems=(*fatal, *not_nodes, *not_on_edges))


def _rule(service: JointInferenceService) -> Iterable[Problem]:
    algorithm = service.spec.edge_worker.hard_example_algorithm
    known = HARD_EXAMPLE_RULES.get(algorithm.name)
    if known is None and service.spec.edge_worker.worker_spec.script_boot_file.startswith(BUILTIN_PREFIX):
        names = ", ".join(HARD_EXAMPLE_RULES)
        yield Problem(reason="RuleUnknown", message=f"hard example rule {algorithm.name!r}: the builtin has {names}")
    for parameter in algorithm.parameters if known is not None else ():
        if parameter.key not in (known or {}):
            yield Problem(reason="ParameterInvalid", message=f"rule {algorithm.name} takes no {parameter.key!r}")


def _forbidden(service: JointInferenceService, policy: Policy) -> Iterable[Problem]:
    yield from not_served(service.metadata.namespace, policy)
    for side, worker in (("edgeWorker", service.spec.edge_worker), ("cloudWorker", service.spec.cloud_worker)):
        spec = worker.worker_spec
        if not spec.image and policy.runtime(spec.framework_type, spec.framework_version) is None:
            message = f"{side}: no runtime for framework {spec.framework_type!r}: name an image, or ask the operator"
            yield Problem(reason="RuntimeUnknown", message=message)


def _folders(service: JointInferenceService, models: Iterable[Object | None], policy: Policy) -> Iterable[Problem]:
    """Yield the paths of models and scripts that workers may not read."""
    for model in models:
        if model is not None:
            yield from forbidden_path(f"Model {model['metadata']['name']}: modelUrl", model_folder(model), policy)
    for side, worker in (("edgeWorker", service.spec.edge_worker), ("cloudWorker", service.spec.cloud_worker)):
        yield from forbidden_path(f"{side}.workerSpec.scriptDir", script_folder(worker.worker_spec), policy)


def _object(kind: str, name: str, objects: Mapping[str, Object]) -> Found[Object | None]:
    found = objects.get(name)
    return found, () if found is not None else (missing(kind, name),)


def _nodes(service: JointInferenceService, world: World) -> Found[tuple[str, ...]]:
    """Find the nodes that the service is meant for."""
    worker = service.spec.edge_worker
    return named_nodes(worker.node_name, worker.node_selector, world.nodes)


def _edges(service: JointInferenceService, nodes: Iterable[str], world: World) -> Found[tuple[EdgePlan, ...]]:
    """Find what each node's worker reads there; a node that lacks it does without a worker."""
    wanted = service.spec.edge_worker.dataset
    labelled = _labelled(wanted, world)
    edges: list[EdgePlan] = []
    problems: list[Problem] = []
    for name in nodes:
        datasets, lacking = _datasets(wanted, name, world, labelled)
        forbidden = [
            problem
            for dataset, obj in datasets.items()
            for problem in forbidden_path(f"Dataset {dataset}: dataUrl", dataset_path(obj), world.policy)
        ]
        if lacking or forbidden:
            problems += (*lacking, *forbidden)
            continue
        broker = broker_of(world.nodes[name], world.policy)
        edges.append(EdgePlan(node=name, broker=broker, datasets=datasets))
    return tuple(edges), tuple(problems)


def _crowd(service: JointInferenceService, nodes: tuple[str, ...]) -> Iterable[Problem]:
    """Yield a problem where a cloud worker's environment could not hold what it needs to know."""
    parameters = [[one.key, one.value] for one in service.spec.cloud_worker.worker_spec.parameters]
    if len(canonical_json([nodes, parameters])) > MAX_TASK_BYTES:
        message = f"{len(nodes)} nodes are more than a cloud worker can be told of: make several services of them"
        yield Problem(reason="TooManyNodes", message=message)


def _labelled(wanted: DatasetRef | None, world: World) -> dict[str, dict[str, Object]]:
    """Return the datasets with the labels by node and name: gone through once, not once per node."""
    found: dict[str, dict[str, Object]] = {}
    if wanted is None or wanted.labels is None:
        return found
    labels = wanted.labels.items()
    for name, dataset in world.datasets.items():
        if labels <= labels_of(dataset).items():
            found.setdefault(dataset["spec"].get("nodeName", ""), {})[name] = dataset
    return found


def _datasets(
    wanted: DatasetRef | None, node: str, world: World, labelled: Mapping[str, Mapping[str, Object]]
) -> Found[Mapping[str, Object]]:
    """Find the datasets that a node's worker reads, by name."""
    if wanted is None:
        return {}, ()
    if wanted.name is None:
        found = dict(sorted(labelled.get(node, {}).items()))
        text = text_of((wanted.labels or {}).items())
        message = f"no Dataset on node {node} has the labels {text}"
        return found, () if found else (Problem(reason="DatasetNotFound", message=message),)
    dataset = world.datasets.get(wanted.name)
    if dataset is None:
        return {}, (missing("Dataset", wanted.name),)
    owner = dataset["spec"].get("nodeName")
    if owner != node:
        message = f"Dataset {wanted.name} is on node {owner}, the worker on {node}"
        return {}, (Problem(reason="DatasetNotOnNode", message=message),)
    return {wanted.name: dataset}, ()
