# SPDX-License-Identifier: Apache-2.0
"""Another model for a worker that runs: loaded and tried beside the one that serves, and swapped in between two frames.

A thread of its own does all of it; the frames' thread sees nothing but another classifier. A model that cannot be
loaded, or whose golden inputs give other outputs than its card promises, never serves: the former one goes on, and the
try is repeated now and then, since what was wrong may be mended.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from msgspec.structs import replace

from nereid_shared.backoff import Backoff
from nereid_shared.errors import ModelInvalid, TemporaryError, UserError
from nereid_shared.messages import MODEL_SWAPPING, ROLLED_BACK, ModelOutput, Task, TaskModel
from nereid_worker.models import output_of
from nereid_worker.slots import Slots, same_file

if TYPE_CHECKING:  # it needs numpy, of which a process without the extra [worker] has to say that it is missing
    from nereid_worker.classifier import Classifier

logger = logging.getLogger(__name__)

PROBATION_S: Final = 60.0
RETRY_S: Final = 10.0
RETRY_MAX_S: Final = 600.0
UNLOADABLE: Final = (ModelInvalid, UserError, TemporaryError)
"""What `load` raises for a model that cannot serve."""


class Serving(NamedTuple):
    """The model that serves, with its classifier."""

    model: TaskModel
    classifier: "Classifier"


class Lack(NamedTuple):
    """A model that shall serve and does not, and why."""

    model: TaskModel
    reason: str
    message: str


class Swapper:
    """The models of one worker: the one that serves, and the one that its task names.

    Args:
        slots: the record of both on disk.
        load: loads and tries a model; raises one of `UNLOADABLE`.
        swap: called in the thread with the classifier that is to serve.
        on_settled: called in the thread when a task's model serves, or has turned out not to; with the task.
        probation_s: how long a model serves until a crash is no longer put down to it.
        retry_s: the first and the longest delay between two tries of a model that cannot be loaded.

    Attributes:
        serving: the model that serves; None before the first.
        lack: the one that should and does not, if there is one.
    """

    def __init__(
        self,
        *,
        slots: Slots,
        load: "Callable[[TaskModel], Classifier]",
        swap: "Callable[[Classifier], None]",
        on_settled: Callable[[Task], None],
        probation_s: float = PROBATION_S,
        retry_s: tuple[float, float] = (RETRY_S, RETRY_MAX_S),
    ) -> None:
        self._slots, self._load, self._swap, self._on_settled = slots, load, swap, on_settled
        self._probation_s = probation_s
        self._probation_ends: float | None = None
        self.serving: Serving | None = None
        self.lack: Lack | None = None
        self._wanted: Task | None = None
        self._retry_at: float | None = None
        self._backoff = Backoff(first_s=retry_s[0], longest_s=retry_s[1])
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="models", daemon=True)

    def first(self, task: Task) -> "Classifier":
        """Return the classifier to begin with: the task's model, else the one that served last.

        Raises:
            ModelInvalid, UserError, TemporaryError: there is none that can be loaded.
        """
        model, present = task.model, self._slots.present
        other = present if present is not None and not same_file(present, model) else None
        if other is not None and self._slots.refuses(model):
            self.lack = _rolled_back(model)
            classifier = self._load(other)
        else:
            try:
                classifier = self._load(model)
                self.lack, other = None, None
            except UNLOADABLE as error:
                self.lack = _lack_of(model, error)
                if other is None:
                    raise
                try:
                    classifier = self._load(other)
                except UNLOADABLE:
                    raise error from None
        self._note(other or model)
        self.serving = Serving(other or model, classifier)
        self._wanted = task
        if self.lack is not None and self.lack.reason != ROLLED_BACK:
            self._retry_at = time.monotonic() + self._backoff.next_s()
        self._thread.start()
        return classifier

    def want(self, task: Task) -> None:
        """Let another task's model serve as soon as it can; callable from any thread. The last one wanted counts."""
        with self._changed:
            self._wanted, self._retry_at = task, time.monotonic()
            self._backoff.reset()
            self._changed.notify()

    def stop(self) -> None:
        """End the thread; when this returns, no model gets its turn any more, nor passes its probation."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._stopped and (left := self._due_in()) > 0:
                    self._changed.wait(min(left, threading.TIMEOUT_MAX))
                if self._stopped:
                    return
                task, is_try = self._wanted, self._retry_at is not None and self._retry_at <= time.monotonic()
                if is_try:
                    self._retry_at = None
                elif self._probation_ends is not None and self._probation_ends <= time.monotonic():
                    self._probation_ends = None
                    self._slots.passed()
                    logger.info("the model has passed its probation")
            if is_try and task is not None:
                self._try(task)

    def _due_in(self) -> float:
        due = min((at for at in (self._retry_at, self._probation_ends) if at is not None), default=None)
        return threading.TIMEOUT_MAX if due is None else due - time.monotonic()

    def _try(self, task: Task) -> None:
        model = task.model
        if self.serving is not None and same_file(self.serving.model, model):
            self.lack = None
        elif self._slots.refuses(model):
            self.lack = _rolled_back(model)
        else:
            if self.lack is None or self.lack.model != model:
                self.lack = Lack(model, MODEL_SWAPPING, "it is loaded and tried")
            try:
                classifier = self._load(model)
            except Exception as error:
                # The supervisor of models: one that breaks its loader must not end the thread that replaces it.
                self.lack = _lack_of(model, error)
                is_known = isinstance(error, UNLOADABLE)
                logger.warning("the former model goes on", extra={"problem": self.lack.message}, exc_info=not is_known)
                with self._changed:
                    if self._wanted is task:
                        self._retry_at = time.monotonic() + self._backoff.next_s()
            else:
                with self._changed:
                    if self._stopped or self._wanted is not task:
                        return
                    self._note(model)
                self._swap(classifier)
                self.serving, self.lack = Serving(model, classifier), None
                logger.info("another model serves", extra={"model": model.url, "digest": classifier.digest})
        self._on_settled(task)

    def _note(self, model: TaskModel) -> None:
        """Take down that a model serves, before it does."""
        self._slots.serve(model)
        self._probation_ends = time.monotonic() + self._probation_s if self._slots.is_on_probation else None


def outputs(model: TaskModel, swapper: Swapper | None) -> list[ModelOutput]:
    """Return what an edge worker tells of its models: the one that serves, and the one that should and does not.

    Args:
        model: the task's.
        swapper: None before there is one.
    """
    serving, lack = (swapper.serving, swapper.lack) if swapper is not None else (None, None)
    told = [] if serving is None else [output_of(serving.model, serving.classifier)]
    if lack is not None:
        status: Literal["fetching", "failed"] = "fetching" if lack.reason == MODEL_SWAPPING else "failed"
        told.append(replace(output_of(lack.model, None), status=status, reason=lack.reason, message=lack.message))
    return told or [output_of(model, None)]


def _lack_of(model: TaskModel, error: Exception) -> Lack:
    reason = error.reason if isinstance(error, ModelInvalid | UserError) else ""
    said = str(error) if isinstance(error, UNLOADABLE) else f"{model.url}: {type(error).__name__}: {error}"
    return Lack(model, reason or "ModelUnavailable", said)


def _rolled_back(model: TaskModel) -> Lack:
    message = f"{model.url}: the worker ended while it was on probation; give the mended file another URL or digest"
    return Lack(model, ROLLED_BACK, message)
