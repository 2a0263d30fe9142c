# SPDX-License-Identifier: Apache-2.0
"""The order of a boot's messages, by their numbers, also where some are somebody else's."""

from typing import Final

from nereid_shared.errors import MessageInvalid

MAX_STEP: Final = 2**32
"""A thousand messages a second for seven weeks: more than who listens again after the longest cut can have missed."""

REDELIVERED: Final = 32
"""A broker sends again what was not acknowledged: at most so many messages, the links' windows being smaller."""

RUN: Final = 3


class Numbers:
    """The numbers of one boot, which only grow.

    A number that is not the boot's own, forged or damaged, must not have all its later messages ignored. One further
    ahead than a boot ever gets is refused. One nearer is believed, until `RUN` messages in a row grow from far below
    it: those are the boot's, and the order goes on from there.
    """

    __slots__ = ("_last", "_lower", "_run")

    def __init__(self) -> None:
        self._last = self._lower = -1
        self._run = 0

    def check(self, number: int, *, boot: str) -> None:
        """Refuse a number that cannot be this boot's.

        Raises:
            MessageInvalid: it is further ahead than a boot ever gets.
        """
        if number > max(self._last, 0) + MAX_STEP:
            raise MessageInvalid(f"number {number} after {self._last} of boot {boot}: not believed")

    def take(self, number: int, *, boot: str) -> bool:
        """Return whether a message is later than all before it.

        Raises:
            MessageInvalid: see `check`.
        """
        self.check(number, boot=boot)
        if number <= self._last and not self._overtakes(number):
            return False
        self._last, self._lower, self._run = number, -1, 0
        return True

    def _overtakes(self, number: int) -> bool:
        """Whether the boot's own messages go on far below the last number, which was somebody else's then."""
        if number >= self._last - REDELIVERED:
            return False
        self._run = self._run + 1 if number > self._lower else 1
        self._lower = number
        return self._run >= RUN
