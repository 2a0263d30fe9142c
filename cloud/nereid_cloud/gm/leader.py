# SPDX-License-Identifier: Apache-2.0
"""Leader election by a Lease, with an epoch that is raised by compare-and-swap at every acquisition.

The epoch orders all that a leader publishes. A Lease that is deleted and made again starts from nothing, and the same
holder's restart makes no transition: hence an annotation of our own, and the highest epoch that any node has seen.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from nereid_cloud.cluster.kinds import LEASE
from nereid_cloud.cluster.port import Cluster, Object, Ref
from nereid_cloud.gm.names import EPOCH_ANNOTATION
from nereid_shared.errors import AlreadyExists, Conflict, NereidError, NotFound
from nereid_shared.health import Health
from nereid_shared.times import rfc3339_micros

logger = logging.getLogger(__name__)

MAX_EPOCH: Final = 2**48
"""A million terms a second for eight years."""
_EPOCH_DIGITS: Final = 15

RENEWALS_PER_LEASE: Final = 5
# A leader that could not renew for this part of the lease stops before another may start.
RENEW_DEADLINE: Final = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseSettings:
    """Where the Lease is and how long it lasts.

    Attributes:
        identity: this process's name in the Lease; the same identity again takes its own Lease at once, so it must
            never run twice.
        lease_s: seconds after which a silent leader is replaced.
    """

    identity: str
    namespace: str = "default"
    name: str = "nereid-gm"
    lease_s: float = 15.0

    @property
    def renew_s(self) -> float:
        """Seconds between renewals, and between tries of a follower."""
        return self.lease_s / RENEWALS_PER_LEASE


class Leader:
    """One candidate.

    Args:
        cluster: where the Lease is; its calls block and run in threads.
        settings: the Lease.
        seen_epoch: the highest epoch that a node had applied when this process led before; 0 at its first time.
        clock: monotonic seconds; the Lease's own times are never compared with ours.
        health: who stands by is ready while the cluster answers.
    """

    def __init__(
        self,
        cluster: Cluster,
        settings: LeaseSettings,
        *,
        seen_epoch: int = 0,
        clock: Callable[[], float] = time.monotonic,
        health: Health | None = None,
    ) -> None:
        self.epoch = 0
        self._cluster, self._settings, self._seen_epoch, self._clock = cluster, settings, seen_epoch, clock
        self._ref = Ref(kind=LEASE, name=settings.name, namespace=settings.namespace)
        self._lease: Object | None = None
        self._observed: tuple[object, ...] | None = None
        self._observed_at = 0.0
        self._writing = asyncio.Lock()
        self._health = health or Health()

    async def acquire(self) -> int:
        """Wait for the Lease, take it, and return the new epoch."""
        while True:
            try:
                if await asyncio.to_thread(self._try_acquire):
                    logger.info("leading", extra={"identity": self._settings.identity, "epoch": self.epoch})
                    return self.epoch
                self._health.ready()
            except NereidError as error:
                self._health.not_ready(f"the Lease cannot be read: {error}")
                logger.warning("election failed", extra={"problem": str(error)})
            await asyncio.sleep(self._settings.renew_s)

    async def hold(self, on_epoch: Callable[[int], None]) -> None:
        """Renew the Lease; returns when it is lost.

        A Lease that somebody deleted is made again at a higher epoch, which `on_epoch` is told.
        """
        renewed_at = self._clock()
        while True:
            await asyncio.sleep(self._settings.renew_s)
            started = self._clock()
            if started - renewed_at > self._settings.lease_s * RENEW_DEADLINE:
                logger.warning("lease not renewed in time", extra={"epoch": self.epoch})
                return
            former = self.epoch
            left_s = self._settings.lease_s * RENEW_DEADLINE - (started - renewed_at)
            try:
                async with asyncio.timeout(left_s), self._writing:
                    held = await asyncio.to_thread(self._try_renew)
            except TimeoutError:
                continue
            except NereidError as error:
                logger.warning("renewal failed", extra={"problem": str(error)})
                continue
            if not held:
                logger.warning("lease lost", extra={"epoch": self.epoch})
                return
            renewed_at = started
            if self.epoch != former:
                on_epoch(self.epoch)

    async def raise_epoch(self, *, above: int) -> int:
        """Take a higher epoch than `above` by compare-and-swap and return it.

        Raises:
            Conflict: the Lease is somebody else's now.
            NereidError: the cluster did not answer.
        """
        async with self._writing:
            if self.epoch <= above:
                await asyncio.to_thread(self._raise, above)
            return self.epoch

    async def release(self) -> None:
        """Give the Lease up, so that another need not wait for its end."""
        lease, self._lease = self._lease, None
        if lease is None:
            return
        try:
            async with self._writing:
                await asyncio.to_thread(self._cluster.replace, self._made(lease, holder="", epoch=self.epoch))
        except NereidError as error:
            logger.info("lease not released", extra={"problem": str(error)})

    def _try_acquire(self) -> bool:
        try:
            lease = self._cluster.get(self._ref)
        except NotFound:
            return self._create()
        if not self._is_free(lease):
            return False
        return self._replace(lease, epoch=max(_epoch_of(lease), self._seen_epoch) + 1)

    def _is_free(self, lease: Object) -> bool:
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        seen = (holder, spec.get("renewTime"), lease["metadata"].get("resourceVersion"))
        if seen != self._observed:
            self._observed, self._observed_at = seen, self._clock()
        lasts_s = max(float(spec.get("leaseDurationSeconds") or 0), self._settings.lease_s)
        return holder in ("", self._settings.identity) or self._clock() - self._observed_at > lasts_s

    def _try_renew(self) -> bool:
        lease = self._lease
        if lease is None:
            return False
        try:
            self._lease = self._cluster.replace(self._made(lease, holder=self._settings.identity, epoch=self.epoch))
        except NotFound:
            return self._create()
        except Conflict:
            return self._reread()
        return True

    def _reread(self) -> bool:
        """Somebody wrote the Lease: it is still ours if only others' fields changed."""
        try:
            lease = self._cluster.get(self._ref)
        except NotFound:
            return self._create()
        if (lease.get("spec") or {}).get("holderIdentity") != self._settings.identity:
            return False
        if _epoch_of(lease) > self.epoch:
            return False  # the same identity leads elsewhere
        if _epoch_of(lease) < self.epoch:
            return self._replace(lease, epoch=max(self.epoch, self._seen_epoch) + 1)
        self._lease = lease
        return self._try_renew()

    def _raise(self, above: int) -> None:
        lease = self._lease
        if lease is None or not self._replace(lease, epoch=max(above, self.epoch, self._seen_epoch) + 1):
            raise Conflict("the Lease is somebody else's")

    def _create(self) -> bool:
        epoch = max(self.epoch, self._seen_epoch) + 1
        blank: Object = {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": {"name": self._settings.name, "namespace": self._settings.namespace},
        }
        try:
            self._lease = self._cluster.create(self._made(blank, holder=self._settings.identity, epoch=epoch))
        except AlreadyExists:
            return False
        self.epoch = epoch
        return True

    def _replace(self, lease: Object, *, epoch: int) -> bool:
        try:
            self._lease = self._cluster.replace(self._made(lease, holder=self._settings.identity, epoch=epoch))
        except (Conflict, NotFound):
            return False
        self.epoch = epoch
        return True

    def _made(self, lease: Object, *, holder: str, epoch: int) -> Object:
        """Return the Lease as it is to be written; `lease` stays as it is."""
        metadata, spec = dict(lease["metadata"]), dict(lease.get("spec") or {})
        metadata["annotations"] = {**(metadata.get("annotations") or {}), EPOCH_ANNOTATION: str(epoch)}
        metadata.pop("managedFields", None)
        changes_hands = spec.get("holderIdentity") != holder
        now = rfc3339_micros()
        made: dict[str, Any] = {
            **spec,
            "holderIdentity": holder,
            # An integer of at least 1 for the API; our own reckoning takes the settings'.
            "leaseDurationSeconds": max(1, round(self._settings.lease_s)),
            "renewTime": now,
        }
        if changes_hands:
            made["acquireTime"] = now
            made["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + 1
        return {**lease, "metadata": metadata, "spec": made}


def _epoch_of(lease: Object) -> int:
    text = (lease["metadata"].get("annotations") or {}).get(EPOCH_ANNOTATION, "")
    # What no GlobalManager could have counted to is somebody else's; nodes take none above 2^53.
    epoch = int(text) if text.isdecimal() and len(text) <= _EPOCH_DIGITS else 0
    return epoch if epoch <= MAX_EPOCH else 0
