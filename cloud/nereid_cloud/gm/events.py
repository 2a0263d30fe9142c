# SPDX-License-Identifier: Apache-2.0
"""Kubernetes Events about our resources: one object per thing said, which counts how often it was said."""

import asyncio
import hashlib
import logging
from datetime import UTC, datetime
from typing import Any, Final, Literal

from nereid_cloud.cluster.kinds import EVENT
from nereid_cloud.cluster.port import Cluster, Object, Ref
from nereid_cloud.gm.names import MANAGER
from nereid_shared.errors import AlreadyExists, NereidError, NotFound

logger = logging.getLogger(__name__)

MAX_MESSAGE: Final = 1024


class Recorder:
    """Writes Events; one that cannot be written is logged, and nothing waits for it but its caller."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def record(self, obj: Object, kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Say something about an object."""
        logger.info("event", extra={"object": obj["metadata"]["name"], "reason": reason, "message_": message})
        try:
            await asyncio.to_thread(self._write, obj, kind, reason, message[:MAX_MESSAGE])
        except NereidError as error:
            logger.warning("event not written", extra={"reason": reason, "error": str(error)})

    def _write(self, obj: Object, kind: str, reason: str, message: str) -> None:
        metadata = obj["metadata"]
        # Events of cluster-scoped objects live in `default`, as Kubernetes' own do.
        namespace = metadata.get("namespace") or "default"
        said_hash = hashlib.sha256(f"{metadata.get('uid')}/{kind}/{reason}/{message}".encode()).hexdigest()[:12]
        ref = Ref(kind=EVENT, name=f"{metadata['name'][:200]}.{said_hash}", namespace=namespace)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
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
