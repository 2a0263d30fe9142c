# SPDX-License-Identifier: Apache-2.0
"""What the nodes and cloud workers said last, judged by the protocol's rules of order and freshness; no I/O.

Every method takes the monotonic time of arrival: the sender's clock is never believed. A message that the broker
remembered (RETAIN) is of unknown age: it tells what was said, not that the speaker is there.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from nereid_shared.messages import NodeAlive, NodeState, TaskState, TaskStatus, WorkerInfo
from nereid_shared.numbering import Numbers
from nereid_shared.times import rfc3339


@dataclass(slots=True)
class NodeView:
    """One node's LocalController as it was heard.

    Attributes:
        heard_at: monotonic time of the last live message; None where only retained ones came.
        online: by birth and will, and by whatever else it says: `alive` can be lost, or come from somebody else. A
            will of an earlier connection does not count.
        tasks: from the last full `state`, by uid.
        statuses: the last status of each task, by uid; `reported_at` has the monotonic times of their arrival.
        left_at: monotonic time of the will, or of the goodbye; None where it was remembered by the broker.
        duplicate: two LocalControllers alternate under this name.
    """

    alive: NodeAlive | None = None
    state: NodeState | None = None
    heard_at: float | None = None
    left_at: float | None = None
    online: bool = False
    duplicate: bool = False
    tasks: Mapping[str, TaskState] = field(default_factory=dict)
    statuses: dict[str, TaskStatus] = field(default_factory=dict)
    reported_at: dict[str, float] = field(default_factory=dict)
    _boot: str = ""
    _former_boots: set[str] = field(default_factory=set)
    _numbers: dict[str, tuple[str, Numbers]] = field(default_factory=dict)

    def is_observable(self, now: float, *, timeout_s: float) -> bool:
        """Whether the LocalController is there by its own recent word."""
        return self.online and self.heard_at is not None and now - self.heard_at <= timeout_s

    def task(self, uid: str) -> TaskState | None:
        """Return what the node's `state` says of a task."""
        return self.tasks.get(uid)

    def status(self, uid: str) -> TaskStatus | None:
        """Return the last status of a task."""
        return self.statuses.get(uid)

    def on_alive(self, alive: NodeAlive, *, retained: bool, now: float) -> bool:
        """Take birth or will; returns whether it counted."""
        current = self.alive
        if alive.status == "offline":
            if current is not None and (alive.boot, alive.connection) != (current.boot, current.connection):
                return False
            self.alive, self.online, self.left_at = alive, False, None if retained else now
            return True
        if current is not None and alive.boot == current.boot and alive.connection < current.connection:
            return False
        self.alive, self.online = alive, True
        self.heard(alive.boot, retained=retained, now=now)
        return True

    def on_state(self, state: NodeState, *, retained: bool, now: float) -> bool:
        """Take the acknowledgement; returns whether it was in order.

        Raises:
            MessageInvalid: its number cannot be the node's.
        """
        current = self.state
        if current is not None and state.boot != current.boot and retained:
            return False
        if not _is_later(state, self._numbers, ""):
            return False
        self.state = state
        if state.tasks is not None:
            self.tasks = state.tasks
        elif current is not None and state.digest != current.digest:
            self.tasks = {}
        self.heard(state.boot, retained=retained, now=now)
        return True

    def on_status(self, uid: str, status: TaskStatus, *, now: float) -> bool:
        """Take a task's status; returns whether it was in order. That the node was heard is said apart.

        Raises:
            MessageInvalid: its number cannot be the node's.
        """
        if not _is_later(status, self._numbers, uid):
            return False
        self.statuses[uid], self.reported_at[uid] = status, now
        return True

    def forget(self, uid: str) -> None:
        """Drop what was said of a task."""
        self.statuses.pop(uid, None)
        self.reported_at.pop(uid, None)
        self._numbers.pop(uid, None)

    def heard(self, boot: str, *, retained: bool, now: float) -> None:
        """Note that the LocalController spoke, whatever it said."""
        if retained:
            self._boot = self._boot or boot
            return
        self.heard_at = now
        self.online = self.online or boot not in self._former_boots
        if boot != self._boot:
            # A boot that another one had replaced speaks again: a cloned disk, or a name given twice.
            self.duplicate = self.duplicate or boot in self._former_boots
            self._former_boots.add(self._boot)
            self._boot = boot


@dataclass(slots=True)
class Observed:
    """All nodes and cloud workers as they were heard.

    Args:
        timeout_s: a LocalController that was silent for so long is offline.
        clock: monotonic seconds.
        linked: whether there is a connection to the cloud broker.
        born: the time at which `clock` was `born_at`, in seconds since the epoch; what is told of moments is reckoned
            from it.
    """

    timeout_s: float
    clock: Callable[[], float]
    linked: Callable[[], bool] = lambda: True
    born: float = field(default_factory=time.time)
    born_at: float = field(init=False)
    nodes: dict[str, NodeView] = field(default_factory=dict)
    cloud: dict[str, dict[str, WorkerInfo]] = field(default_factory=dict)
    _numbers: dict[str, tuple[str, Numbers]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.born_at = self.clock()

    def speaker(self, name: str) -> NodeView:
        """Return the view of a node that speaks, a new one at its first word."""
        return self.nodes.setdefault(name, NodeView())

    def task(self, node: str, uid: str) -> TaskState | None:
        """Return what a node's `state` says of a task."""
        view = self.nodes.get(node)
        return None if view is None else view.task(uid)

    def status(self, node: str, uid: str) -> TaskStatus | None:
        """Return the last status of a task on a node."""
        view = self.nodes.get(node)
        return None if view is None else view.status(uid)

    def is_observable(self, name: str) -> bool:
        """Whether the node's LocalController is there by its own recent word."""
        view = self.nodes.get(name)
        return view is not None and view.is_observable(self.clock(), timeout_s=self.timeout_s)

    def is_unheard(self, name: str) -> bool:
        """Whether nobody can say yet that the node is there, or that it is not."""
        view = self.nodes.get(name)
        return view is None or (view.heard_at is None and (view.alive is None or view.online))

    def absence(self, name: str) -> str:
        """Return why nothing can be said of the node, "" where its LocalController is there; the same until it speaks.

        Moments, not ages: a message that changed with each look would be written at each look.
        """
        if self.is_observable(name):
            return ""
        if not self.linked():
            return "the GlobalManager has no connection to the cloud broker"
        view = self.nodes.get(name)
        if view is None or (view.alive is None and view.heard_at is None):
            return "its LocalController was never heard"
        if not view.online:
            since = "" if view.left_at is None else f" since {self.time_of(view.left_at)}"
            return f"its LocalController is offline{since}"
        if view.heard_at is None:
            return "its LocalController has said nothing since the GlobalManager started"
        return f"its LocalController is silent since {self.time_of(view.heard_at)}, for more than {self.timeout_s:g} s"

    def reported_at(self, uid: str, nodes: Iterable[str]) -> str | None:
        """Return when the oldest of these nodes' present words on a task came, None where none of them spoke."""
        times = [view.reported_at.get(uid) for name in nodes if (view := self.nodes.get(name)) is not None]
        oldest = min((at for at in times if at is not None), default=None)
        return None if oldest is None else self.time_of(oldest)

    def time_of(self, at: float) -> str:
        """Return a moment of our clock as RFC 3339."""
        return rfc3339(self.born + at - self.born_at)

    def forget_task(self, uid: str, nodes: Iterable[str] | None = None) -> None:
        """Drop what these nodes, or all, said of a task that is no more there."""
        for name in list(self.nodes) if nodes is None else nodes:
            if (view := self.nodes.get(name)) is not None:
                view.forget(uid)

    def on_cloud_info(self, service: str, pod: str, info: WorkerInfo | None) -> bool:
        """Take a cloud worker's word, None where its topic was cleared; returns whether it counted.

        Raises:
            MessageInvalid: its number cannot be the worker's.
        """
        if info is None:
            pods = self.cloud.get(service, {})
            was_there = pods.pop(pod, None) is not None
            if not pods:
                self.cloud.pop(service, None)
            self._numbers.pop(f"{service}/{pod}", None)
            return was_there
        current = self.cloud.get(service, {}).get(pod)
        if info.status == "offline":
            # A will was written when the connection began: its number says nothing.
            _numbers_of(info, self._numbers, f"{service}/{pod}").check(info.number, boot=info.boot)
            if current is not None and info.boot != current.boot:
                return False
        elif not _is_later(info, self._numbers, f"{service}/{pod}"):
            return False
        self.cloud.setdefault(service, {})[pod] = info
        return True


def _is_later(said: NodeState | TaskStatus | WorkerInfo, heard: dict[str, tuple[str, Numbers]], of: str) -> bool:
    """Return whether a message is in order among those of its boot; another boot begins anew.

    Raises:
        MessageInvalid: its number cannot be the speaker's.
    """
    numbers = _numbers_of(said, heard, of)
    if not numbers.take(said.number, boot=said.boot):
        return False
    heard[of] = said.boot, numbers
    return True


def _numbers_of(said: NodeState | TaskStatus | WorkerInfo, heard: dict[str, tuple[str, Numbers]], of: str) -> Numbers:
    boot, numbers = heard.get(of, ("", None))
    return numbers if numbers is not None and boot == said.boot else Numbers()
