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
import sys
import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Final

from nereid_edge import ledger
from nereid_edge.acceptance import Acceptance
from nereid_edge.answers import Answers
from nereid_edge.deleted import Deleted
from nereid_edge.ledger import WorkerSide
from nereid_edge.records import (
    AnswerRecord,
    Change,
    Loaded,
    Statement,
    delete,
    insert,
    tried,
)
from nereid_edge.rows import POISON, Drop, Row, SampleKey
from nereid_edge.service import Service, ServiceSettings
from nereid_edge.store import OutboxStore
from nereid_edge.worker_folders import WorkerFolders
from nereid_shared import histogram, topics
from nereid_shared.errors import MessageInvalid, MessageTooLarge, TemporaryError
from nereid_shared.link import DELIVERED, Link, Message
from nereid_shared.messages import Ledger
from nereid_shared.samples import MALFORMED_SCORES, PREDICT_FAILED, REFUSED, UNDECODABLE, Result, Sample

logger = logging.getLogger(__name__)

TICK_S: Final = 0.1
IDLE_FLUSH_S: Final = 5.0
LAZY_FLUSH_S: Final = 1.0
LOST: Final = "lost"
TOO_LARGE: Final = "too-large"
CLOCK_EVERY_S: Final = 60.0
# The ledger's name for what a cloud worker says instead of an answer; it is `REFUSED` for all else that a script may
# say. A script that raised may do better at the next try: only the last one counts.
_REASONS: Final = {
    "": "",
    PREDICT_FAILED: POISON,
    UNDECODABLE: UNDECODABLE,
    MALFORMED_SCORES: MALFORMED_SCORES,
}
_MAX_REMAINING_MS: Final = 7 * 24 * 3600 * 1000


class UpClock:
    """Seconds that this LC was up, continued over restarts: what a sample's age is measured in."""

    def __init__(self, base: float) -> None:
        self._zero = time.monotonic() - base

    def __call__(self) -> float:
        """Return the time."""
        return time.monotonic() - self._zero


class Relay:
    """The samples of all services of this node.

    Args:
        folders: what the workers of deleted services leave.

    Attributes:
        strays: samples and answers of services that this node does not run.
    """

    def __init__(self, *, node: str, store: OutboxStore, folders: WorkerFolders) -> None:
        loaded = store.load()
        self.strays = 0
        self.clock = UpClock(loaded.clock)
        self._node, self._store, self._loaded = node, store, loaded
        self._services: dict[str, Service] = {}
        self._answers, self._acceptance = Answers(store, clock=self.clock), Acceptance()
        self._deleted = Deleted(store, folders)
        self._cloud: Link | None = None
        self._cloud_up = False
        self._work = asyncio.Event()
        self._unlogged: dict[tuple[str, str], int] = {}
        self._clock_saved = loaded.clock

    def attach(self, *, edge: Link, cloud: Link) -> None:
        """Set the links; nothing is published before."""
        self._cloud = cloud
        self._answers.attach(edge)
        self._acceptance.attach(edge)

    def configure(self, services: Mapping[str, ServiceSettings], *, prune: bool) -> None:
        """Take up these services.

        Args:
            services: the desired services by id.
            prune: others are absent from a document, not merely unknown: they are deleted.
        """
        for absent in {*self._loaded.services, *self._services} - set(services) if prune else ():
            self._delete(absent)
        for name, settings in services.items():
            service = self._services.get(name)
            if service is None:
                self._take_up(name, settings)
            elif service.settings != settings:
                moved = service.settings.worker != settings.worker
                service.settings = settings
                self._give_up(service, service.box.set_policy(settings.policy, self.clock()))
                if moved:
                    self._acceptance.tell_all(service)
        if prune:
            self._loaded = Loaded()
        self._look_after_deleted(self.clock())
        self._work.set()

    def ledger(self, service: str) -> Ledger:
        """Return a service's counts; an empty ledger for one that is not here."""
        one = self._services.get(service)
        return ledger.joined(one.box, one.counts, one.sides) if one else Ledger()

    def worker_reported(self, service_id: str, *, stream: str, accepted: int, counts: Ledger) -> None:
        """Take in what a worker's info says of its counts, and of what it knows to be accepted: at most `hard`."""
        service = self._services.get(service_id)
        if service is None or not stream:
            return
        # The worker speaks, so it has subscribed: now they can reach it.
        self._answers.hand_on_kept(service)
        side = service.sides.get(stream) or self._begun(service, stream)
        if accepted > service.box.contiguous(stream):
            self._lose(service, stream, accepted)
        elif accepted < service.committed.get(stream, 0):
            self._acceptance.tell(service, stream)
        known = service.box.streams.get(stream)
        if side.reported(counts, accepted=known.accepted if known else 0):
            service.dumps[stream] = side.dump()
            service.unsaved.add(stream)

    # The hot path.

    def on_sample(self, message: Message) -> None:
        """Take a sample from the edge broker: send it on, store it.

        Raises:
            MessageInvalid, MessageTooLarge: a dead letter.
        """
        sample = Sample.decode(message.payload, max_bytes=topics.SAMPLES.max_bytes)
        if sample.seq < 1:
            raise MessageInvalid(f"{message.topic}: sample {sample.seq}")
        service = self._services.get(message.topic.split("/", 3)[2])
        if service is None:
            self._stray(message.topic)
            return
        now = self.clock()
        remaining_s = max(min(sample.remaining_ms, _MAX_REMAINING_MS), -_MAX_REMAINING_MS) / 1000
        row = Row(
            key=SampleKey(sys.intern(sample.stream), sample.seq), digest=sample.digest, label=sys.intern(sample.label),
            score=sample.score, size=len(message.payload), born=now, deadline=now + remaining_s,
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
        side = service.sides.get(sample.stream) or self._begun(service, sample.stream)
        side.took(sample.counts.easy, sample.counts.hard)
        counts = [(service.id, "accepted", 1)]
        for drop in accepted.drops:
            statements.append(delete(service.id, drop.row.key))
            counts.append((service.id, ledger.DROPPED + drop.reason, 1))
            self._note_drop(service, drop)
            service.bodies.pop(drop.row.key, None)
        record = service.record(sample.stream)
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
        answer = AnswerRecord(service.id, key, now, math.inf if reason else row.deadline, message.payload)
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
            counts |= {"late": 1} if answer.came_late else {}
            counts |= {"changed": 1} if result.label != row.label else {}
        service.bodies.pop(key, None)
        self._answers.publish(service, answer, service.count(counts, [delete(service.id, key)]))
        self._pump(service, now)

    def _pump(self, service: Service, now: float) -> None:
        """Publish what the outbox lets go."""
        cloud = self._cloud
        sends = self._cloud_up and service.deleted_until is None
        while sends and cloud is not None and (row := service.box.take(now)) is not None:
            body = service.bodies.get(row.key) or self._store.body(service.id, row.key)
            if body is None:
                logger.error("a stored sample has no body", extra={"service": service.id, "seq": row.key.seq})
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
                logger.warning("sample given up", extra={"service": service.id, "problem": str(error)})
                # Not within the sample's own turn: its drop must not reach the disk before it was counted as accepted.
                asyncio.get_running_loop().call_soon(self._refuse, service, row, TOO_LARGE)

    def _acked(self, service: Service, row: Row, flight: int, size: int, code: int | None) -> None:
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

    # Connections and time.

    def edge_connected(self) -> None:
        """Say again what is accepted, and hand on the answers that wait."""
        for service in self._services.values():
            self._acceptance.tell_all(service)
            self._answers.hand_on_kept(service)

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
                self._answers.give_up_kept(service, now)
                self._pump(service, now)
            self._look_after_deleted(now)
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
        for service in self._services.values():
            self._save_streams(service)
        waits = any(service.box.rows or service.kept for service in self._services.values())
        if waits or (self._deleted and now - self._clock_saved >= CLOCK_EVERY_S):
            self._clock_saved = now
            self._store.put_lazily(Change(clock=now))
        self._store.flush()
        for (name, reason), number in self._unlogged.items():
            logger.warning("samples dropped", extra={"service": name, "reason": reason, "samples": number})
        self._unlogged.clear()

    # Bookkeeping.

    def _take_up(self, name: str, settings: ServiceSettings) -> None:
        """Run a service, with what is left of it where there is something."""
        service = self._deleted.take(name) or self._restored(name, settings)
        if service.deleted_until is not None:
            service.settings = settings
            self._deleted.restore(service)
            self._acceptance.tell_all(service)
        self._services[name] = service
        self._give_up(service, service.box.set_policy(settings.policy, self.clock()))

    def _delete(self, name: str) -> None:
        service = self._services.pop(name, None) or self._restored(name, ServiceSettings(worker=""))
        self._save_streams(service)
        self._deleted.put(service, self.clock())

    def _look_after_deleted(self, now: float) -> None:
        self._deleted.expire(now)
        self._deleted.make_room(self._services.values())

    def _restored(self, name: str, settings: ServiceSettings) -> Service:
        return Service.restored(name, settings, self._loaded, node=self._node)

    def _save_streams(self, service: Service) -> None:
        for stream in service.unsaved:
            self._store.put_lazily(Change(stream=service.record(stream)))
        service.unsaved.clear()

    def _repeated(self, service: Service, stream: str) -> None:
        """A worker says again what is known: it missed ``accepted``."""
        gap = service.box.stranger_gap(stream)
        if gap:
            self._lose(service, stream, gap)
        elif service.committed.get(stream, 0):
            self._acceptance.tell(service, stream)

    def _begun(self, service: Service, stream: str) -> WorkerSide:
        """Take up a stream that is heard of for the first time, and end those before it."""
        for former, last in ledger.ended(service.box, service.sides).items():
            self._lose(service, former, last)
        side = service.sides[stream] = WorkerSide()
        return side

    def _lose(self, service: Service, stream: str, seq: int) -> None:
        lost = service.box.forget(stream, seq)
        logger.warning("samples forgotten", extra={"service": service.id, "stream": stream, "samples": lost})
        counts = [(service.id, "accepted", lost), (service.id, ledger.DROPPED + "forgotten", lost)] if lost else []
        record = service.record(stream)
        done = partial(self._committed, service, SampleKey(stream, 0), record.contiguous)
        self._store.put(Change(counts=counts, stream=record, done=done))

    def _refuse(self, service: Service, row: Row, reason: str) -> None:
        if service.box.refuse(row.key, row.digest, reason, self.clock()) is not None:
            service.bodies.pop(row.key, None)
            counts = {ledger.DROPPED + reason: 1}
            self._count(service, counts, statements=[delete(service.id, row.key)])

    def _give_up(self, service: Service, drops: Iterable[Drop]) -> None:
        for drop in drops:
            service.bodies.pop(drop.row.key, None)
            self._note_drop(service, drop)
            counts = {ledger.DROPPED + drop.reason: 1}
            self._count(service, counts, statements=[delete(service.id, drop.row.key)])

    def _note_drop(self, service: Service, drop: Drop) -> None:
        # One line a second and reason: an outbox that overflows drops hundreds.
        key = service.id, drop.reason
        self._unlogged[key] = self._unlogged.get(key, 0) + 1

    def _count(
        self,
        service: Service,
        counts: Mapping[str, int],
        *,
        statements: Iterable[Statement] = (),
        lazily: bool = False,
    ) -> None:
        if service.gone:
            return
        change = service.count(counts, statements)
        if lazily:
            self._store.put_lazily(change)
        else:
            self._store.put(change)

    def _committed(self, service: Service, key: SampleKey, contiguous: int) -> None:
        service.bodies.pop(key, None)
        service.committed[key.stream] = max(service.committed.get(key.stream, 0), contiguous)
        self._acceptance.tell(service, key.stream)

    def _stray(self, topic: str) -> None:
        self.strays += 1
        if self.strays & (self.strays - 1) == 0:
            logger.warning("not a service of this node", extra={"topic": topic, "strays": self.strays})
