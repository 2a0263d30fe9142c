# SPDX-License-Identifier: Apache-2.0
"""Which nodes shall have which task, and which hold one whose row nobody knows; no I/O."""

from collections.abc import Mapping
from typing import Final

from nereid_shared.messages import TaskRow

_NONE: Final[frozenset[str]] = frozenset()


class Assignments:
    """Rows by node and task."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, TaskRow]] = {}
        self._holders: dict[str, frozenset[str]] = {}
        self._unresolved: dict[str, frozenset[str]] = {}

    def assign(self, uid: str, rows: Mapping[str, TaskRow]) -> frozenset[str]:
        """Let exactly these nodes have the task; returns those that had it or have it now."""
        former = self.nodes_of(uid)
        for node in former - rows.keys():
            del self._rows[node][uid]
            if not self._rows[node]:
                del self._rows[node]
        for node, row in rows.items():
            self._rows.setdefault(node, {})[uid] = row
        if rows:
            self._holders[uid] = frozenset(rows)
        else:
            self._holders.pop(uid, None)
        return former | rows.keys()

    def withhold(self, uid: str, nodes: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
        """Note which nodes lack the task's row.

        Returns:
            The nodes that lacked no row before, and those that lack none any more.
        """
        former = self._unresolved.pop(uid, _NONE)
        before = {node for node in nodes if self.lacks(node)}
        if nodes:
            self._unresolved[uid] = nodes
        return nodes - former - before, frozenset(node for node in former - nodes if not self.lacks(node))

    def rows_of(self, node: str) -> Mapping[str, TaskRow]:
        """Return what a node shall have, by uid."""
        return self._rows.get(node, {})

    def tasks_of(self, node: str) -> frozenset[str]:
        """Return the tasks that a node shall have, and those of which it holds one that nobody knows."""
        return frozenset(self.rows_of(node)).union(uid for uid, nodes in self._unresolved.items() if node in nodes)

    def nodes_of(self, uid: str) -> frozenset[str]:
        """Return the nodes that shall have the task."""
        return self._holders.get(uid, _NONE)

    def unresolved(self, uid: str) -> frozenset[str]:
        """Return the nodes that hold the task while nobody knows its row."""
        return self._unresolved.get(uid, _NONE)

    def lacks(self, node: str) -> bool:
        """Whether the row of some task that the node holds is unknown."""
        return any(node in nodes for nodes in self._unresolved.values())
