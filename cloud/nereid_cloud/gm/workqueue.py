# SPDX-License-Identifier: Apache-2.0
"""A work queue of keys: each once, in order per key, with rate-limited retries.

A key that is added while it is being worked on is handed out again afterwards, never twice at once. The queue belongs
to one event loop; it knows nothing of what a key means.
"""

import asyncio
import math
import random
from collections import deque
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

from nereid_shared.backoff import doubled

Key = TypeVar("Key", bound=Hashable)

FIRST_RETRY_S: Final = 0.05
LAST_RETRY_S: Final = 60.0


class WorkQueue(Generic[Key]):
    """The keys that wait, the keys that are worked on, and the keys that come back later.

    Args:
        first_retry_s: delay of a key's first retry; it doubles with each further one.
        last_retry_s: the longest delay.
    """

    def __init__(self, *, first_retry_s: float = FIRST_RETRY_S, last_retry_s: float = LAST_RETRY_S) -> None:
        self._first_retry_s, self._last_retry_s = first_retry_s, last_retry_s
        self._order: deque[Key] = deque()
        self._waiting: set[Key] = set()
        self._working: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._ready = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, key: Key) -> None:
        """Let the key be handed out; once, however often it is added."""
        self._forget_timer(key)
        if key not in self._waiting:
            self._waiting.add(key)
            if key not in self._working:
                self._queue(key)

    def add_after(self, key: Key, delay_s: float) -> None:
        """Add the key after a delay; the earliest of several delays counts."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None and timer.when() <= loop.time() + delay_s:
            return
        self._forget_timer(key)
        self._timers[key] = loop.call_later(delay_s, self.add, key)

    def due_at(self, key: Key) -> float:
        """Return the loop's time at which a key that was added for later comes; infinity where none was."""
        timer = self._timers.get(key)
        return math.inf if timer is None else timer.when()

    def retry(self, key: Key, *, delay_s: float | None = None) -> float:
        """Add the key after its back-off, or after the given delay; returns the delay."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        if delay_s is None:
            delay_s = doubled(self._first_retry_s, failures - 1, longest_s=self._last_retry_s)
            delay_s *= random.uniform(0.8, 1.2)  # noqa: S311 - jitter
        self.add_after(key, delay_s)
        return delay_s

    def forget(self, key: Key) -> None:
        """Let the key's next retry start with the shortest delay."""
        self._failures.pop(key, None)

    async def get(self) -> Key:
        """Take the key that waits longest; `done` must follow."""
        while not self._order:
            self._ready.clear()
            await self._ready.wait()
        key = self._order.popleft()
        self._waiting.discard(key)
        self._working.add(key)
        return key

    def done(self, key: Key) -> None:
        """End the work on a key; if it was added meanwhile it is handed out again."""
        self._working.discard(key)
        if key in self._waiting:
            self._queue(key)

    def close(self) -> None:
        """Cancel what was to come later."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _queue(self, key: Key) -> None:
        self._order.append(key)
        self._ready.set()

    def _forget_timer(self, key: Key) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
