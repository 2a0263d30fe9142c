# SPDX-License-Identifier: Apache-2.0
"""A service's task on each of its nodes, made once per content: every word of a fleet brings another look at all."""

import asyncio
from collections.abc import Iterator, Mapping
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
class _Service:
    """What was made of one service, by node, beside what it was made of there."""

    made_of: object
    nodes: dict[str, tuple[object, TaskRow]] = field(default_factory=dict)


class Resolver:
    """The tasks of all services.

    Args:
        policy: what workers may be.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._services: dict[str, _Service] = {}

    async def prepare(self, service: JointInferenceService, raw: Object, parts: Parts) -> None:
        """Make what `rows` returns, a few at a time: those of 10,000 nodes take longer than a Lease may wait."""
        for made, _ in enumerate(self._make(service, raw, parts), 1):
            if made % MADE_AT_ONCE == 0:
                await asyncio.sleep(0)

    def rows(self, service: JointInferenceService, raw: Object, parts: Parts) -> dict[str, TaskRow]:
        """Return the rows by node; each names its Pod in `refs`."""
        for _ in self._make(service, raw, parts):
            pass
        return {node: row for node, (_, row) in self._services[service.metadata.uid].nodes.items()}

    def _make(self, service: JointInferenceService, raw: Object, parts: Parts) -> Iterator[None]:
        """Yield after each row that had to be made; what was made counts when all are there."""
        made_of = raw["metadata"].get("generation"), _version(parts.little)
        former = self._services.get(service.metadata.uid)
        known = former.nodes if former is not None and former.made_of == made_of else {}
        present = _Service(made_of)
        little = {parts.little["metadata"]["name"]: _ref(parts.little)}
        for edge in parts.edges:
            here = edge.broker, [_version(dataset) for dataset in edge.datasets.values()]
            made = known.get(edge.node)
            if made is None or made[0] != here:
                made = here, self._row(service, raw, edge, parts=parts, little=little)
                yield
            present.nodes[edge.node] = made
        self._services[service.metadata.uid] = present

    def pod(self, service: JointInferenceService, raw: Object, parts: Parts, edge: EdgePlan) -> Object:
        """Return a node's Pod."""
        return edge_pod(service, raw, edge, little=parts.little, policy=self._policy)

    def forget(self, uid: str) -> None:
        """Drop what was made of a service that is no more."""
        self._services.pop(uid, None)

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
