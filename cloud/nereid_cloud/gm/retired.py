# SPDX-License-Identifier: Apache-2.0
"""The counts of nodes that let a service's task go: their own are gone with it, and come back where the task does.

No I/O: they stand in an annotation of the service.
"""

from collections.abc import Collection, Mapping
from typing import Final

from msgspec import field

from nereid_cloud.cluster.port import Object
from nereid_cloud.gm import ledgers
from nereid_cloud.gm.names import RETIRED_ANNOTATION
from nereid_shared.errors import MessageInvalid, MessageTooLarge
from nereid_shared.messages import Body, Ledger

MAX_NODES: Final = 16
"""Nodes whose counts are kept apart: a ledger is at most some 5 kB, an object's annotations together 256 kB."""

_MAX_BYTES: Final = 1 << 20


class Retired(Body, kw_only=True):
    """What is kept of a service.

    Attributes:
        nodes: the last ledger of each node that has let the task go, the first that did first.
        rest: the sum over nodes of which nothing more can come.
    """

    nodes: dict[str, Ledger] = field(default_factory=dict)
    rest: Ledger = field(default_factory=Ledger)

    def total(self) -> Ledger:
        """Return the sum."""
        return ledgers.total([*map(ledgers.retired, self.nodes.values()), self.rest])

    def after(self, told: Mapping[str, Ledger], *, gone: Collection[str]) -> "Retired":
        """Return what is to be kept after these ledgers.

        A node that holds the task again goes on from the counts that it had, which so are its own again; one whose
        counts are behind these has begun anew.

        Args:
            told: by node, of those that hold the task and of those that did until now.
            gone: the latter.
        """
        nodes, over = dict(self.nodes), []
        for node, ledger in told.items():
            if not ledger.seen:
                # Not yet a word of how it goes on.
                continue
            former = nodes.pop(node, None)
            if former is not None and ledgers.is_behind(ledger, ledgers.metrics_of(former)):
                over.append(former)
            if node in gone:
                nodes[node] = ledger
        while len(nodes) > MAX_NODES:
            over.append(nodes.pop(next(iter(nodes))))
        return Retired(nodes=nodes, rest=ledgers.total([self.rest, *map(ledgers.retired, over)]) if over else self.rest)


def retired_of(raw: Object) -> Retired:
    """Return what a service has on record."""
    text = (raw["metadata"].get("annotations") or {}).get(RETIRED_ANNOTATION)
    if not text:
        return Retired()
    try:
        return Retired.decode(text.encode(), max_bytes=_MAX_BYTES)
    except (MessageInvalid, MessageTooLarge):
        return Retired()
