# SPDX-License-Identifier: Apache-2.0
"""One version's thread: requests go in from the loop, run in micro-batches, and their answers come back to the loop."""

import asyncio
import logging
import threading
import time
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from nereid_shared.errors import BadSample, RequestRefused
from nereid_worker.batches import Batches, Pace
from nereid_worker.serving.model import MODEL_FAILED, Rows, ServedModel

logger = logging.getLogger(__name__)

WAITING_BATCHES: Final = 64
"""Full batches that may wait; a server that is further behind refuses, so that its clients go elsewhere."""


class Observer(Protocol):
    """What is told of batches (see `nereid_worker.serving.metrics`)."""

    def batch(self, rows: int, spent_s: float) -> None:
        """Take what one batch was; called in the loop's thread."""


@dataclass(frozen=True, slots=True)
class _Job:
    rows: Rows
    done: "asyncio.Future[np.ndarray]"


class Batcher:
    """Runs a model in a thread of its own; all methods are for the loop's thread.

    A model that has answered several batches in less than a millisecond each answers a small request at once, in the
    loop's thread, while its own has nothing to do: waking a thread would take longer (as in the cloud worker).
    """

    def __init__(self, model: ServedModel, *, max_batch: int, max_wait_s: float, observer: Observer) -> None:
        """Start the thread."""
        self._model, self._max_batch, self._observer = model, max_batch, observer
        self._batches: Batches[_Job] = Batches(
            max_batch=max_batch, max_wait_s=max_wait_s, rows=lambda job: len(job.rows)
        )
        self._pace = Pace()
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    @property
    def waiting_rows(self) -> int:
        """The rows that wait for the model."""
        return self._batches.rows

    def submit(self, rows: Rows) -> "asyncio.Future[np.ndarray]":
        """Return the future rows of output; it raises `BadSample` where there is no answer.

        Raises:
            RequestRefused: 503, too many rows wait.
        """
        if self._batches.rows > WAITING_BATCHES * self._max_batch:
            raise RequestRefused("too many requests wait for the model", status=503)
        job = _Job(rows, self._loop.create_future())
        if self._pace.is_quick and len(rows) <= self._max_batch and self._batches.awaited:
            self._deliver([job], *self._answered([job]))
        else:
            self._batches.put(job)
        return job.done

    async def close(self) -> None:
        """Answer what is here, then end the thread; nothing may be submitted any more."""
        self._batches.stop()
        await self._ended.wait()

    def _run(self) -> None:
        while taken := self._batches.take():
            # Whose client is gone needs no answer.
            if jobs := [job for job in taken if not job.done.cancelled()]:
                self._loop.call_soon_threadsafe(self._deliver, jobs, *self._answered(jobs))
        self._loop.call_soon_threadsafe(self._ended.set)

    def _answered(self, jobs: list[_Job]) -> tuple[list[np.ndarray | BadSample], float]:
        began = time.perf_counter()
        try:
            outcomes = self._model.answer([job.rows for job in jobs])
        except Exception as error:  # one batch must not end the thread that all others need
            logger.exception("the model raised", extra={"requests": len(jobs)})
            outcomes = [BadSample(f"{type(error).__name__}: {error}", reason=MODEL_FAILED)] * len(jobs)
        spent_s = time.perf_counter() - began
        self._pace.note(spent_s)
        return outcomes, spent_s

    def _deliver(self, jobs: list[_Job], outcomes: list[np.ndarray | BadSample], spent_s: float) -> None:
        self._observer.batch(sum(len(job.rows) for job in jobs), spent_s)
        for job, outcome in zip(jobs, outcomes, strict=True):
            if job.done.done():
                continue
            if isinstance(outcome, BadSample):
                job.done.set_exception(outcome)
            else:
                job.done.set_result(outcome)
