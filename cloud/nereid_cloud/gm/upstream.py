# SPDX-License-Identifier: Apache-2.0
"""From the nodes and cloud workers to the GlobalManager: named leaf subscriptions, checked before they count.

A node's word is taken only about itself, and about a task only while the node holds it. What counted goes into
`nereid_cloud.gm.observed`, which the controllers read.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from nereid_cloud.gm.desired import is_incredible
from nereid_cloud.gm.downstream import Downstream
from nereid_cloud.gm.observed import NodeView, Observed
from nereid_shared import topics
from nereid_shared.errors import MessageInvalid
from nereid_shared.kinds import KINDS
from nereid_shared.link import Handler, Message
from nereid_shared.messages import Body, NodeAlive, NodeState, Sync, TaskRow, TaskStatus, WorkerInfo

logger = logging.getLogger(__name__)

B = TypeVar("B", bound=Body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listeners:
    """Who is told what counted.

    Attributes:
        on_node: something about a node changed.
        on_status: a task's status came; `urgent` where more than counters changed.
        on_word: what a node says of a task, in order, news or not.
        on_cloud: a service's cloud worker spoke.
        on_duplicate: two LocalControllers alternate under one node's name.
    """

    on_node: Callable[[str], None]
    on_status: Callable[[str, bool], None]
    on_word: Callable[[str, TaskStatus], None]
    on_cloud: Callable[[str], None]
    on_duplicate: Callable[[str], None]


class Upstream:
    """The handlers of what comes up.

    Attributes:
        seen_epoch: the highest epoch of our cluster that a node has applied.
    """

    def __init__(self, *, cluster: str, observed: Observed, downstream: Downstream, listeners: Listeners) -> None:
        self.seen_epoch = 0
        self._cluster, self._observed, self._downstream, self._listeners = cluster, observed, downstream, listeners

    def subscriptions(self) -> Mapping[str, Handler]:
        """Return the handlers by filter: each a named leaf, never ``upstream/#``."""
        return {
            topics.NODE_ALIVE.filter(): self._on_alive,
            topics.STATE.filter(): self._on_state,
            topics.STATUS.filter(): self._on_status,
            topics.SYNC.filter(): self._on_sync,
            topics.CLOUD_INFO.filter(): self._on_cloud_info,
            topics.DESIRED.filter(): self._on_document,
            topics.GM_ALIVE.of(): self._downstream.on_gm_alive,
            topics.GM_SENTINEL.of(): self._downstream.on_sentinel,
        }

    def _on_alive(self, message: Message) -> None:
        if not message.payload:
            return
        node = _levels(topics.NODE_ALIVE, message)["node"]
        alive = _body(NodeAlive, topics.NODE_ALIVE, message)
        view = self._observed.speaker(node)
        if view.on_alive(alive, retained=message.retain, now=self._observed.clock()):
            self._listeners.on_node(node)
            self._warn_of_duplicate(node, view)

    def _on_state(self, message: Message) -> None:
        if not message.payload:
            return
        node = _levels(topics.STATE, message)["node"]
        state = _body(NodeState, topics.STATE, message)
        if state.cluster == self._cluster:
            if is_incredible(state.epoch, own=self._downstream.epoch):
                self._downstream.on_state(node, state)  # it says so; what the node said before stays
                return
            self.seen_epoch = max(self.seen_epoch, state.epoch)
        view = self._observed.speaker(node)
        former, was_observable = (view.state, view.tasks), self._observed.is_observable(node)
        if view.on_state(state, retained=message.retain, now=self._observed.clock()):
            self._downstream.on_state(node, state)
            # A fleet's heartbeats must not keep the controllers busy: they say nothing new.
            if not was_observable or former[0] is None or _place(former[0]) != _place(state) or former[1] != view.tasks:
                self._listeners.on_node(node)
            self._warn_of_duplicate(node, view)

    def _on_status(self, message: Message) -> None:
        levels = _levels(topics.STATUS, message)
        status = _body(TaskStatus, topics.STATUS, message)
        node, row = levels["node"], self._downstream.last_row(levels["node"], status.uid)
        view, was_observable = self._observed.speaker(node), self._observed.is_observable(node)
        former, now = view.status(status.uid), self._observed.clock()
        # Also what does not count shows that the node is there: it may be all that it says until its next heartbeat.
        view.heard(status.boot, retained=message.retain, now=now)
        if not was_observable and self._observed.is_observable(node):
            self._listeners.on_node(node)
        if row is None or not _is_of(row, levels):
            logger.warning("status of a task that the node does not hold", extra={"topic": message.topic})
        elif view.on_status(status.uid, status, now=now):
            self._listeners.on_status(status.uid, former is None or _news(former) != _news(status))
            self._listeners.on_word(node, status)
        self._warn_of_duplicate(node, view)

    def _on_sync(self, message: Message) -> None:
        node = _levels(topics.SYNC, message)["node"]
        self._downstream.on_sync(node, _body(Sync, topics.SYNC, message))

    def _on_cloud_info(self, message: Message) -> None:
        levels = _levels(topics.CLOUD_INFO, message)
        info = _body(WorkerInfo, topics.CLOUD_INFO, message) if message.payload else None
        if self._observed.on_cloud_info(levels["service"], levels["pod"], info):
            self._listeners.on_cloud(levels["service"])

    def _on_document(self, message: Message) -> None:
        self._downstream.on_document(_levels(topics.DESIRED, message)["node"], message)

    def _warn_of_duplicate(self, node: str, view: NodeView) -> None:
        if view.duplicate:
            view.duplicate = False
            self._listeners.on_duplicate(node)


def _levels(topic: topics.Topic, message: Message) -> dict[str, str]:
    levels = topic.match(message.topic)
    if levels is None:
        raise MessageInvalid(f"{message.topic}: not a topic of {topic.pattern}")
    return levels


def _body(kind: type[B], topic: topics.Topic, message: Message) -> B:
    return kind.decode(message.payload, max_bytes=topic.max_bytes, topic=message.topic)


def _is_of(row: TaskRow, levels: Mapping[str, str]) -> bool:
    kind = KINDS.get(row.kind)
    named = (levels["plural"], levels["namespace"], levels["name"])
    return kind is not None and named == (kind.plural, row.namespace, row.name)


def _place(state: NodeState) -> tuple[object, ...]:
    return state.cluster, state.epoch, state.rev, state.digest, state.reason


def _news(status: TaskStatus) -> tuple[object, ...]:
    held = status.number_of_samples, status.statistics, status.serving_version
    models = status.output.models if status.output is not None else []
    return status.status, status.reason, status.message, status.generation, status.worker, models, *held
