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
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from nereid_shared.errors import BadSample
from nereid_shared.samples import MAX_KEY_BYTES, Result, Sample, digest_of
from nereid_worker.answers import Answer, Opinion
from nereid_worker.classifier import Classifier
from nereid_worker.encoding import encode_frame
from nereid_worker.page import FAILURES, Page
from nereid_worker.reader import Reader, as_source
from nereid_worker.rules import Rule
from nereid_worker.sources import Frame, Source, frame
from nereid_worker.spool import Spool

log = logging.getLogger(__name__)

REMEMBERED: Final = 4096
"""Edge answers kept for results after the deadline; older ones become corrections without an edge side."""

CORRECTIONS: Final = 16384
"""Corrections kept for a caller that does not fetch them; the oldest go first."""

IDLE_S: Final = 0.5
"""How long the caller's thread waits where no deadline is nearer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pending:
    """A hard sample that waits for the cloud, and where its answer goes."""

    answer: Answer
    captured_s: float
    deliver: deque[Answer]


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

    Attributes:
        on_correction: called with each correction, in the caller's thread; by default they are kept for `corrections`.
    """

    def __init__(
        self,
        *,
        classifier: Classifier,
        rule: Rule,
        page: Page,
        spool: Spool,
        notify: Callable[[], None],
        deadline_s: float = 1.0,
        parameters: dict[str, str] | None = None,
        dataset: Source | None = None,
    ) -> None:
        self.classifier, self.rule = classifier, rule
        self.deadline_s = deadline_s
        self.parameters = dict(parameters or {})
        self.dataset = dataset
        self._page, self._spool, self._notify = page, spool, notify
        self._results: queue.SimpleQueue[tuple[Result, float] | None] = queue.SimpleQueue()
        self._waiting: dict[int, _Pending] = {}
        self._deadlines: deque[tuple[float, int]] = deque()
        self._late: OrderedDict[int, _Pending] = OrderedDict()
        self._corrections: deque[Answer] = deque(maxlen=CORRECTIONS)
        self.on_correction: Callable[[Answer], None] = self._corrections.append
        if not math.isnan(page.rule_state):
            rule.restore(page.rule_state)

    @classmethod
    def from_task(cls) -> "JointInference":
        """Return the service that this process was started for.

        Raises:
            UserError: the process is not a worker of a JointInferenceService.
        """
        from nereid_worker.process import current  # noqa: PLC0415 - the process owns the service and its parts

        return current()

    def take_result(self, result: Result) -> None:
        """Hand over an answer of the cloud; called in the uplink's thread."""
        self._results.put((result, time.monotonic()))

    def wake(self) -> None:
        """End a wait of the caller's thread; called in another one."""
        self._results.put(None)

    def infer(self, data: Any, *, key: str = "") -> Answer:
        """Return the answer to one frame, waiting for the cloud at most until the deadline.

        Args:
            data: encoded image bytes, or an array (height, width[, 3]) of uint8 in OpenCV's order (BGR).
            key: the caller's name for it; by default its number.

        Returns:
            An `Answer`; one with `error` set where the frame cannot be read or scored.
        """
        item = frame(data, index=self._page.cursor, key=key)
        answer = self._edge_answer(item)
        if not answer.is_hard:
            self._count(item, answer)
            return answer
        delivered: deque[Answer] = deque()
        self._send(item, answer, delivered, may_wait=False)
        while not delivered:
            self.collect(self._time_left())
        return delivered[0]

    def stream(
        self,
        source: Source | Iterable[Any] | None = None,
        *,
        ordered: bool = False,
        on_edge: Callable[[Answer], None] | None = None,
    ) -> Iterator[Answer]:
        """Yield exactly one answer per sample: easy ones at once, hard ones at the cloud's answer or the deadline.

        A source with an identity (a folder, a dataset) goes on where the last run stopped; after a kill at most the
        frame in flight comes again, since a frame counts as seen when the caller asks for the next answer.

        Args:
            source: a `Source`, a list or other iterable of frames, or None for the service's dataset.
            ordered: yield in the source's order, which makes easy answers wait for the hard ones before them.
            on_edge: called with the little model's answer to each sample, before anything else happens to it.
        """
        taken = self.dataset if source is None else as_source(source)
        if taken is None:
            raise ValueError("the service has no dataset: name one in edgeWorker.dataset, or pass a source")
        ready: deque[Answer] = deque()
        order = _Order() if ordered else None
        for item in self._frames(taken):
            if item is not None:
                answer = self._edge_answer(item)
                if on_edge is not None:
                    on_edge(answer)
                if order is not None:
                    order.expect(answer)
                if answer.is_hard:
                    self._send(item, answer, ready, may_wait=not taken.live)
                elif order is not None:
                    self._count(item, answer)
                    ready.append(answer)
                else:
                    try:
                        yield answer
                    finally:
                        self._count(item, answer)
            self.collect(0.0)
            yield from _drain(ready, order)
        while self._waiting:
            self.collect(self._time_left())
            yield from _drain(ready, order)

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
            left = IDLE_S if end is None else end - time.monotonic()
            if left <= 0:
                return
            self.collect(min(left, self._time_left()))

    def _frames(self, source: Source) -> Iterator[Frame | None]:
        """Yield frames, and None where there is time to look after answers instead."""
        page = self._page
        start = 0
        if source.identity:
            identity = bytes.fromhex(source.identity)[:8]
            if page.source != identity:
                page.source, page.cursor = identity, 0
                page.commit()
            start = page.cursor
        if source.blocking:
            with Reader(source, start, wake=self.wake) as reader:
                while not reader.ended:
                    page.skipped += reader.skip_stale() if source.live else 0
                    item = reader.take()
                    if item is None:
                        self.collect(self._time_left())
                    yield item
            return
        due = time.monotonic()
        frames = source.frames(start)
        while True:
            while source.interval_s and (left := due - time.monotonic()) > 0:
                self.collect(min(left, self._time_left()))
                yield None
            due = max(due, time.monotonic() - source.interval_s) + source.interval_s
            item = next(frames, None)
            if item is None:
                return
            yield item

    def _edge_answer(self, item: Frame) -> Answer:
        """Return the little model's answer, marked by the rule; a sample that fails becomes an answer with `error`."""
        model = self.classifier.digest
        try:
            if item.data is None:
                raise BadSample(f"{item.key}: cannot be read", reason="missing")
            prediction = self.classifier.predict(item.data)
            verdict = self.rule.decide(prediction.probabilities, item.index)
        except BadSample as error:
            log.warning("sample failed", extra={"key": item.key, "reason": error.reason, "problem": str(error)})
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

    def _count(self, item: Frame, answer: Answer) -> None:
        """Count a sample in the page, which moves the cursor behind it."""
        page = self._page
        page.seen += 1
        page.cursor = item.index + 1
        if answer.error:
            page.failed[answer.error if answer.error in FAILURES else "error"] += 1
        else:
            page.observe("edge", answer.latency_s)
            if answer.is_hard:
                page.hard += 1
            else:
                page.easy += 1
            state = self.rule.state
            page.rule_state = math.nan if state is None else state
        if not answer.is_hard:
            page.commit()

    def _send(self, item: Frame, answer: Answer, deliver: deque[Answer], *, may_wait: bool) -> None:
        """Count a hard sample and put it into the spool; what finds no room there keeps the edge's answer."""
        page = self._page
        self._count(item, answer)
        encoding, payload, shape, dtype = encode_frame(item.data)
        deadline = item.captured_s + self.deadline_s
        sample = Sample(
            stream=page.stream, seq=page.seq + 1, digest=digest_of(payload), key=item.key[: MAX_KEY_BYTES // 4],
            captured_at=item.captured_at, remaining_ms=max(0, int((deadline - time.monotonic()) * 1e3)),
            label=answer.label, score=answer.score, counts=page.counts(), encoding=encoding, payload=payload,
            shape=shape, dtype=dtype,
        )  # fmt: skip
        body = sample.encode()
        while not (kept := self._spool.append(sample.seq, body)) and may_wait:
            self.collect(self._time_left())
        if not kept:
            page.dropped["buffer-full"] += 1
            page.degraded += 1
            page.commit()
            deliver.append(replace(answer, degraded=True, reason="buffer-full"))
            return
        page.seq = sample.seq
        page.commit()
        self._waiting[sample.seq] = _Pending(answer=answer, captured_s=item.captured_s, deliver=deliver)
        self._deadlines.append((deadline, sample.seq))
        self._notify()

    def collect(self, timeout_s: float) -> None:
        """Take in results, waiting at most `timeout_s` for the first, and end the waits whose deadline has passed."""
        try:
            taken = self._results.get_nowait() if timeout_s <= 0 else self._results.get(timeout=timeout_s)
            while True:
                if taken is not None:
                    self._settle(*taken)
                taken = self._results.get_nowait()
        except queue.Empty:
            pass
        now = time.monotonic()
        while self._deadlines and self._deadlines[0][0] <= now:
            _, seq = self._deadlines.popleft()
            pending = self._waiting.pop(seq, None)
            if pending is not None:
                self._page.degraded += 1
                self._page.commit()
                self._late[seq] = pending
                if len(self._late) > REMEMBERED:
                    self._late.popitem(last=False)
                pending.deliver.append(replace(pending.answer, degraded=True, latency_s=now - pending.captured_s))

    def _settle(self, result: Result, arrived_s: float) -> None:
        """Give a result to the caller that waits, or make it a correction."""
        mine = result.stream == self._page.stream
        pending = self._waiting.pop(result.seq, None) if mine else None
        late = self._late.pop(result.seq, None) if mine and pending is None else None
        origin = pending or late
        if result.error:
            if pending is not None:
                # The cloud will not answer this one: the edge's word stands, at once.
                self._page.degraded += 1
                self._page.commit()
                pending.deliver.append(replace(pending.answer, degraded=True, reason=result.error))
            return
        cloud = Opinion(label=result.label, score=result.score, model=result.model)
        if origin is None:
            self.on_correction(
                Answer(
                    key=result.key, index=-1, label=cloud.label, score=cloud.score, tier="cloud", model=cloud.model,
                    is_hard=True, cloud=cloud, captured_at=result.captured_at,
                    latency_s=max(0.0, time.time() - result.captured_at),
                )
            )  # fmt: skip
            return
        latency_s = arrived_s - origin.captured_s
        self._page.observe("cloud", latency_s)
        answer = replace(
            origin.answer, label=cloud.label, score=cloud.score, tier="cloud", model=cloud.model, cloud=cloud,
            latency_s=latency_s,
        )  # fmt: skip
        if pending is not None:
            pending.deliver.append(answer)
        else:
            self.on_correction(answer)

    def _time_left(self) -> float:
        if not self._deadlines:
            return IDLE_S
        return min(IDLE_S, max(0.0, self._deadlines[0][0] - time.monotonic()))


class _Order:
    """Gives answers back in the order in which their samples were taken."""

    def __init__(self) -> None:
        self._expected: deque[int] = deque()
        self._held: dict[int, Answer] = {}

    def expect(self, answer: Answer) -> None:
        self._expected.append(answer.index)

    def put(self, answer: Answer) -> None:
        self._held[answer.index] = answer

    def take(self) -> Iterator[Answer]:
        while self._expected and self._expected[0] in self._held:
            yield self._held.pop(self._expected.popleft())


def _drain(ready: deque[Answer], order: _Order | None) -> Iterator[Answer]:
    while ready:
        answer = ready.popleft()
        if order is None:
            yield answer
        else:
            order.put(answer)
    if order is not None:
        yield from order.take()
