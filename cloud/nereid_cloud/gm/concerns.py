# SPDX-License-Identifier: Apache-2.0
"""Which resources a Node concerns, by what they say of nodes, found without going through all of them; no I/O.

A fleet's Nodes come and change one by one, and a look at a service is a look at all of its nodes.
"""

from collections.abc import Hashable, Iterator, Mapping
from typing import Any, Final, TypeVar

from nereid_cloud.cluster.port import Object

_PARTS: Final = ("edgeWorker", "cloudWorker")

K = TypeVar("K", bound=Hashable)
V = TypeVar("V", bound=Hashable)
Label = tuple[str, str]
Selector = frozenset[Label]


class Concerns:
    """An index of resources by the nodes that they name, and by one label of each selector."""

    def __init__(self) -> None:
        self._by_name: dict[str, set[str]] = {}
        self._by_label: dict[Label, set[tuple[str, Selector]]] = {}

    def changed(self, former: Object | None, present: Object | None) -> None:
        """Take a change of a resource, as a cache tells it."""
        for obj, update in ((former, _drop), (present, _add)):
            uid = (obj or {}).get("metadata", {}).get("uid", "")
            for part in _parts(obj):
                if part.get("nodeName"):
                    update(self._by_name, part["nodeName"], uid)
                elif part.get("nodeSelector"):
                    selector = frozenset(part["nodeSelector"].items())
                    update(self._by_label, min(selector), (uid, selector))

    def of(self, node: Object | None) -> set[str]:
        """Return the uids of the resources that name a Node or select it; none where there is no Node."""
        if node is None:
            return set()
        labels = (node["metadata"].get("labels") or {}).items()
        chosen = {uid for label in labels for uid, selector in self._by_label.get(label, ()) if selector <= labels}
        return chosen | self._by_name.get(node["metadata"]["name"], set())


def _parts(obj: Object | None) -> Iterator[Mapping[str, Any]]:
    spec = (obj or {}).get("spec") or {}
    yield spec
    yield from (spec[part] for part in _PARTS if spec.get(part))


def _add(index: dict[K, set[V]], key: K, value: V) -> None:
    index.setdefault(key, set()).add(value)


def _drop(index: dict[K, set[V]], key: K, value: V) -> None:
    values = index.get(key, set())
    values.discard(value)
    if not values:
        index.pop(key, None)
