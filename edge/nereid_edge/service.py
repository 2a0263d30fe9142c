# SPDX-License-Identifier: Apache-2.0
"""One service of the node as the relay works with it: its outbox, its counts, its streams, and its answers that wait.

Counting here is counting in memory; what does so on disk is returned as a `Change`, to be put by the caller.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from nereid_edge import ledger
from nereid_edge.ledger import WorkerSide
from nereid_edge.outbox import Outbox
from nereid_edge.records import AnswerRecord, Change, Loaded, Statement, StreamRecord
from nereid_edge.rows import OutboxPolicy, SampleKey, Stream
from nereid_shared import topics


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """What the relay needs of a desired task: who gets ``accepted``, the caller's deadline, the outbox's bounds."""

    worker: str
    deadline_s: float = 1.0
    policy: OutboxPolicy = field(default_factory=OutboxPolicy)


@dataclass(slots=True, kw_only=True)
class Service:
    """A service's samples and answers.

    Attributes:
        bodies: of the samples that are not committed yet.
        committed: per stream, the sample up to which all are on disk.
        kept: answers that wait here for their worker, the oldest first; on disk too.
        flying: answers that were published and have no PUBACK yet.
        unsaved: streams whose counts were heard and are not put yet.
        deleted_until: of a deleted service: when nothing of it is kept any longer, in the LC's time.
        gone: nothing of it is kept: whatever still comes of it is not written.
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
    unsaved: set[str] = field(default_factory=set)
    deleted_until: float | None = None
    gone: bool = False

    @classmethod
    def restored(cls, name: str, settings: ServiceSettings, loaded: Loaded, *, node: str) -> Self:
        """Return a service with what the disk holds of it; the bounds of its outbox are not applied yet."""
        counts = loaded.counters.get(name, {})
        box = Outbox(settings.policy)
        box.accepted, box.answered = counts.get("accepted", 0), counts.get("answered", 0)
        prefix = ledger.DROPPED
        box.dropped = {key.removeprefix(prefix): n for key, n in counts.items() if key.startswith(prefix)}
        for owner, row in loaded.rows:
            if owner == name:
                box.restore(row)
        service = cls(
            id=name, settings=settings, box=box, counts=dict(counts),
            samples_topic=topics.SAMPLES.of(service=name, node=node),
            results_topic=topics.RESULTS.of(service=name, node=node),
            deleted_until=loaded.deleted.get(name),
        )  # fmt: skip
        for one in loaded.streams:
            if one.service == name:
                box.streams[one.stream] = Stream(
                    contiguous=one.contiguous, beyond=set(one.beyond), accepted=one.accepted
                )
                service.sides[one.stream] = WorkerSide.load(easy=one.easy, hard=one.hard, dumped=one.worker)
                service.dumps[one.stream] = one.worker
                service.committed[one.stream] = one.contiguous
        service.kept = {one.key: one for one in loaded.answers if one.service == name}
        return service

    def count(self, counts: Mapping[str, int], statements: Iterable[Statement] = ()) -> Change:
        """Count in memory, and return what does so on disk."""
        for name, number in counts.items():
            self.counts[name] = self.counts.get(name, 0) + number
        return Change(statements=tuple(statements), counts=[(self.id, name, number) for name, number in counts.items()])

    def record(self, stream: str) -> StreamRecord:
        """Return a stream as it is to be stored."""
        known = self.box.streams.setdefault(stream, Stream())
        side = self.sides.setdefault(stream, WorkerSide())
        return StreamRecord(
            self.id, stream, known.contiguous, tuple(known.beyond), known.accepted, side.easy, side.hard,
            self.dumps.get(stream, ""),
        )  # fmt: skip
