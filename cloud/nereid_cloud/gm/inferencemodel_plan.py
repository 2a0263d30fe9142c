# SPDX-License-Identifier: Apache-2.0
"""What an InferenceModel comes to: its nodes, what serves it, which version, or why none can be; no I/O.

Level-triggered, as `nereid_cloud.gm.plan`: a problem heals when the missing thing appears. What is served meanwhile
goes on.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from nereid_cloud.cluster.port import Object
from nereid_cloud.gm.checks import (
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
from nereid_cloud.gm.names import HOSTNAME_LABEL
from nereid_cloud.gm.policy import Policy, Runtime
from nereid_shared.places import node_path
from nereid_shared.resources import InferenceModel
from nereid_shared.serving import EDGE, port_of, target_of, versions_of

VERSION_NOT_FOUND: Final = "VersionNotFound"
PORT_TAKEN: Final = "PortTaken"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What serves a model.

    Attributes:
        runtime: its image, and how it is started.
        is_ours: our worker, which reads a task; else a server of others, whose Pod alone shows how it fares.
        version: what it is to serve; "" where the image itself decides.
        port: where it listens.
    """

    runtime: Runtime
    is_ours: bool
    version: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPlan:
    """What an InferenceModel comes to.

    Attributes:
        is_edge: on which layer it is.
        nodes: at the edge, the nodes that it is meant for, as far as they exist, with the URL of each one's broker.
        selector: in the cloud, what its nodes are labelled with.
        server: None where it cannot be served as it is written.
        yields: it may serve nowhere, nor go on with what it had.
        problems: what is missing or wrong.
    """

    is_edge: bool
    nodes: Mapping[str, str] = field(default_factory=dict)
    selector: Mapping[str, str] = field(default_factory=dict)
    server: Server | None
    yields: bool = False
    problems: tuple[Problem, ...]


def plan(model: InferenceModel, raw: Object, *, nodes: Mapping[str, Object], policy: Policy) -> ModelPlan:
    """Resolve what an InferenceModel names."""
    server, no_server = _server(model, raw, policy)
    fatal = (*broken(raw), *not_served(model.metadata.namespace, policy), *no_server, *_files(raw, server, policy))
    astray = tuple(_astray(model, nodes))
    is_edge = model.spec.deploy_to_layer == EDGE
    found: tuple[str, ...] = ()
    selector: Mapping[str, str] = {}
    if is_edge and not astray:
        found, astray = named_nodes(model.spec.node_name, model.spec.node_selector, nodes)
    elif not astray:
        selector = _selector(model, nodes)
    lost = bool(astray) and not is_edge
    return ModelPlan(
        is_edge=is_edge,
        nodes={name: broker_of(nodes[name], policy) for name in found} if model.spec.replicas else {},
        selector=selector,
        server=None if fatal or lost else server,
        problems=(*fatal, *astray),
    )


def without_rival(
    mine: ModelPlan, raw: Object, others: Iterable[Object], planned: Callable[[Object], ModelPlan], *, policy: Policy
) -> ModelPlan:
    """Return a plan without the places where another model has the port: both would answer on it in turns.

    Who has it keeps it; of two that want it, the older has it.

    Args:
        mine: the plan.
        raw: the model.
        others: the other models.
        planned: returns what one of them comes to.
        policy: on a laptop, where `Policy.listen` is one address, the port is the machine's.
    """
    server = mine.server
    if server is None or not (mine.is_edge or policy.listen):
        return mine
    for other in others:
        if port_of(other["spec"]) != server.port or _claim(other, server.port) >= _claim(raw, server.port):
            continue
        theirs = planned(other)
        shared = sorted(mine.nodes.keys() & theirs.nodes.keys())
        on_machine = policy.listen and (theirs.nodes or not theirs.is_edge)
        # One that cannot be served as it is written now may go on with what it had.
        if not (shared or on_machine) or (theirs.server is None and not _pods_of(other)):
            continue
        where = f"node {shared[0]}" if shared else "this machine"
        owner = f"{other['metadata']['namespace']}/{other['metadata']['name']}"
        message = f"port {server.port} on {where} is InferenceModel {owner}'s: choose another servingPort"
        problems = (*mine.problems, Problem(reason=PORT_TAKEN, message=message))
        if _pods_of(raw) and not _has(raw, server.port):
            return replace(mine, server=None, problems=problems)  # it goes on where it is
        left = {} if on_machine else {name: broker for name, broker in mine.nodes.items() if name not in shared}
        return replace(mine, nodes=left, server=server if left else None, yields=not left, problems=problems)
    return mine


def _claim(raw: Object, port: int) -> tuple[bool, str, str]:
    """Return what orders those who want a port, the first of them to have it."""
    return not _has(raw, port), raw["metadata"].get("creationTimestamp") or "", raw["metadata"]["uid"]


def _has(raw: Object, port: int) -> bool:
    return _pods_of(raw) > 0 and str((raw.get("status") or {}).get("url", "")).endswith(f":{port}")


def _pods_of(raw: Object) -> int:
    return int((raw.get("status") or {}).get("replicas") or 0)


def _server(model: InferenceModel, raw: Object, policy: Policy) -> tuple[Server | None, tuple[Problem, ...]]:
    framework, spec = model.spec.framework_type, raw["spec"]
    runtime = policy.server(framework)
    port = port_of(spec)
    if model.spec.image:
        known = runtime or Runtime(image=model.spec.image)
        own = Runtime(image=model.spec.image, edge=known.edge, cloud=known.cloud)
        return Server(runtime=own, is_ours=False, version="", port=port), ()
    if runtime is None:
        known_ones = ", ".join(sorted(policy.runtimes))
        message = f"no runtime serves framework {framework!r}: name an image, or one of {known_ones}"
        return None, (Problem(reason="RuntimeUnknown", message=message),)
    target = target_of(spec)
    if target not in versions_of(spec):
        listed = ", ".join(versions_of(spec))
        message = f"targetVersion {target!r} is not in the manifest, which has {listed or 'nothing'}"
        return None, (Problem(reason=VERSION_NOT_FOUND, message=message),)
    port = port if runtime.is_ours else runtime.port or port
    return Server(runtime=runtime, is_ours=runtime.is_ours, version=target, port=port), ()


def _files(raw: Object, server: Server | None, policy: Policy) -> Iterable[Problem]:
    """Yield the paths of model files that workers may not read."""
    if server is not None and server.version:
        for version, file in versions_of(raw["spec"]).items():
            path = node_path(file["downloadURL"])
            yield from forbidden_path(f"version {version}: downloadURL", path and path.parent, policy)


def _astray(model: InferenceModel, nodes: Mapping[str, Object]) -> Iterable[Problem]:
    """Yield why the node that the model names cannot be meant."""
    name, wanted = model.spec.node_name, (model.spec.node_selector or {}).items()
    if not name:
        return
    if name not in nodes:
        yield missing("Node", name)
    elif not wanted <= labels_of(nodes[name]).items():
        message = f"Node {name} does not have the labels {text_of(wanted)} of nodeSelector"
        yield Problem(reason="NodeSelectorMismatch", message=message)


def _selector(model: InferenceModel, nodes: Mapping[str, Object]) -> Mapping[str, str]:
    named = {HOSTNAME_LABEL: hostname(nodes[model.spec.node_name])} if model.spec.node_name else {}
    return {**(model.spec.node_selector or {}), **named}
