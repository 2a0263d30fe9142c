# SPDX-License-Identifier: Apache-2.0
"""Samples up, answers down: the way between the edge broker and the cloud broker, through the outbox.

The hot path decodes, asks the outbox and publishes the same bytes, without an await or a disk in between; what has to
survive is handed to the store's thread. ``accepted`` goes to the worker after the commit, an answer to it at once. This
module never decides what is sent or dropped: `nereid_edge.outbox` does.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from nereid_edge import ledger
from nereid_edge.ledger import WorkerSide
from nereid_edge.outbox import (
    DELIVERED,
    MALFORMED,
    NO_SUBSCRIBER,
    POISON,
    REFUSED,
    UNDECODABLE,
    Drop,
    Outbox,
    Policy,
    Row,
    SampleKey,
    Stream,
)
from nereid_edge.store import (
    AnswerRecord,
    Change,
    Loaded,
    OutboxStore,
    Statement,
    StreamRecord,
    delete,
    drop_answer,
    insert,
    keep_answer,
    tried,
)
from nereid_shared import histogram, topics
from nereid_shared.errors import MessageInvalid, MessageTooLarge, TemporaryError
from nereid_shared.link import Link, Message
from nereid_shared.messages import Accepted, Ledger
from nereid_shared.samples import Result, Sample

_log = logging.getLogger(__name__)

TICK_S: Final = 0.1
IDLE_FLUSH_S: Final = 5.0
LAZY_FLUSH_S: Final = 1.0
DELETED: Final = "deleted"
LOST: Final = "lost"
TOO_LARGE: Final = "too-large"
MAX_KEPT_ANSWERS: Final = 1000
PUBLISH_FAILED: Final = 0x80
# The ledger's name for what a cloud worker says instead of an answer; it is `REFUSED` for all else that a script may
# say. A script that raised may do better at the next try: only the last one counts.
_REASONS: Final = {"": "", "predict-failed": POISON, UNDECODABLE: UNDECODABLE, MALFORMED: MALFORMED}
_MAX_SEQ: Final = 2**53
_MAX_REMAINING_MS: Final = 7 * 24 * 3600 * 1000


class UpClock:
    """Seconds that this LC was up, continued over restarts: what a sample's age is measured in."""

    def __init__(self, base: float) -> None:
        self._zero = time.monotonic() - base

    def __call__(self) -> float:
        """Return the time."""
        return time.monotonic() - self._zero


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """What the relay needs of a desired task: who gets ``accepted``, the caller's deadline, the outbox's bounds."""

    worker: str
    deadline_s: float = 1.0
    policy: Policy = field(default_factory=Policy)


@dataclass(slots=True, kw_only=True)
class _Service:
    """A service's samples and answers.

    Attributes:
        kept: answers that wait here for their worker, the oldest first; on disk too.
        flying: answers that were published and have no PUBACK yet.
    """

    id: str
    settings: ServiceSettings
    samples_topic: str
    results_topic: str
    box: Outbox
    counts: dict[str, int] = field(default_factory=dict)
    sides: dict[str, WorkerSide] = field(default_factory=dict)
    dumps: dict[str, str] = field(default_factory=dict)
    bodies: dict[SampleKey, bytes] = field(default_factory=dict)
    committed: dict[str, int] = field(default_factory=dict)
    kept: dict[SampleKey, AnswerRecord] = field(default_factory=dict)
    flying: set[SampleKey] = field(default_factory=set)
    gone: bool = False


class Relay:
    """The samples of all services of this node.

    Attributes:
        strays: samples and answers of services that this node does not run.
    """

    def __init__(self, *, node: str, store: OutboxStore) -> None:
        loaded = store.load()
        self.strays = 0
        self.clock = UpClock(loaded.clock)
        self._node, self._store, self._loaded = node, store, loaded
        self._services: dict[str, _Service] = {}
        self._edge: Link | None = None
        self._cloud: Link | None = None
        self._cloud_up = False
        self._work = asyncio.Event()
        self._unsaved: set[tuple[str, str]] = set()
        self._unlogged: dict[tuple[str, str], int] = {}
        self._to_accept: set[tuple[str, str]] = set()
        self._flush_scheduled = False

    def attach(self, *, edge: Link, cloud: Link) -> None:
        """Set the links; nothing is published before."""
        self._edge, self._cloud = edge, cloud

    def configure(self, services: Mapping[str, ServiceSettings], *, prune: bool) -> None:
        """Take up these services.

        Args:
            services: the desired services by id.
            prune: what is left of others is dropped and forgotten: they are absent from a document, not merely unknown.
        """
        stored = {*self._loaded.counters, *(one.service for one in self._loaded.streams), *self._services}
        for gone in stored - set(services) if prune else ():
            self._forget(gone)
        for name, settings in services.items():
            service = self._services.get(name)
            if service is None:
                self._services[name] = self._restored(name, settings)
            elif service.settings != settings:
                moved = service.settings.worker != settings.worker
                service.settings = settings
                self._give_up(service, service.box.set_policy(settings.policy, self.clock()))
                if moved:
                    self._tell_all_accepted(service)
        if prune:
            self._loaded = Loaded(rows=[], counters={}, streams=[], answers=[], clock=0.0)
        self._work.set()

    def ledger(self, service: str) -> Ledger:
        """Return a service's counts; an empty ledger for one that is not here."""
        one = self._services.get(service)
        return ledger.joined(one.box, one.counts, one.sides) if one else Ledger()

    def worker_reported(self, service_id: str, *, stream: str, accepted: int, counts: Ledger) -> None:
        """Take in what a worker's info says of its counts, and of what it knows to be accepted."""
        service = self._services.get(service_id)
        if service is None or not stream or not 0 <= accepted < _MAX_SEQ:
            return
        # The worker speaks, so it has subscribed: now they can reach it.
        self._hand_on_kept(service)
        known = service.box.streams.get(stream)
        if accepted > (known.contiguous if known else 0):
            self._lose(service, stream, accepted)
        elif accepted < service.committed.get(stream, 0):
            self._tell_accepted(service.id, stream)
        if service.sides.setdefault(stream, WorkerSide()).reported(counts):
            service.dumps[stream] = service.sides[stream].dump()
            self._unsaved.add((service.id, stream))

    # The hot path.

    def on_sample(self, message: Message) -> None:
        """Take a sample from the edge broker: send it on, store it.

        Raises:
            MessageInvalid, MessageTooLarge: a dead letter.
        """
        sample = Sample.decode(message.payload, max_bytes=topics.SAMPLES.max_bytes)
        if sample.seq < 1 or sample.seq > _MAX_SEQ or not math.isfinite(sample.score):
            raise MessageInvalid(f"{message.topic}: sample {sample.seq} with score {sample.score}")
        service = self._services.get(message.topic.split("/", 3)[2])
        if service is None:
            self._stray(message.topic)
            return
        now = self.clock()
        remaining_s = max(min(sample.remaining_ms, _MAX_REMAINING_MS), -_MAX_REMAINING_MS) / 1000
        row = Row(
            key=SampleKey(sample.stream, sample.seq), digest=sample.digest, label=sample.label, score=sample.score,
            size=len(message.payload), born=now, deadline=now + remaining_s,
        )  # fmt: skip
        accepted = service.box.accept(row)
        if accepted is None:
            self._repeated(service, sample.stream)
            return
        statements: list[Statement] = []
        if accepted.row is not None:
            service.bodies[row.key] = message.payload
            if self._cloud_up:
                self._pump(service, now)
            if row.key in service.box.rows:
                statements.append(insert(service.id, row, message.payload))
        self._work.set()
        side = service.sides.setdefault(sample.stream, WorkerSide())
        side.took(sample.counts.easy, sample.counts.hard)
        counts = [(service.id, "accepted", 1)]
        for drop in accepted.drops:
            statements.append(delete(service.id, drop.row.key))
            counts.append((service.id, ledger.DROPPED + drop.reason, 1))
            self._note_drop(service, drop)
            service.bodies.pop(drop.row.key, None)
        record = self._record(service, sample.stream)
        done = partial(self._committed, service, row.key, record.contiguous)
        self._store.put(Change(statements=statements, counts=counts, stream=record, clock=now, done=done))

    def on_result(self, message: Message) -> None:
        """Take an answer from the cloud broker: hand it on, finish the sample.

        Raises:
            MessageInvalid, MessageTooLarge: a dead letter.
        """
        result = Result.decode(message.payload, max_bytes=topics.RESULTS.max_bytes)
        service = self._services.get(message.topic.split("/", 3)[2])
        if service is None:
            self._stray(message.topic)
            return
        now = self.clock()
        key = SampleKey(result.stream, result.seq)
        counts = {"bytes_down": len(message.payload)}
        reason = _REASONS.get(result.error, REFUSED)
        if reason == POISON and service.box.fail(key, result.digest, now):
            statements = [tried(service.id, service.box.rows[key])]
            self._count(service, counts, statements=statements, lazily=True)
            self._pump(service, now)
            return
        if reason:
            row = service.box.refuse(key, result.digest, reason, now)
        else:
            row = service.box.answer(key, result.digest, now)
        if row is None:
            counts["duplicates"] = 1
            self._count(service, counts, lazily=True)
            return
        late = not reason and now > row.deadline
        answer = AnswerRecord(service.id, key, late, now, message.payload)
        if not row.sent:
            # Answered before the broker's PUBACK came, or sent by a process that did not live to write it.
            counts["sent"] = 1
            row.counted, row.sent = row.flight, True
        if reason:
            counts[ledger.DROPPED + reason] = 1
            self._note_drop(service, Drop(row, reason))
        else:
            seconds = now - row.deadline + service.settings.deadline_s
            counts |= {"answered": 1, f"{ledger.CLOUD}{histogram.bucket(seconds)}": 1}
            counts |= {"late": 1} if late else {}
            counts |= {"changed": 1} if result.label != row.label else {}
        service.bodies.pop(key, None)
        self._publish_answer(service, answer, self._changed(service, counts, [delete(service.id, key)]))
        self._pump(service, now)

    def _pump(self, service: _Service, now: float) -> None:
        """Publish what the outbox lets go."""
        cloud = self._cloud
        while self._cloud_up and cloud is not None and (row := service.box.take(now)) is not None:
            body = service.bodies.get(row.key) or self._store.body(service.id, row.key)
            if body is None:
                _log.error("a stored sample has no body", extra={"service": service.id, "seq": row.key.seq})
                self._refuse(service, row, LOST)
                continue
            try:
                cloud.publish_nowait(
                    service.samples_topic, body, on_ack=partial(self._acked, service, row, row.flight, len(body))
                )
            except TemporaryError:
                service.box.acked(row, row.flight, None, now)
                return
            except MessageTooLarge as error:
                _log.warning("sample given up", extra={"service": service.id, "problem": str(error)})
                # Not within the sample's own turn: its drop must not reach the disk before it was counted as accepted.
                asyncio.get_running_loop().call_soon(self._refuse, service, row, TOO_LARGE)

    def _acked(self, service: _Service, row: Row, flight: int, size: int, code: int | None) -> None:
        now = self.clock()
        service.box.acked(row, flight, code, now)
        if code is None:
            return
        counts = {"bytes_up": size}
        if code == DELIVERED and (name := row.delivered(flight)) is not None:
            counts[name] = 1
        statements = [tried(service.id, row)] if row.key in service.box.rows else []
        self._count(service, counts, statements=statements, lazily=True)
        self._pump(service, now)

    # Answers on their way to the worker.

    def _publish_answer(self, service: _Service, answer: AnswerRecord, end: Change) -> bool:
        """Publish an answer to the edge broker, once at a time; False where that cannot be done now.

        Args:
            service: whose.
            answer: a new one, or one that is kept.
            end: what is to be committed together with what becomes of the answer: the end of its sample.
        """
        on_ack = partial(self._answer_acked, service, answer, end)
        service.flying.add(answer.key)
        try:
            if self._edge is not None:
                self._edge.publish_nowait(service.results_topic, answer.body, on_ack=on_ack)
                return True
        except TemporaryError:
            pass
        except MessageTooLarge as error:
            _log.warning("answer not handed on", extra={"service": service.id, "problem": str(error)})
            on_ack(PUBLISH_FAILED)
            return True
        on_ack(None)
        return False

    def _answer_acked(self, service: _Service, answer: AnswerRecord, end: Change, code: int | None) -> None:
        """End the sample on disk, in one transaction with its answer's way: delivered, given up, or kept.

        Until here a crash has the sample sent, and answered, once more.
        """
        service.flying.discard(answer.key)
        if service.gone:
            return
        counts: dict[str, int] = {}
        statements: list[Statement] = []
        if code in (None, NO_SUBSCRIBER):
            # The broker or the worker is away; `edge_connected` and the worker's next info try again.
            if answer.key not in service.kept and len(service.kept) < MAX_KEPT_ANSWERS:
                service.kept[answer.key] = answer
                statements = [keep_answer(answer)]
            elif answer.key not in service.kept:
                counts = {"undelivered": 1}
        else:
            counts = {"undelivered": 1} if code != DELIVERED else {"corrected": 1} if answer.late else {}
            if service.kept.pop(answer.key, None) is not None:
                statements = [drop_answer(service.id, answer.key)]
        more = self._changed(service, counts, statements)
        change = replace(end, statements=[*end.statements, *more.statements], counts=[*end.counts, *more.counts])
        if change.statements or change.counts:
            self._store.put(change)

    def _hand_on_kept(self, service: _Service) -> None:
        """Publish the answers that wait; those that nobody takes go on waiting."""
        for answer in [one for key, one in service.kept.items() if key not in service.flying]:
            if not self._publish_answer(service, answer, Change()):
                return

    def _give_up_kept(self, service: _Service, now: float) -> None:
        """Count the answers whose worker stayed away for as long as samples are kept."""
        for answer in list(service.kept.values()):
            if now - answer.since <= service.settings.policy.keep_for_s:
                return
            if answer.key not in service.flying:
                del service.kept[answer.key]
                self._count(service, {"undelivered": 1}, statements=[drop_answer(service.id, answer.key)])

    # Connections and time.

    def edge_connected(self) -> None:
        """Say again what is accepted, and hand on the answers that wait."""
        for service in self._services.values():
            self._tell_all_accepted(service)
            self._hand_on_kept(service)

    def cloud_connected(self) -> None:
        """Send from now on."""
        self._cloud_up = True
        for service in self._services.values():
            self._pump(service, self.clock())

    def cloud_disconnected(self) -> None:
        """Send nothing; whether what was in flight has arrived is unknown."""
        self._cloud_up = False
        for service in self._services.values():
            service.box.disconnected()

    async def run(self) -> None:
        """Expire, time out and send again, for as long as something waits."""
        flushed = self.clock()
        while True:
            if any(service.box.rows for service in self._services.values()):
                await asyncio.sleep(TICK_S)
            else:
                await self._idle()
            now = self.clock()
            for service in self._services.values():
                self._give_up(service, service.box.tick(now))
                self._give_up_kept(service, now)
                self._pump(service, now)
            if now - flushed >= LAZY_FLUSH_S:
                flushed = now
                self._save(now)

    async def _idle(self) -> None:
        self._save(self.clock())
        self._work.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(IDLE_FLUSH_S):
                await self._work.wait()

    def _save(self, now: float) -> None:
        """Write what was put off, and say what was dropped."""
        for name, stream in self._unsaved:
            if name in self._services:
                self._store.put_lazily(Change(stream=self._record(self._services[name], stream)))
        self._unsaved.clear()
        if any(service.box.rows or service.kept for service in self._services.values()):
            self._store.put_lazily(Change(clock=now))
        self._store.flush()
        for (name, reason), number in self._unlogged.items():
            _log.warning("samples dropped", extra={"service": name, "reason": reason, "samples": number})
        self._unlogged.clear()

    # Bookkeeping.

    def _restored(self, name: str, settings: ServiceSettings) -> _Service:
        """Return a service with what the disk holds of it."""
        counts = self._loaded.counters.get(name, {})
        box = Outbox(settings.policy)
        box.accepted, box.answered = counts.get("accepted", 0), counts.get("answered", 0)
        prefix = ledger.DROPPED
        box.dropped = {key.removeprefix(prefix): n for key, n in counts.items() if key.startswith(prefix)}
        for owner, row in self._loaded.rows:
            if owner == name:
                box.restore(row)
        service = _Service(
            id=name, settings=settings, box=box, counts=dict(counts),
            samples_topic=topics.SAMPLES.of(service=name, node=self._node),
            results_topic=topics.RESULTS.of(service=name, node=self._node),
        )  # fmt: skip
        for one in self._loaded.streams:
            if one.service == name:
                box.streams[one.stream] = Stream(
                    contiguous=one.contiguous, beyond=set(one.beyond), accepted=one.accepted
                )
                service.sides[one.stream] = WorkerSide.load(easy=one.easy, hard=one.hard, dumped=one.worker)
                service.dumps[one.stream] = one.worker
                service.committed[one.stream] = one.contiguous
        service.kept = {one.key: one for one in self._loaded.answers if one.service == name}
        self._give_up(service, box.set_policy(settings.policy, self.clock()))
        return service

    def _forget(self, name: str) -> None:
        service = self._services.pop(name, None)
        if service is not None:
            service.gone = True
        rows = len(service.box.rows) if service else sum(1 for owner, _ in self._loaded.rows if owner == name)
        if rows:
            _log.warning("samples dropped", extra={"service": name, "reason": DELETED, "samples": rows})
        self._store.put(Change(forget=name))

    def _repeated(self, service: _Service, stream: str) -> None:
        """A worker says again what is known: it missed ``accepted``."""
        gap = service.box.stranger_gap(stream)
        if gap:
            self._lose(service, stream, gap)
        elif service.committed.get(stream, 0):
            self._tell_accepted(service.id, stream)

    def _lose(self, service: _Service, stream: str, seq: int) -> None:
        lost = service.box.forget(stream, seq)
        _log.warning("samples forgotten", extra={"service": service.id, "stream": stream, "samples": lost})
        counts = [(service.id, "accepted", lost), (service.id, ledger.DROPPED + "forgotten", lost)] if lost else []
        record = self._record(service, stream)
        done = partial(self._committed, service, SampleKey(stream, 0), record.contiguous)
        self._store.put(Change(counts=counts, stream=record, done=done))

    def _refuse(self, service: _Service, row: Row, reason: str) -> None:
        if service.box.refuse(row.key, row.digest, reason, self.clock()) is not None:
            service.bodies.pop(row.key, None)
            counts = {ledger.DROPPED + reason: 1}
            self._count(service, counts, statements=[delete(service.id, row.key)])

    def _give_up(self, service: _Service, drops: Iterable[Drop]) -> None:
        for drop in drops:
            service.bodies.pop(drop.row.key, None)
            self._note_drop(service, drop)
            counts = {ledger.DROPPED + drop.reason: 1}
            self._count(service, counts, statements=[delete(service.id, drop.row.key)])

    def _note_drop(self, service: _Service, drop: Drop) -> None:
        # One line a second and reason: an outbox that overflows drops hundreds.
        key = service.id, drop.reason
        self._unlogged[key] = self._unlogged.get(key, 0) + 1

    def _count(
        self,
        service: _Service,
        counts: Mapping[str, int],
        *,
        statements: Iterable[Statement] = (),
        lazily: bool = False,
    ) -> None:
        if service.gone:
            return
        change = self._changed(service, counts, statements)
        if lazily:
            self._store.put_lazily(change)
        else:
            self._store.put(change)

    def _changed(self, service: _Service, counts: Mapping[str, int], statements: Iterable[Statement]) -> Change:
        """Count in memory, and return what does so on disk."""
        for name, number in counts.items():
            service.counts[name] = service.counts.get(name, 0) + number
        return Change(
            statements=tuple(statements), counts=[(service.id, name, number) for name, number in counts.items()]
        )

    def _record(self, service: _Service, stream: str) -> StreamRecord:
        known = service.box.streams.setdefault(stream, Stream())
        side = service.sides.setdefault(stream, WorkerSide())
        return StreamRecord(
            service.id, stream, known.contiguous, tuple(known.beyond), known.accepted, side.easy, side.hard,
            service.dumps.get(stream, ""),
        )  # fmt: skip

    def _committed(self, service: _Service, key: SampleKey, contiguous: int) -> None:
        service.bodies.pop(key, None)
        service.committed[key.stream] = max(service.committed.get(key.stream, 0), contiguous)
        self._tell_accepted(service.id, key.stream)

    def _tell_all_accepted(self, service: _Service) -> None:
        for stream, contiguous in service.committed.items():
            if contiguous:
                self._tell_accepted(service.id, stream)

    def _tell_accepted(self, service: str, stream: str) -> None:
        """Publish ``accepted`` once per stream when this turn of the loop is over."""
        self._to_accept.add((service, stream))
        if not self._flush_scheduled:
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self._publish_accepted)

    def _publish_accepted(self) -> None:
        self._flush_scheduled = False
        told, self._to_accept = self._to_accept, set()
        for name, stream in told:
            service = self._services.get(name)
            if service is None or self._edge is None:
                continue
            body = Accepted(stream=stream, seq=service.committed.get(stream, 0)).encode()
            try:
                self._edge.publish_nowait(topics.ACCEPTED.of(worker=service.settings.worker), body)
            except TemporaryError:
                # The worker repeats what is not accepted, and is told then.
                _log.debug("accepted not told", extra={"service": name})

    def _stray(self, topic: str) -> None:
        self.strays += 1
        if self.strays & (self.strays - 1) == 0:
            _log.warning("not a service of this node", extra={"topic": topic, "strays": self.strays})
