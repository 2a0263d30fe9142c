# SPDX-License-Identifier: Apache-2.0
"""A resource's task on each of its nodes, made once per content: every word of a fleet brings another look at all."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from nereid_cloud.cluster.port import Object
from nereid_cloud.gm.plan import EdgePlan, Parts
from nereid_cloud.gm.pods import edge_pod
from nereid_cloud.gm.policy import Policy
from nereid_shared.digests import task_hash
from nereid_shared.messages import TaskRow
from nereid_shared.resources import JointInferenceService
from nereid_shared.topics import service_id

MADE_AT_ONCE: Final = 50


@dataclass(slots=True)
class _Made:
    """What was made of one resource, by node, beside what it was made of there."""

    made_of: object
    nodes: dict[str, tuple[object, TaskRow]] = field(default_factory=dict)


class Rows:
    """The rows of all resources of one kind, by node."""

    def __init__(self) -> None:
        self._made: dict[str, _Made] = {}

    def make(
        self, uid: str, made_of: object, nodes: Mapping[str, object], row: Callable[[str], TaskRow]
    ) -> Iterator[None]:
        """Yield after each row that had to be made; what was made counts when all are there.

        Args:
            uid: the resource.
            made_of: what all its rows are made of: equal things make equal rows.
            nodes: by node, what its row is made of besides.
            row: makes a node's row.
        """
        former = self._made.get(uid)
        known = former.nodes if former is not None and former.made_of == made_of else {}
        present = _Made(made_of)
        for node, here in nodes.items():
            made = known.get(node)
            if made is None or made[0] != here:
                made = here, row(node)
                yield
            present.nodes[node] = made
        self._made[uid] = present

    def of(self, uid: str) -> dict[str, TaskRow]:
        """Return the rows of a resource that were made last, by node."""
        return {node: row for node, (_, row) in self._made[uid].nodes.items()}

    def forget(self, uid: str) -> None:
        """Drop what was made of a resource that is no more."""
        self._made.pop(uid, None)


async def in_turns(making: Iterator[None]) -> None:
    """Make rows a few at a time: those of 10,000 nodes take longer than a Lease may wait."""
    for made, _ in enumerate(making, 1):
        if made % MADE_AT_ONCE == 0:
            await asyncio.sleep(0)


class Resolver:
    """The tasks of all services.

    Args:
        policy: what workers may be.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._rows = Rows()

    async def prepare(self, service: JointInferenceService, raw: Object, parts: Parts) -> None:
        """Make what `rows` returns, leaving others their turn."""
        await in_turns(self._make(service, raw, parts))

    def rows(self, service: JointInferenceService, raw: Object, parts: Parts) -> dict[str, TaskRow]:
        """Return the rows by node; each names its Pod in `refs`."""
        for _ in self._make(service, raw, parts):
            pass
        return self._rows.of(service.metadata.uid)

    def _make(self, service: JointInferenceService, raw: Object, parts: Parts) -> Iterator[None]:
        made_of = raw["metadata"].get("generation"), _version(parts.little)
        little = {parts.little["metadata"]["name"]: _ref(parts.little)}
        edges = {edge.node: edge for edge in parts.edges}
        here = {node: (edge.broker, list(map(_version, edge.datasets.values()))) for node, edge in edges.items()}

        def row(node: str) -> TaskRow:
            return self._row(service, raw, edges[node], parts=parts, little=little)

        return self._rows.make(service.metadata.uid, made_of, here, row)

    def pod(self, service: JointInferenceService, raw: Object, parts: Parts, edge: EdgePlan) -> Object:
        """Return a node's Pod."""
        return edge_pod(service, raw, edge, little=parts.little, policy=self._policy)

    def forget(self, uid: str) -> None:
        """Drop what was made of a service that is no more."""
        self._rows.forget(uid)

    def _row(
        self, service: JointInferenceService, raw: Object, edge: EdgePlan, *, parts: Parts, little: Mapping[str, Any]
    ) -> TaskRow:
        """Return the task as the node needs it: the LocalController cannot look anything up."""
        metadata = service.metadata
        refs: dict[str, Any] = {
            "worker": self.pod(service, raw, parts, edge)["metadata"]["name"],
            "service": service_id(metadata.name, metadata.uid),
            "models": little,
            "datasets": {name: _ref(dataset) for name, dataset in edge.datasets.items()},
        }
        return TaskRow(
            kind=raw["kind"],
            namespace=metadata.namespace,
            name=metadata.name,
            generation=metadata.generation,
            hash=task_hash(raw["spec"], refs),
            spec=raw["spec"],
            refs=refs,
        )


def _version(obj: Object) -> tuple[str, int]:
    metadata = obj["metadata"]
    return metadata["uid"], metadata.get("generation", 0)


def _ref(obj: Object) -> dict[str, Any]:
    metadata = obj["metadata"]
    return {"uid": metadata["uid"], "generation": metadata.get("generation", 0), "spec": obj["spec"]}
