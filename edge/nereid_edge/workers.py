# SPDX-License-Identifier: Apache-2.0
"""What an edge worker last said of itself, by the protocol's rules of order. No I/O."""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from nereid_shared.messages import WorkerInfo

_FORMER_BOOTS: Final = 16


@dataclass(slots=True)
class WorkerView:
    """One worker's word.

    A message counts when it is newer than the last of its boot. A will counts only for the boot that speaks now, and a
    boot that another one has replaced never speaks again.

    Attributes:
        info: the last message that counted.
        lost: the worker's connection ended without a goodbye, or with one.
    """

    info: WorkerInfo | None = None
    lost: bool = False
    _number: int = 0
    _former: deque[str] = field(default_factory=lambda: deque(maxlen=_FORMER_BOOTS))

    def take(self, info: WorkerInfo) -> bool:
        """Take a message; returns whether it counted."""
        current = self.info
        if info.boot in self._former:
            return False
        if current is None:
            self.info, self.lost = info, info.status == "offline"
        elif info.status == "offline":
            if info.boot != current.boot:
                return False
            # The will was written when the connection began: its counts are older than what came since.
            self.lost = True
            return True
        elif info.boot != current.boot:
            self._former.append(current.boot)
            self.info, self.lost = info, False
        elif info.number <= self._number:
            return False
        else:
            self.info, self.lost = info, False
        self._number = info.number
        return True
