# SPDX-License-Identifier: Apache-2.0
"""Which desired state a node takes, and when it speaks of it: the LC's rules of the protocol, without any I/O.

Every method takes the time (monotonic seconds) and returns or notes what has to be done; sockets, disk and clocks are
the caller's. A document is taken in two steps: `document` judges it, `stored` says that it is on disk. Between the two
nothing is claimed.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from msgspec.structs import replace

from nereid_shared.digests import digest_of, task_hash
from nereid_shared.messages import PRUNE_HELD, SPECS_MISSING, Desired, TaskRow

COALESCE_S: Final = 0.2
EVENT_GRACE_S: Final = 2.0
SYNC_FIRST_S: Final = (5.0, 10.0)
SYNC_LIMIT_S: Final = 30.0
RESEND_JITTER_S: Final = 1.0
HEARTBEAT_JITTER: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What is on disk: the document that was applied last, (None, 0, 0) before the first."""

    cluster: str | None = None
    epoch: int = 0
    rev: int = 0
    tasks: Mapping[str, TaskRow] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """The digest, computed anew from the rows; "" before the first document."""
        return digest_of(self.tasks) if self.cluster is not None else ""


class Verdict(Enum):
    """What becomes of a document."""

    APPLY = "apply"
    IGNORE = "ignore"
    HOLD = "hold"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A verdict; `document` has all specs filled in where it is to be applied."""

    verdict: Verdict
    document: Desired
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What has to be published now.

    Attributes:
        full: `state` with all tasks; `heartbeat` is `state` without them.
        want_specs: of a `sync`: uids whose specs the last document left out.
    """

    full: bool = False
    heartbeat: bool = False
    sync: bool = False
    statuses: bool = False
    want_specs: tuple[str, ...] = ()


class DesiredState:
    """The state machine.

    Args:
        applied: what the disk holds.
        rng: for jitter.
        heartbeat_s: the rhythm of digest-only states.
        accepted_clusters: clusters whose documents may prune what another cluster's left.
    """

    def __init__(
        self,
        applied: Applied,
        *,
        rng: random.Random,
        heartbeat_s: float = 30.0,
        accepted_clusters: frozenset[str] = frozenset(),
    ) -> None:
        self.applied = applied
        self.held: Desired | None = None
        self.reason, self.message = "", ""
        self._rng, self._heartbeat_s = rng, heartbeat_s
        self._accepted_clusters = set(accepted_clusters)
        self._connected = False
        self._gm_epoch: int | None = None
        self._heard: tuple[str, int, int] | None = None
        self._full_at: float | None = None
        self._beat_at: float | None = None
        self._sync_at: float | None = None
        self._sync_delay_s = SYNC_FIRST_S[1]
        self._resend_at: float | None = None
        self._specs: dict[str, TaskRow] = {}
        self._want_specs: tuple[str, ...] = ()

    @property
    def pruned_if_accepted(self) -> frozenset[str]:
        """The tasks that the held document would remove."""
        return frozenset(self.applied.tasks) - frozenset(self.held.tasks) if self.held else frozenset()

    def connected(self, now: float) -> None:
        """A connection stands and its subscriptions are acknowledged: speak in full, and wait for the document."""
        self._connected, self._heard = True, None
        self._full_at = now
        self._sync_delay_s = SYNC_FIRST_S[1]
        self._sync_at = now + self._rng.uniform(*SYNC_FIRST_S)

    def disconnected(self) -> None:
        """Publish nothing until `connected`."""
        self._connected = False

    def document(self, document: Desired, now: float) -> Judgement:
        """Judge a document that arrived; retained or not makes no difference, its revision orders it."""
        if self._old(document):
            self._satisfied(document)
            self._beat_soon(now)
            return Judgement(verdict=Verdict.IGNORE, document=document)
        complete, missing = self._completed(document)
        problem = _mismatch(complete, missing)
        if problem is not None:
            reason, message = problem
            self._want_specs = missing
            if missing:
                self._sync_at = now
            self.failed(reason, message, now)
            return Judgement(verdict=Verdict.REFUSE, document=document, reason=reason, message=message)
        self._satisfied(document)
        if self._would_prune_foreign(complete):
            self.held = complete
            message = (
                f"cluster {complete.cluster} would remove {len(self.pruned_if_accepted)} tasks of cluster "
                f"{self.applied.cluster}; write its id to accept-cluster in the state folder to allow it"
            )
            self._say(PRUNE_HELD, message, now)
            return Judgement(verdict=Verdict.HOLD, document=complete, reason=PRUNE_HELD, message=message)
        return Judgement(verdict=Verdict.APPLY, document=complete)

    def stored(self, document: Desired, now: float) -> None:
        """Note that a document which was to be applied is on disk."""
        if document.cluster != self.applied.cluster:
            # An acceptance is for one change of cluster: a later one is asked for again.
            self._accepted_clusters.discard(document.cluster)
        self.applied = Applied(
            cluster=document.cluster, epoch=document.epoch, rev=document.rev, tasks=dict(document.tasks)
        )
        self.held = None
        self._specs.clear()
        self.reason, self.message = "", ""
        self.changed(now)

    def failed(self, reason: str, message: str, now: float) -> None:
        """Note a document that could not be read or stored: `state` says why, and it is asked for again."""
        if self._sync_at is None:
            self._sync_at = now + self._rng.uniform(*SYNC_FIRST_S)
        self._say(reason, message, now)

    def accept(self, cluster: str, now: float) -> Judgement | None:
        """Let a cluster prune what another one left; returns the held document's new judgement, where it was that."""
        self._accepted_clusters.add(cluster)
        if self.held is None or self.held.cluster != cluster:
            return None
        return self.document(self.held, now)

    def event(self, cluster: str, epoch: int, rev: int, now: float) -> None:
        """Note an insert or delete event: never applied, but it tells of a document that should come."""
        if cluster == self.applied.cluster and (epoch, rev) <= (self.applied.epoch, self.applied.rev):
            return
        held = self.held
        if held is not None and held.cluster == cluster and (epoch, rev) <= (held.epoch, held.rev):
            return
        known = self._heard is not None and self._heard[0] == cluster
        self._heard = max(self._heard or (cluster, 0, 0), (cluster, epoch, rev)) if known else (cluster, epoch, rev)
        due = now + EVENT_GRACE_S
        self._sync_at = due if self._sync_at is None else min(self._sync_at, due)

    def gm_alive(self, cluster: str, epoch: int, now: float, *, retained: bool) -> None:
        """Note the leader: every task's status goes out again at a new epoch, and where the leader has just come back.

        Args:
            cluster: the leader's.
            epoch: the leader's.
            now: monotonic seconds.
            retained: the broker remembered it; else it was said now, at a connection of the leader that may have
                missed what was sent before.
        """
        if self.applied.cluster not in (None, cluster) or (retained and epoch == self._gm_epoch):
            return
        self._gm_epoch = epoch
        if self._resend_at is None:
            self._resend_at = now + self._rng.uniform(0.0, RESEND_JITTER_S)

    def changed(self, now: float) -> None:
        """Note that a task's condition changed: `state` follows in full."""
        if self._full_at is None:
            self._full_at = now + COALESCE_S

    def due_at(self) -> float | None:
        """Return when `due` next has something, None while disconnected."""
        if not self._connected:
            return None
        times = (self._full_at, self._beat_at, self._sync_at, self._resend_at)
        return min((at for at in times if at is not None), default=None)

    def due(self, now: float) -> Due:
        """Return what to publish now; the caller publishes it all."""
        if not self._connected:
            return Due()
        full = self._full_at is not None and now >= self._full_at
        beat = not full and self._beat_at is not None and now >= self._beat_at
        sync = self._sync_at is not None and now >= self._sync_at
        resend = self._resend_at is not None and now >= self._resend_at
        want = self._want_specs if sync else ()
        if full:
            self._full_at = None
        if full or beat:
            spread = self._heartbeat_s * HEARTBEAT_JITTER
            self._beat_at = now + self._heartbeat_s + self._rng.uniform(-spread, spread)
        if sync:
            self._sync_delay_s = min(self._sync_delay_s * 2, SYNC_LIMIT_S)
            self._sync_at = now + self._rng.uniform(self._sync_delay_s / 2, self._sync_delay_s)
        if resend:
            self._resend_at = None
        return Due(full=full, heartbeat=beat, sync=sync, statuses=resend, want_specs=want)

    def _old(self, document: Desired) -> bool:
        applied = self.applied
        return document.cluster == applied.cluster and (document.epoch, document.rev) <= (applied.epoch, applied.rev)

    def _would_prune_foreign(self, document: Desired) -> bool:
        if document.cluster in self._accepted_clusters or self.applied.cluster in (None, document.cluster):
            return False
        return not set(self.applied.tasks) <= set(document.tasks)

    def _satisfied(self, document: Desired) -> None:
        """Stop asking, unless an event told of something newer than this document."""
        heard = self._heard
        if heard is not None and heard[0] == document.cluster and heard[1:] > (document.epoch, document.rev):
            return
        if document.cluster == self.applied.cluster:
            self.held = None
        self._heard, self._sync_at, self._want_specs = None, None, ()
        self._sync_delay_s = SYNC_FIRST_S[1]

    def _completed(self, document: Desired) -> tuple[Desired, tuple[str, ...]]:
        """Fill in the specs that a long document left out, from what is stored or came before."""
        self._specs = {uid: row for uid, row in self._specs.items() if uid in document.tasks}
        self._specs.update({uid: row for uid, row in document.tasks.items() if row.spec is not None})
        rows, missing = dict(document.tasks), []
        for uid, row in document.tasks.items():
            if row.spec is not None:
                continue
            known = next(
                (k for k in (self.applied.tasks.get(uid), self._specs.get(uid)) if k and k.hash == row.hash), None
            )
            if known is None:
                missing.append(uid)
            else:
                rows[uid] = replace(row, spec=known.spec, refs=known.refs)
        return replace(document, tasks=rows), tuple(missing)

    def _say(self, reason: str, message: str, now: float) -> None:
        if (self.reason, self.message) != (reason, message):
            self.reason, self.message = reason, message
            self.changed(now)

    def _beat_soon(self, now: float) -> None:
        soon = now + COALESCE_S
        self._beat_at = soon if self._beat_at is None else min(self._beat_at, soon)


def _mismatch(document: Desired, missing: tuple[str, ...]) -> tuple[str, str] | None:
    """Return why a document cannot be believed as (reason, message), or None."""
    if digest_of(document.tasks) != document.digest:
        return "DigestMismatch", f"epoch {document.epoch} rev {document.rev}: the digest does not fit the tasks"
    for uid, row in document.tasks.items():
        if not _is_what_its_hash_says(row):
            return (
                "HashMismatch",
                f"epoch {document.epoch} rev {document.rev}: {row.kind} {uid} is not what its hash says",
            )
    if missing:
        return SPECS_MISSING, f"epoch {document.epoch} rev {document.rev}: {len(missing)} specs were left out"
    return None


def _is_what_its_hash_says(row: TaskRow) -> bool:
    try:
        return row.spec is None or task_hash(row.spec, row.refs) == row.hash
    except ValueError:
        # NaN or a lone surrogate: canonical JSON has neither.
        return False
