# SPDX-License-Identifier: Apache-2.0
"""Patience after the GlobalManager's start: what was ready is not called otherwise before its nodes could speak."""

from collections.abc import Callable
from typing import Final

SETTLE_S: Final = 10.0
SETTLING_LOOK_S: Final = 0.5


class Settling:
    """Which objects wait for their nodes' first words."""

    def __init__(self, clock: Callable[[], float], *, settle_s: float) -> None:
        self._clock, self._until = clock, clock() + settle_s
        self._seen_ready: set[str] = set()

    def waits(self, uid: str, *, was_ready: bool, is_ready: bool, unheard: bool) -> bool:
        """Whether a status is to be left as it is for now.

        Args:
            uid: the object.
            was_ready: its status says Ready.
            is_ready: what would be said now.
            unheard: a node of it may be there, and has not spoken yet: nobody can say that it is offline.
        """
        if is_ready:
            self._seen_ready.add(uid)
        is_doubtful = unheard or (was_ready and uid not in self._seen_ready)
        return is_doubtful and not is_ready and self._clock() < self._until

    def forget(self, uid: str) -> None:
        """Drop what is remembered of an object that is no more."""
        self._seen_ready.discard(uid)
