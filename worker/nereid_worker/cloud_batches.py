# SPDX-License-Identifier: Apache-2.0
"""From the link's loop to the model's thread: samples go in one by one and come out in micro-batches."""

import asyncio
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Final

from nereid_shared.samples import Sample

QUICK_S: Final = 0.001
QUICK_AFTER: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One sample on its way through the model.

    Attributes:
        node: where it came from.
        done: resolved when its result is published; only then is the sample acknowledged to the broker.
    """

    node: str
    sample: Sample
    done: "asyncio.Future[None]"

    @property
    def identity(self) -> tuple[str, str, int, bytes]:
        """What makes it the same sample as one that came before."""
        return self.node, self.sample.stream, self.sample.seq, self.sample.digest


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


class Batches:
    """A queue that hands out what is there, and waits for more only while the model is the bottleneck.

    An idle model gets a sample at once. Where samples were already waiting when a batch ended, the next one waits for
    as many as the last had, at most `max_wait_s`: batches do not shrink under load, and a lone sample is not delayed.
    The bound on its length is the link's ``receive_max``: a sample is acknowledged only after its result.
    """

    def __init__(self, *, max_batch: int, max_wait_s: float) -> None:
        self._max_batch, self._max_wait_s = max_batch, max_wait_s
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._last = 0
        self._awaited = False

    @property
    def awaited(self) -> bool:
        """Whether the model's thread has nothing to do, and will not before the next `put`."""
        with self._changed:
            return self._awaited and not self._jobs and not self._stopped

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, job: Job) -> None:
        """Add a sample; callable from any thread, never waits."""
        with self._changed:
            self._jobs.append(job)
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

    def take(self) -> list[Job]:
        """Return 1 to `max_batch` samples in their order, as soon as that makes sense; [] after `stop`."""
        with self._changed:
            if not self._jobs:
                self._last = 0
            self._awaited = True
            self._changed.wait_for(lambda: self._jobs or self._stopped)
            self._awaited = False
            enough = min(self._last, self._max_batch)
            until = time.monotonic() + self._max_wait_s
            while len(self._jobs) < enough and not self._stopped:
                if not self._changed.wait(until - time.monotonic()):
                    break
            batch = [self._jobs.popleft() for _ in range(min(len(self._jobs), self._max_batch))]
            self._last = len(batch)
            return batch
