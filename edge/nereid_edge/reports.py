# SPDX-License-Identifier: Apache-2.0
"""Which tasks' statuses the GlobalManager is to be sent: what changed since it was sent, and all at each heartbeat.

No I/O. A status is not retained and the way to the GlobalManager may lose it, so an unchanged one is repeated slowly.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from nereid_shared.messages import TaskStatus


@dataclass(slots=True)
class _Told:
    content: TaskStatus
    changed_at: float
    sent_at: float = float("-inf")


class Reports:
    """What the GlobalManager was sent.

    Args:
        heartbeat_s: rhythm of a status that does not change.
    """

    def __init__(self, *, heartbeat_s: float) -> None:
        self._heartbeat_s = heartbeat_s
        self._told: dict[str, _Told] = {}

    def is_due(self, status: TaskStatus, *, now: float, at: float) -> bool:
        """Take in a task's status as it is; whether it is to be sent.

        Args:
            status: as it is now.
            now: monotonic seconds.
            at: seconds since the epoch.
        """
        content = _content(status)
        told = self._told.get(status.uid)
        if told is None or told.content != content:
            told = self._told[status.uid] = _Told(content, at)
        return now - told.sent_at >= self._heartbeat_s

    def changed_at(self, uid: str) -> float:
        """Return since when a task's status is what it is, in seconds since the epoch."""
        return self._told[uid].changed_at

    def sent(self, uid: str, *, now: float) -> None:
        """Note that a task's status as it is was sent."""
        self._told[uid].sent_at = now

    def repeat(self) -> None:
        """Have all sent again: nobody knows what arrived, or somebody new listens."""
        for told in self._told.values():
            told.sent_at = float("-inf")

    def keep(self, uids: Collection[str]) -> None:
        """Forget all tasks but these."""
        self._told = {uid: told for uid, told in self._told.items() if uid in uids}


def _content(status: TaskStatus) -> TaskStatus:
    """Return a status without what differs at each look: its number and the times of the message and the look."""
    changes: dict[str, Any] = {"boot": "", "number": 0}
    if status.output is not None and status.output.task_info is not None:
        info = replace(status.output.task_info, current_time=None, update_time=None)
        changes["output"] = replace(status.output, task_info=info)
    return replace(status, **changes)
