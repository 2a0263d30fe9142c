# SPDX-License-Identifier: Apache-2.0
"""What an edge worker last said of itself, by the protocol's rules of order. No I/O."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from nereid_shared.messages import WorkerInfo
from nereid_shared.numbering import Numbers

_REMEMBERED_BOOTS: Final = 16


@dataclass(slots=True)
class WorkerView:
    """One worker's word.

    The boot that speaks now is the one whose live message came last: a message counts when it is newer than the last
    of its own boot, whatever another process of the same name said meanwhile. A will counts only for the boot that
    speaks now. So two processes that alternate are told as they alternate, and when one of them leaves, the other's
    next message is the worker's state again.

    Attributes:
        info: the last message that counted, of the boot that speaks now.
        lost: that boot's connection ended, and nothing came since.
    """

    info: WorkerInfo | None = None
    lost: bool = False
    _numbers: OrderedDict[str, Numbers] = field(default_factory=OrderedDict)

    def take(self, info: WorkerInfo) -> bool:
        """Take a message; returns whether it counted.

        Raises:
            MessageInvalid: its number cannot be the worker's.
        """
        if info.status == "offline":
            return self._take_will(info)
        numbers = self._numbers.get(info.boot) or Numbers()
        if not numbers.take(info.number, boot=info.boot):
            return False
        self._numbers[info.boot] = numbers
        self._numbers.move_to_end(info.boot)
        if len(self._numbers) > _REMEMBERED_BOOTS:
            self._numbers.popitem(last=False)
        self.info, self.lost = info, False
        return True

    def _take_will(self, will: WorkerInfo) -> bool:
        if self.info is None:
            self.info = will
        elif will.boot != self.info.boot:
            return False
        # The will was written when the connection began: its counts are older than what came since.
        self.lost = True
        return True
