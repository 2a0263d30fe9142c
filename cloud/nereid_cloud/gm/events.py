# SPDX-License-Identifier: Apache-2.0
"""Kubernetes Events about our resources: one object per thing said, which counts how often it was said.

What an object says too often is kept from the API, as Kubernetes' own recorder does it: an Event is for people, and a
store has other things to keep.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from nereid_cloud.cluster.kinds import EVENT
from nereid_cloud.cluster.port import Cluster, Object, Ref
from nereid_cloud.gm.names import MANAGER
from nereid_shared.errors import AlreadyExists, NereidError, NotFound, TemporaryError
from nereid_shared.times import rfc3339

logger = logging.getLogger(__name__)

MAX_MESSAGE: Final = 1024
# Of one object: so many at once, then one more each five minutes; client-go's own figures.
BURST: Final = 25
REFILL_S: Final = 300.0
# An API server that is busy for a moment is asked again; one that is away is not waited for.
RETRIES_S: Final = (0.2, 1.0)
MAX_OBJECTS: Final = 10_000


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float
    dropped: int = 0


class Recorder:
    """Writes Events; one that cannot be written is logged, and nothing waits for it but its caller.

    Args:
        cluster: where they are written.
        serves: whether we may write Events of a namespace; elsewhere they are only logged.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        serves: Callable[[str], bool] = lambda _namespace: True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster, self._serves, self._clock = cluster, serves, clock
        self._buckets: dict[str, _Bucket] = {}

    async def record(self, obj: Object, kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Say something about an object, unless it has said too much lately."""
        name = obj["metadata"]["name"]
        logger.info("event", extra={"object": name, "reason": reason, "message_": message})
        namespace = obj["metadata"].get("namespace")
        if namespace and not self._serves(namespace):
            return
        bucket = self._bucket(obj)
        if bucket.tokens < 1:
            bucket.dropped += 1
            logger.warning("event kept back", extra={"object": name, "reason": reason, "kept_back": bucket.dropped})
            return
        bucket.tokens -= 1
        try:
            await self._written(obj, kind, reason, message[:MAX_MESSAGE])
        except NereidError as error:
            logger.warning("event not written", extra={"reason": reason, "problem": str(error)})

    def _bucket(self, obj: Object) -> _Bucket:
        """Return what the object may still say, filled up to now; the object that spoke last stands last."""
        now, uid = self._clock(), str(obj["metadata"].get("uid"))
        bucket = self._buckets.pop(uid, None) or _Bucket(BURST, now)
        bucket.tokens = min(BURST, bucket.tokens + (now - bucket.filled_at) / REFILL_S)
        bucket.filled_at = now
        self._buckets[uid] = bucket
        if len(self._buckets) > MAX_OBJECTS:
            del self._buckets[next(iter(self._buckets))]
        return bucket

    async def _written(self, obj: Object, kind: str, reason: str, message: str) -> None:
        for pause_s in RETRIES_S:
            try:
                await asyncio.to_thread(self._write, obj, kind, reason, message)
            except TemporaryError as error:
                logger.info("event delayed", extra={"reason": reason, "problem": str(error)})
                await asyncio.sleep(pause_s)
            else:
                return
        await asyncio.to_thread(self._write, obj, kind, reason, message)

    def _write(self, obj: Object, kind: str, reason: str, message: str) -> None:
        metadata = obj["metadata"]
        # Events of cluster-scoped objects live in `default`, as Kubernetes' own do.
        namespace = metadata.get("namespace") or "default"
        said_hash = hashlib.sha256(f"{metadata.get('uid')}/{kind}/{reason}/{message}".encode()).hexdigest()[:12]
        ref = Ref(kind=EVENT, name=f"{metadata['name'][:200]}.{said_hash}", namespace=namespace)
        now = rfc3339()
        try:
            former = self._cluster.get(ref)
        except NotFound:
            event = _event(obj, ref, {"type": kind, "reason": reason, "message": message}, now)
            try:
                self._cluster.create(event)
            except AlreadyExists:
                logger.debug("event came from elsewhere", extra={"event": ref.name})
            return
        self._cluster.patch(ref, {"count": int(former.get("count") or 1) + 1, "lastTimestamp": now})


def _event(obj: Object, ref: Ref, said: dict[str, str], now: str) -> dict[str, Any]:
    metadata = obj["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": ref.name, "namespace": ref.namespace},
        "involvedObject": {
            "apiVersion": obj["apiVersion"],
            "kind": obj["kind"],
            "name": metadata["name"],
            "namespace": metadata.get("namespace", ""),
            "uid": metadata.get("uid", ""),
            "resourceVersion": metadata.get("resourceVersion", ""),
        },
        **said,
        "count": 1,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "source": {"component": MANAGER},
    }
