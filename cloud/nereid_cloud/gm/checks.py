# SPDX-License-Identifier: Apache-2.0
"""What stands in the way of a resource's workers, of whatever kind: its spec, namespace, paths and nodes; no I/O."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any, Final, TypeVar

from nereid_cloud.cluster.port import Object
from nereid_cloud.gm.conditions import Problem
from nereid_cloud.gm.downstream import TASK_UNRESOLVED
from nereid_cloud.gm.names import EDGE_BROKER_ANNOTATION, HOSTNAME_LABEL
from nereid_cloud.gm.policy import Policy
from nereid_shared import topics
from nereid_shared.resources import broken_rules

REFUSED_NAMESPACE: Final = topics.ROOT

V = TypeVar("V")
# What was resolved, and what stood in the way of the rest.
Found = tuple[V, tuple[Problem, ...]]


def broken(raw: Object) -> Iterable[Problem]:
    """Yield the rules that a resource breaks, which an API server of another version may have let pass."""
    for cause in broken_rules(raw["kind"], raw):
        yield Problem(reason="SpecInvalid", message=f"{cause.field}: {cause.message}")
    if raw["metadata"].get("namespace") == REFUSED_NAMESPACE:
        yield Problem(reason="NamespaceRefused", message=f"namespace {REFUSED_NAMESPACE} is Nereid's topics'")


def not_served(namespace: str, policy: Policy) -> Iterable[Problem]:
    """Yield a problem where no Pods may be made in the namespace."""
    if not policy.serves(namespace):
        listed = ", ".join(sorted(policy.namespaces))
        message = f"the GlobalManager serves namespaces {listed}, not {namespace}"
        yield Problem(reason="NamespaceNotServed", message=message)


def forbidden_path(field: str, path: PurePosixPath | None, policy: Policy) -> Iterable[Problem]:
    """Yield a problem where workers may not read a path of their node."""
    if path is not None and not policy.allows(path):
        roots = " or ".join(map(str, policy.host_roots))
        message = f"{field}: workers may not read {path}, only folders of users below {roots}"
        yield Problem(reason="PathNotAllowed", message=message)


def unresolved(nodes: Collection[str]) -> Iterable[Problem]:
    """Yield a problem where nodes hold a task of which nobody knows the row."""
    if nodes:
        more = f" (and {len(nodes) - 1} more)" if len(nodes) > 1 else ""
        message = f"node {min(nodes)}{more} keeps the task as it has it and is told nothing: it cannot be resolved"
        yield Problem(reason=TASK_UNRESOLVED, message=message)


def named_nodes(
    name: str | None, selector: Mapping[str, str] | None, nodes: Mapping[str, Object]
) -> Found[tuple[str, ...]]:
    """Find the nodes that a name or, without one, labels mean; a name that topics cannot hold is a problem."""
    if name:
        if name not in nodes:
            return (), (missing("Node", name),)
        names = [name]
    else:
        wanted = (selector or {}).items()
        names = sorted(name for name, node in nodes.items() if wanted <= labels_of(node).items())
        if not names:
            return (), (Problem(reason="NodeNotFound", message=f"no Node has the labels {text_of(wanted)}"),)
    found, problems = [], []
    for one in names:
        try:
            found.append(topics.node_name(one))
        except ValueError as error:
            problems.append(Problem(reason="NodeNameInvalid", message=str(error)))
    return tuple(found), tuple(problems)


def broker_of(node: Object, policy: Policy) -> str:
    """Return the URL of a node's own broker, as a Pod on it reaches it."""
    return (node["metadata"].get("annotations") or {}).get(EDGE_BROKER_ANNOTATION) or policy.edge_broker


def hostname(node: Object) -> str:
    """Return what a Pod's nodeSelector names a node by."""
    return str(labels_of(node).get(HOSTNAME_LABEL) or node["metadata"]["name"])


def labels_of(obj: Object) -> Mapping[str, Any]:
    """Return an object's labels."""
    labels: Mapping[str, Any] = obj["metadata"].get("labels") or {}
    return labels


def text_of(labels: Iterable[tuple[str, str]]) -> str:
    """Return labels as one writes them for a selector."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels))


def missing(kind: str, name: str) -> Problem:
    """Return the problem of an object that is not there."""
    return Problem(reason=f"{kind}NotFound", message=f"{kind} {name!r} does not exist")
