# SPDX-License-Identifier: Apache-2.0
"""Joint inference at the edge: the little model answers, hard samples get a second opinion from the cloud.

The caller's thread runs preprocessing, model, rule and bookkeeping; the uplink's thread does all that touches the
network. They share the spool (samples up) and a queue of results (answers down), so that a cloud that is slow, down
or wrong leaves edge latency and throughput as they were.
"""

import logging
import math
import queue
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from nereid_shared.errors import BadSample, UserError
from nereid_shared.samples import UNDECODABLE, Result
from nereid_worker.answers import Answer, Opinion
from nereid_worker.encoding import is_frame
from nereid_worker.files import Files
from nereid_worker.page import MISSING, Page, eight_bytes
from nereid_worker.reader import Reader, as_source
from nereid_worker.sending import Sending
from nereid_worker.sources import Frame, Source, frame
from nereid_worker.spool import Spool
from nereid_worker.waiting import Asked, Inbox, Waiting

if TYPE_CHECKING:  # they need numpy, of which a process without the extra [worker] has to say that it is missing
    from nereid_worker.classifier import Classifier
    from nereid_worker.rules import Rule

logger = logging.getLogger(__name__)

Results = queue.SimpleQueue[tuple[Result, float] | None]
"""The cloud's answers with the monotonic time of their arrival; None wakes the reader."""

CORRECTIONS: Final = 16384
"""Corrections kept for a caller that does not fetch them; the oldest go first."""

IDLE_S: Final = 0.5
"""How long the caller's thread waits where no deadline is nearer."""

DRAIN_S: Final = 2.0
"""How long a stream that is told to end waits for the answers under way."""

_of_this_process: Callable[[], "JointInference"] | None = None


def serve_scripts(make: Callable[[], "JointInference"]) -> None:
    """Let `JointInference.from_task` of this process return what `make` gives; for the process that runs a script."""
    global _of_this_process  # noqa: PLW0603 - a script reaches its worker through the process it runs in
    _of_this_process = make


class JointInference:
    """One service on one node, as the user's script sees it.

    Not for several threads at once: one thread calls `infer` or iterates `stream` and `corrections`.

    Args:
        classifier: the little model.
        rule: which samples are hard.
        deadline_s: how long a caller waits for the cloud, from capture.
        parameters: the task's ``workerSpec.parameters``.
        dataset: what `stream` reads by default.
        notify: tells the uplink that the spool has a new sample.
        results: where the uplink puts the cloud's answers; given where they can come before the service is there.
        state: where sources may keep what they need to go on after a restart.

    Attributes:
        on_correction: called with each correction, in the caller's thread; by default they are kept for `corrections`.
        dataset_version: the dataset's version as of the last reading's beginning; None before the first.
        corrections_lost: corrections that made room for newer ones, because nobody fetched them.
    """

    def __init__(
        self,
        *,
        classifier: "Classifier",
        rule: "Rule",
        page: Page,
        spool: Spool,
        notify: Callable[[], None],
        deadline_s: float = 1.0,
        parameters: dict[str, str] | None = None,
        dataset: Source | None = None,
        results: Results | None = None,
        state: Path | None = None,
    ) -> None:
        self.classifier, self.rule = classifier, rule
        self.deadline_s = deadline_s
        self.parameters = dict(parameters or {})
        self.dataset = dataset
        self.corrections_lost = 0
        self.dataset_version: object = None
        self._state = state
        self._page = page
        self._results: Results = queue.SimpleQueue() if results is None else results
        self._waiting = Waiting()
        self._corrections: deque[Answer] = deque()
        self.on_correction: Callable[[Answer], None] = self._keep
        self._end: BaseException | None = None
        self._drain_until = math.inf
        self._sending = Sending(
            rule=rule, page=page, spool=spool, waiting=self._waiting, notify=notify, look_after=self.look_after
        )

    @classmethod
    def from_task(cls) -> "JointInference":
        """Return the service that this process was started for.

        Raises:
            UserError: the process is not a worker of a JointInferenceService.
        """
        if _of_this_process is None:
            raise UserError(
                "JointInference.from_task() works in an edge worker only",
                mend="Run the script as scriptBootFile of a JointInferenceService.",
            )
        return _of_this_process()

    def has_room(self) -> None:
        """The spool has got smaller; called in the uplink's thread."""
        if self._sending.wants_room:
            self.wake()

    def wake(self) -> None:
        """End a wait of the caller's thread; called in another one."""
        self._results.put(None)

    def swap(self, classifier: "Classifier") -> None:
        """Let another model answer from the next frame on; callable in another thread."""
        self.classifier = classifier

    def end(self, request: BaseException, *, drain_s: float = DRAIN_S) -> None:
        """Let streams take no further frame, hand out the answers under way, and then raise `request` in the caller."""
        self._drain_until = time.monotonic() + drain_s
        self._end = request
        self.wake()

    def infer(self, data: Any, *, key: str = "") -> Answer:
        """Return the answer to one frame, waiting for the cloud at most until the deadline.

        Args:
            data: encoded image bytes, or an array (height, width[, 3]) of uint8 in OpenCV's order (BGR).
            key: the caller's name for it; by default its number.

        Returns:
            An `Answer`; one with `error` set where the frame cannot be read or scored.
        """
        self._raise_if_ended()
        item = frame(data, index=self._page.seen, key=key)
        answer = self._edge_answer(item)
        if not answer.is_hard:
            self._sending.done(item, answer, None)
            return answer
        inbox = Inbox()
        self._sending.send(item, answer, inbox, None, deadline_s=item.captured_s + self.deadline_s)
        try:
            while not inbox.arrived:
                self.collect(self._time_left())
        finally:
            self._waiting.abandon(inbox)
        return next(inbox.take())

    def stream(
        self,
        source: Source | Iterable[Any] | None = None,
        *,
        ordered: bool = False,
        on_edge: Callable[[Answer], None] | None = None,
    ) -> Generator[Answer]:
        """Yield exactly one answer per sample: easy ones at once, hard ones at the cloud's answer or the deadline.

        A source with an identity (a folder, a dataset) goes on where the last run stopped; after a kill at most the
        frame in flight comes again, since a frame counts as seen when the caller asks for the next answer. Answers
        that nobody waits for any more, because the caller left the loop, become corrections.

        Args:
            source: a `Source`, a list or other iterable of frames, or None for the service's dataset.
            ordered: yield in the source's order, which makes easy answers wait for the hard ones before them.
            on_edge: called with the little model's answer to each sample, before anything else happens to it.
        """
        taken = self.dataset if source is None else as_source(source)
        if taken is None:
            raise ValueError("the service has no dataset: name one in edgeWorker.dataset, or pass a source")
        inbox = Inbox(ordered=ordered)
        done, waiting, results = self._sending.done, self._waiting, self._results
        try:
            with closing(self._frames(taken)) as frames:
                for item in frames:
                    if self._end is not None:
                        break
                    if item is not None:
                        answer = self._edge_answer(item)
                        if on_edge is not None:
                            on_edge(answer)
                        if answer.is_hard or ordered:
                            self._deliver(item, answer, taken, inbox)
                        else:
                            try:
                                yield answer
                            finally:
                                done(item, answer, taken)
                    if waiting.due < math.inf or not results.empty():
                        self.collect(0.0)
                    if inbox.arrived:
                        yield from inbox.take()
            while inbox.awaited and (self._end is None or time.monotonic() < self._drain_until):
                self.collect(self._time_left())
                yield from inbox.take()
        finally:
            self._leave(inbox)
        self._raise_if_ended()

    def _leave(self, inbox: Inbox) -> None:
        """Make corrections of the cloud's answers that nobody takes any more."""
        self._waiting.abandon(inbox)
        for answer in inbox.left():
            if answer.cloud is not None:
                self._correct(answer)

    def corrections(self, *, timeout_s: float | None = 0.0) -> Iterator[Answer]:
        """Yield the cloud's answers that came after their deadline.

        Args:
            timeout_s: how long to wait for the next one; 0 yields only what is there, None waits for ever.

        Nothing is yielded where `on_correction` was set to something else.
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            self.collect(0.0)
            while self._corrections:
                yield self._corrections.popleft()
                end = None if timeout_s is None else time.monotonic() + timeout_s
            self._raise_if_ended()
            left = IDLE_S if end is None else end - time.monotonic()
            if left <= 0:
                return
            self.collect(min(left, self._time_left()))

    def collect(self, timeout_s: float) -> None:
        """Take in results, waiting at most `timeout_s` for the first, and end the waits whose deadline has passed."""
        if timeout_s > 0 or not self._results.empty():
            self._take_in(timeout_s)
        if self._waiting.due < math.inf and self._waiting.due <= (now := time.monotonic()):
            for asked in self._waiting.expired(now):
                self._degrade(asked, now)

    def _take_in(self, timeout_s: float) -> None:
        try:
            taken = self._results.get_nowait() if timeout_s <= 0 else self._results.get(timeout=timeout_s)
            while True:
                if taken is not None:
                    self._settle(*taken)
                taken = self._results.get_nowait()
        except queue.Empty:
            pass

    def look_after(self) -> None:
        """Take in results for a while; raises where the service is told to end."""
        self._raise_if_ended()
        self.collect(self._time_left())
        self._raise_if_ended()

    def _frames(self, source: Source) -> Generator[Frame | None]:
        """Yield frames, and None where there is time to look after answers instead."""
        start = self._first_of(source)
        if source.blocking:
            with Reader(source, start, wake=self.wake) as reader:
                while not reader.ended:
                    if skipped := reader.take_skipped():
                        self._page.skipped += skipped
                        self._page.commit()
                    item = reader.take()
                    if item is None:
                        self.collect(self._time_left())
                    yield item
            return
        if not source.interval_s:
            yield from source.frames(start)
            return
        due = time.monotonic()
        for item in source.frames(start):
            yield item
            due = max(due + source.interval_s, time.monotonic() - source.interval_s)
            while (left := due - time.monotonic()) > 0:
                self.collect(min(left, self._time_left()))
                yield None

    def _first_of(self, source: Source) -> int:
        """Return the index of the first frame to read."""
        page = self._page
        if source is self.dataset:
            self.dataset_version = source.version()
        if not source.identity:
            # A camera's numbers go on over restarts, so that keys and lots differ; a list's are its own.
            return page.seen + page.skipped if source.live else 0
        identity = eight_bytes(source.identity)
        if page.source != identity:
            page.source, page.cursor, page.last = identity, 0, 0
        if isinstance(source, Files):
            if self._state is not None:
                source.keep_order(self._state)
            page.cursor = source.resume(page.cursor, page.last)
        page.commit()
        return page.cursor

    def _deliver(self, item: Frame, answer: Answer, source: Source, inbox: Inbox) -> None:
        """Let a sample's answer come by way of the inbox: it is hard, or has to wait for those before it."""
        inbox.expect(answer)
        if answer.is_hard:
            self._sending.send(item, answer, inbox, source, deadline_s=item.captured_s + self.deadline_s)
        else:
            self._sending.done(item, answer, source)
            inbox.put(answer)

    def _edge_answer(self, item: Frame) -> Answer:
        """Return the little model's answer, marked by the rule; a sample that fails becomes an answer with `error`."""
        # Read once: another thread may swap it, and an answer names the model that gave it.
        classifier = self.classifier
        model = classifier.digest
        try:
            if item.data is None:
                raise BadSample("cannot be read", reason=MISSING)
            if type(item.data) is not bytes and not is_frame(item.data):
                raise BadSample("neither encoded bytes nor a uint8 array (height, width[, 3])", reason=UNDECODABLE)
            prediction = classifier.predict(item.data)
            verdict = self.rule.judge(prediction.values, item.index)
        except BadSample as error:
            logger.warning("sample failed", extra={"key": item.key, "reason": error.reason, "problem": str(error)})
            return Answer(
                key=item.key, index=item.index, label="", score=0.0, tier="edge", model=model, error=error.reason,
                latency_s=time.monotonic() - item.captured_s, captured_at=item.captured_at,
            )  # fmt: skip
        opinion = Opinion(label=prediction.label, score=prediction.score, model=model)
        return Answer(
            key=item.key, index=item.index, label=opinion.label, score=opinion.score, tier="edge", model=model,
            is_hard=verdict.is_hard, reason=verdict.reason, hardness=verdict.score, edge=opinion,
            latency_s=time.monotonic() - item.captured_s, captured_at=item.captured_at,
        )  # fmt: skip

    def _settle(self, result: Result, arrived_s: float) -> None:
        """Give a result to the caller that waits, or make it a correction."""
        mine = result.stream == self._page.stream
        stage, asked = self._waiting.settle(result.seq) if mine else ("unknown", None)
        if stage == "repeated":
            return
        if result.error:
            # The cloud will not answer this one: the edge's word stands, at once where somebody waits.
            if asked is not None and stage == "waiting":
                self._degrade(asked, arrived_s, reason=result.error)
            return
        cloud = Opinion(label=result.label, score=result.score, model=result.model)
        if asked is None:
            self._correct(
                Answer(
                    key=result.key, index=-1, label=cloud.label, score=cloud.score, tier="cloud", model=cloud.model,
                    is_hard=True, cloud=cloud, captured_at=result.captured_at,
                    latency_s=max(0.0, time.time() - result.captured_at),
                )
            )  # fmt: skip
            return
        latency_s = arrived_s - asked.captured_s
        self._page.observe("cloud", latency_s)
        answer = replace(
            asked.answer, label=cloud.label, score=cloud.score, tier="cloud", model=cloud.model, cloud=cloud,
            latency_s=latency_s,
        )  # fmt: skip
        if stage == "waiting":
            asked.inbox.put(answer)
        else:
            self._correct(answer)

    def _degrade(self, asked: Asked, now: float, *, reason: str = "") -> None:
        """Hand out the edge's answer to one who waited for the cloud's."""
        self._page.degraded += 1
        self._page.commit()
        answer = asked.answer
        asked.inbox.put(
            replace(answer, degraded=True, latency_s=now - asked.captured_s, reason=reason or answer.reason)
        )

    def _correct(self, answer: Answer) -> None:
        self._page.corrected += 1
        self._page.commit()
        self.on_correction(answer)

    def _keep(self, answer: Answer) -> None:
        """Keep a correction for `corrections`."""
        self._corrections.append(answer)
        if len(self._corrections) > CORRECTIONS:
            self._corrections.popleft()
            self.corrections_lost += 1
            if self.corrections_lost == 1:
                logger.warning("corrections are lost: iterate corrections(), or set on_correction")

    def _time_left(self) -> float:
        deadline_s = self._waiting.next_deadline()
        return IDLE_S if deadline_s is None else min(IDLE_S, max(0.0, deadline_s - time.monotonic()))

    def _raise_if_ended(self) -> None:
        if self._end is not None:
            raise self._end
