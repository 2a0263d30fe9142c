# SPDX-License-Identifier: Apache-2.0
"""What the GlobalManager publishes for one node, and when: protocol, "Desired state", as a pure state machine.

Inputs are method calls, each with the monotonic time in seconds; after any of them `tick` yields what is to be done.
No socket, no clock, no task: `nereid_cloud.gm.downstream` has those.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace

from nereid_shared.digests import digest_of
from nereid_shared.errors import MessageInvalid, MessageTooLarge
from nereid_shared.messages import PRUNE_HELD, SPECS_MISSING, Desired, NodeState, Sync, TaskRow
from nereid_shared.topics import DESIRED

PACE_S: Final = 0.1
ACK_TIMEOUT_S: Final = 5.0
VERIFY_S: Final = 2.0
MAX_REPAIR_DELAY_S: Final = 60.0
MAX_INLINE_BYTES: Final = 256 * 1024
# Every taking of the Lease makes one epoch, and only its holder makes any: what is further ahead than a lost Lease
# explains is forged. Followed, it would drive the epoch out of what every reader's integers hold.
MAX_EPOCH_STEP: Final = 1_000_000

STATE_AHEAD: Final = "StateAhead"


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """Publish the document, retained.

    Attributes:
        rows: the document's tasks with their specs, also where the payload lists hashes only.
        inserted: uids that are new to the node, or new in content.
        deleted: the rows that the node held before, by uid.
    """

    epoch: int
    rev: int
    payload: bytes
    rows: Mapping[str, TaskRow]
    inserted: frozenset[str]
    deleted: Mapping[str, TaskRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class RaiseEpoch:
    """The node, or its topic, has seen a revision that is not ours: lead with an epoch above this one."""

    above: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReport:
    """The node's condition changed; an empty reason means that all is well again."""

    reason: str
    message: str = ""


Output = Publish | RaiseEpoch | NodeReport


@dataclass(slots=True)
class _Sent:
    """The document published last, and what became of it."""

    rev: int
    digest: str
    rows: Mapping[str, TaskRow]
    payload: bytes
    at: float
    at_broker: bool = False
    failed: bool = False
    answered: bool = False
    applied: bool = False


@dataclass(slots=True)
class NodeDesired:
    """One node's desired state on its way to the node.

    Attributes:
        tasks: what the node shall run, by uid.
        trouble: the reason of the node's present condition, "" where all is well.
    """

    cluster: str
    epoch: int
    tasks: dict[str, TaskRow] = field(default_factory=dict)
    trouble: str = ""
    _rev: int = 0
    _sent: _Sent | None = None
    _known: bool = False
    _due: bool = True
    _not_before: float = 0.0
    _verify_by: float | None = None
    _mismatches: int = 0
    _wanted: tuple[str, ...] = ()
    _repeat: bool = False
    _confirmed: dict[str, str] = field(default_factory=dict)
    _confirmed_at: tuple[int, int] = (0, 0)
    _told: dict[str, TaskRow] = field(default_factory=dict)
    _waiting: list[Output] = field(default_factory=list)

    def set_tasks(self, tasks: Mapping[str, TaskRow]) -> bool:
        """Take the complete list of the node's tasks; returns whether it differs from the former."""
        if tasks == self.tasks:
            return False
        self.tasks = dict(tasks)
        self._due = True
        return True

    def new_epoch(self, epoch: int) -> None:
        """Start again at revision 1 of a new epoch."""
        self.epoch, self._rev, self._sent, self._due = epoch, 0, None, True
        self._mismatches, self._not_before, self._verify_by = 0, 0.0, None

    def on_presence(self) -> None:
        """Note that the node has a LocalController."""
        self._known = True

    def on_state(self, state: NodeState, now: float) -> None:
        """Take the node's word on what it has applied."""
        self._known = True
        if state.cluster != self.cluster or (state.epoch, state.rev) < self._confirmed_at:
            self._confirmed = {}  # its disk is not the one that acknowledged
        if self._is_incredible(state.cluster, state.epoch):
            return
        if state.reason == PRUNE_HELD:
            self._report(PRUNE_HELD, state.message)
            return
        if state.cluster == self.cluster and self._is_ahead(state.epoch, state.rev):
            self._raise_above(state.epoch)
            return
        sent = self._sent
        if sent is None:
            return
        if state.cluster == self.cluster and (state.epoch, state.rev) == (self.epoch, sent.rev):
            self._compare(sent, state, now)
            return
        if state.reason not in ("", SPECS_MISSING):
            self._report(state.reason, state.message)
        if now - sent.at >= ACK_TIMEOUT_S:
            self._due = True

    def on_sync(self, sync: Sync) -> None:
        """Take the node's request for its desired state, or for specs that the document only named."""
        self._known = True
        if self._is_incredible(sync.cluster, sync.epoch):
            return
        if sync.cluster == self.cluster and self._is_ahead(sync.epoch, sync.rev):
            self._raise_above(sync.epoch)
            return
        sent = self._sent
        if sent is not None and not sync.want_specs and self._has(sync, sent):
            # Not a repair, which would take a new revision: the broker may have lost what the node has applied.
            self._repeat = True
            return
        self._due = True
        self._wanted = tuple(sync.want_specs)
        if sync.want_specs and sent is not None:
            sent.answered = True  # it has the document, and cannot use it yet

    def on_document(self, payload: bytes, *, retained: bool) -> None:
        """Take what stands on the node's own topic: our echo, or what somebody else wrote there.

        Args:
            payload: empty where the topic was cleared.
            retained: the broker's present content at our subscribing, not a live message.
        """
        sent = self._sent
        if sent is not None and payload == sent.payload:
            self._verify_by = None
            return
        document = _document(payload)
        if payload:
            self._known = True
        if document is not None and document.cluster == self.cluster:
            if self._is_ahead(document.epoch, document.rev):
                self._raise_above(document.epoch)
                return
            if not self._told:
                self._told = dict(document.tasks)
            if sent is not None and document.epoch == self.epoch and not retained:
                return  # the echo of an earlier revision of ours
        if sent is not None:
            self._due = True

    def on_connected(self, now: float) -> None:
        """Expect our document back from the broker, which may have lost it."""
        if self._sent is not None and self._sent.failed:
            self._sent.at = float("-inf")
        elif self._sent is not None:
            self._verify_by = now + VERIFY_S

    def on_store_lost(self) -> None:
        """Publish again: the broker lost or restored its data."""
        self._due = True

    def published(self, epoch: int, rev: int) -> None:
        """The broker has the document; one of a former epoch no longer counts, though its rev may be the same."""
        if self._sent is not None and (self.epoch, self._sent.rev) == (epoch, rev):
            self._sent.at_broker = True

    def publish_failed(self, epoch: int, rev: int) -> None:
        """The broker may not have the document: take a new revision at the next connection, or after the time-out."""
        if self._sent is not None and (self.epoch, self._sent.rev) == (epoch, rev):
            self._sent.at_broker = self._sent.failed = True
            self._sent.answered = self._sent.applied = False
            self._due = True

    @property
    def revision(self) -> tuple[int, int]:
        """The (epoch, rev) published last."""
        return self.epoch, self._rev

    @property
    def worth_publishing(self) -> bool:
        """Whether anybody is concerned: the node has tasks, a LocalController, or a retained document."""
        return bool(self.tasks) or self._known or self._sent is not None

    def is_applied(self, uid: str) -> bool:
        """Whether the node acknowledged a document with this task in the content in which it is wanted now."""
        wanted = self.tasks.get(uid)
        return wanted is not None and self._confirmed.get(uid) == wanted.hash

    def is_released(self, uid: str) -> bool:
        """Whether the node acknowledged a document without this task, and nobody wants it back."""
        sent = self._sent
        return sent is not None and sent.applied and uid not in sent.rows and uid not in self.tasks

    def has_dropped(self, uid: str) -> bool:
        """Whether the document published last lacks the task."""
        return self._sent is not None and uid not in self._sent.rows

    def last_row(self, uid: str) -> TaskRow | None:
        """Return the task as the node was told it last, also by a former GlobalManager."""
        return self.tasks.get(uid) or self._told.get(uid)

    def next_at(self) -> float | None:
        """Return when `tick` has something to do, or None where only an input can bring that about."""
        if self._waiting:
            return float("-inf")
        times = [self._verify_by] if self._verify_by is not None else []
        if self._due and self.worth_publishing:
            sent = self._sent
            if sent is None:
                times.append(self._not_before)
            elif sent.at_broker:
                times.append(max(self._not_before, sent.at + (PACE_S if sent.answered else ACK_TIMEOUT_S)))
        elif self._repeat and self._sent is not None and self._sent.at_broker:
            times.append(self._sent.at + PACE_S)
        return min(times, default=None)

    def tick(self, now: float) -> Iterator[Output]:
        """Yield what is to be done now; after a `Publish`, `published` or `publish_failed` must follow."""
        waiting, self._waiting = self._waiting, []
        yield from waiting
        if self._verify_by is not None and now >= self._verify_by:
            self._verify_by, self._due = None, True
        at = self.next_at()
        if at is None or now < at:
            return
        if self._due:
            yield from self._publish(now)
        elif self._repeat and self._sent is not None:
            yield self._again(self._sent, now)

    def _publish(self, now: float) -> Iterator[Output]:
        self._rev += 1
        self._due = self._repeat = False
        rows, told = dict(self.tasks), self._told
        inserted = frozenset(uid for uid, row in rows.items() if uid not in told or told[uid].hash != row.hash)
        digest = digest_of(rows)
        document = Desired(cluster=self.cluster, epoch=self.epoch, rev=self._rev, digest=digest, tasks=rows)
        payload = document.encode()
        if len(payload) > MAX_INLINE_BYTES:
            payload = _in_parts(document, first=(*self._wanted, *sorted(inserted)))
        self._wanted = ()
        if len(payload) > DESIRED.max_bytes:
            self._report("DesiredTooLarge", f"{len(rows)} tasks make {len(payload)} bytes; {DESIRED.max_bytes} fit")
            yield from self._drain()
            return
        if self.trouble == "DesiredTooLarge":
            self._report("")
        self._sent = _Sent(rev=self._rev, digest=digest, rows=rows, payload=payload, at=now)
        self._verify_by = None
        self._told = rows
        yield from self._drain()
        yield Publish(
            epoch=self.epoch,
            rev=self._rev,
            payload=payload,
            rows=rows,
            inserted=inserted,
            deleted={uid: row for uid, row in told.items() if uid not in rows},
        )

    def _again(self, sent: _Sent, now: float) -> Publish:
        self._repeat, sent.at, sent.at_broker = False, now, False
        return Publish(
            epoch=self.epoch, rev=sent.rev, payload=sent.payload, rows=sent.rows, inserted=frozenset(), deleted={}
        )

    def _has(self, sync: Sync, sent: _Sent) -> bool:
        return (sync.cluster, sync.epoch, sync.rev, sync.digest) == (self.cluster, self.epoch, sent.rev, sent.digest)

    def _compare(self, sent: _Sent, state: NodeState, now: float) -> None:
        sent.answered = True
        sent.applied = state.digest == sent.digest
        self._confirmed_at = (self.epoch, sent.rev)
        self._confirmed = {uid: row.hash for uid, row in sent.rows.items()} if sent.applied else {}
        if sent.applied:
            self._mismatches, self._not_before = 0, 0.0
            self._report(state.reason, state.message)
            return
        if self._due:
            return  # its repair is under way
        self._mismatches += 1
        self._due = True
        # A node that cannot get it right must not be told ten times a second for ever.
        self._not_before = now + min(PACE_S * 4.0 ** (self._mismatches - 1), MAX_REPAIR_DELAY_S)
        if self._mismatches > 1:
            self._report("DigestMismatch", f"rev {sent.rev} was applied as {state.digest[:12]}, not {sent.digest[:12]}")

    def _is_ahead(self, epoch: int, rev: int) -> bool:
        return (self.epoch, self._rev) < (epoch, rev) and not is_incredible(epoch, own=self.epoch)

    def _is_incredible(self, cluster: str | None, epoch: int) -> bool:
        """Whether the node claims what nobody can have told it: that is said, and holds nothing up."""
        if cluster != self.cluster or not is_incredible(epoch, own=self.epoch):
            return False
        self._report(STATE_AHEAD, f"the node claims epoch {epoch}, which no leader can have reached: not believed")
        return True

    def _raise_above(self, epoch: int) -> None:
        if not any(isinstance(output, RaiseEpoch) for output in self._waiting):
            self._waiting.append(RaiseEpoch(above=epoch))

    def _report(self, reason: str, message: str = "") -> None:
        if reason != self.trouble:
            self.trouble = reason
            self._waiting.append(NodeReport(reason=reason, message=message))

    def _drain(self) -> Iterator[Output]:
        waiting, self._waiting = self._waiting, []
        yield from waiting


def is_incredible(epoch: int, *, own: int) -> bool:
    """Whether an epoch is further ahead of our own than a Lease that was lost explains."""
    return epoch > own + MAX_EPOCH_STEP


def _in_parts(document: Desired, *, first: tuple[str, ...]) -> bytes:
    """Encode a long document: rows by hash, with the content of those in `first` as far as there is room.

    The node keeps what it got, asks for what it still lacks, and applies the document that completes the list.
    """
    rows = {uid: replace(row, spec=None, refs={}) for uid, row in document.tasks.items()}
    room = MAX_INLINE_BYTES - len(replace(document, tasks=rows).encode())
    for index, uid in enumerate(uid for uid in first if uid in rows):
        size = len(document.tasks[uid].encode())
        if index > 0 and size > room:  # one goes in any case: else it would never arrive
            break
        rows[uid] = document.tasks[uid]
        room -= size
    return replace(document, tasks=rows).encode()


def _document(payload: bytes) -> Desired | None:
    if not payload:
        return None
    try:
        return Desired.decode(payload, max_bytes=DESIRED.max_bytes)
    except (MessageInvalid, MessageTooLarge):
        return None
