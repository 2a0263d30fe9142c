# SPDX-License-Identifier: Apache-2.0
"""One look at a running service: its resource, its workers' logs of answers, and its nodes' links."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nereid_cloud.cluster.port import Cluster, Object, Ref
from nereid_cloud.demo.evaluation import AnswerLog, Said
from nereid_cloud.laptop import links
from nereid_cloud.laptop.system import System
from nereid_shared.errors import NotFound
from nereid_shared.topics import service_id


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What was seen.

    Attributes:
        per_node: by node what its worker has logged.
        links: by node what `links.ask` says of its link: mode, bytes up and down.
        at_s: monotonic time of the look.
    """

    service: Object
    per_node: dict[str, dict[str, Said]]
    links: dict[str, dict[str, Any]]
    note: str
    at_s: float


class Lookout:
    """Looks at one service of a running system, again and again.

    Args:
        nodes: whose logs are read.
    """

    def __init__(self, system: System, cluster: Cluster, ref: Ref, *, nodes: Iterable[str]) -> None:
        self._system, self._cluster, self._ref = system, cluster, ref
        self._logs = {node: AnswerLog() for node in nodes}

    def view(self, note: str = "") -> View:
        """Return what is there now.

        Raises:
            UserError: the system is down.
        """
        try:
            service = self._cluster.get(self._ref)
        except NotFound:
            service = {}
        for node, log in self._logs.items():
            log.follow(self._answers(node, service))
        return View(
            service=service,
            per_node={node: log.said for node, log in self._logs.items()},
            links={link["node"]: link for link in links.ask(self._system.control, {"do": "list"})},
            note=note,
            at_s=time.monotonic(),
        )

    def _answers(self, node: str, service: Object) -> Path:
        """The log of answers of a node's worker, in what stands for ``/var/lib/nereid`` there."""
        uid = service.get("metadata", {}).get("uid", "")
        folder = self._system.node_state(node) / "workers" / service_id(self._ref.name, uid)
        return folder / "answers.jsonl"
