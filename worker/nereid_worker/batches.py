# SPDX-License-Identifier: Apache-2.0
"""From an event loop to a model's thread: jobs go in one by one and come out in micro-batches."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

QUICK_S: Final = 0.001
QUICK_AFTER: Final = 8

J = TypeVar("J")


class Pace:
    """Whether a model is so quick that waking its thread would cost more than running it.

    Only after `QUICK_AFTER` batches of less than `QUICK_S` in a row, and until the first slower one.
    """

    def __init__(self) -> None:
        self._quick_in_a_row = 0

    @property
    def is_quick(self) -> bool:
        """Whether the next batch may be expected to take less than `QUICK_S`."""
        return self._quick_in_a_row >= QUICK_AFTER

    def note(self, spent_s: float) -> None:
        """Note what a batch took."""
        self._quick_in_a_row = self._quick_in_a_row + 1 if spent_s < QUICK_S else 0


def _one(_job: object) -> int:
    return 1


class Batches(Generic[J]):
    """A queue that hands out what is there, and waits for more only while the model is the bottleneck.

    An idle model gets a job at once. Where jobs were already waiting when a batch ended, the next one waits for as many
    as the last had, at most `max_wait_s`: batches do not shrink under load, and a lone job is not delayed. The bound on
    its length is the caller's: a cloud worker's is the link's ``receive_max``, a server's the rows that it lets wait.

    Args:
        max_batch: the most rows that come out together; a job of more comes out alone.
        rows: how many rows of the model's input a job has; by default one.
    """

    def __init__(self, *, max_batch: int, max_wait_s: float, rows: Callable[[J], int] = _one) -> None:
        self._max_batch, self._max_wait_s, self._rows_of = max_batch, max_wait_s, rows
        self._jobs: deque[J] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._rows = self._last = 0
        self._awaited = False

    @property
    def awaited(self) -> bool:
        """Whether the model's thread has nothing to do, and will not before the next `put`."""
        with self._changed:
            return self._awaited and not self._jobs and not self._stopped

    @property
    def rows(self) -> int:
        """The rows that wait."""
        return self._rows

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, job: J) -> None:
        """Add a job; callable from any thread, never waits."""
        with self._changed:
            self._jobs.append(job)
            self._rows += self._rows_of(job)
            self._changed.notify()

    def stop(self) -> None:
        """Let `take` return nothing once the queue is empty."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def wait_stopped(self, timeout_s: float) -> bool:
        """Return whether `stop` was called, at the latest after `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: self._stopped, timeout_s)

    def take(self) -> list[J]:
        """Return jobs in their order, of 1 to `max_batch` rows, as soon as that makes sense; [] after `stop`."""
        with self._changed:
            if not self._jobs:
                self._last = 0
            self._awaited = True
            self._changed.wait_for(lambda: self._jobs or self._stopped)
            self._awaited = False
            enough = min(self._last, self._max_batch)
            until = time.monotonic() + self._max_wait_s
            while self._rows < enough and not self._stopped:
                if not self._changed.wait(until - time.monotonic()):
                    break
            batch: list[J] = []
            rows = 0
            while self._jobs:
                more = self._rows_of(self._jobs[0])
                if batch and rows + more > self._max_batch:
                    break
                batch.append(self._jobs.popleft())
                rows += more
            self._rows -= rows
            self._last = rows
            return batch
