# SPDX-License-Identifier: Apache-2.0
"""What the PodRunner tells the API: Pod statuses (the last one of each Pod, when the API can be reached) and Events."""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from nereid_cloud.cluster.kinds import EVENT, ref_of
from nereid_cloud.cluster.port import Cluster, Object, Ref
from nereid_shared.backoff import Backoff
from nereid_shared.errors import Conflict, NotFound, PermanentError, TemporaryError
from nereid_shared.times import rfc3339

_RETRY_S, _RETRY_CEILING_S = 0.5, 10.0
# Kubernetes' own recorder forgets after an hour; a laptop has few Pods.
_EVENTS_REMEMBERED = 1000

logger = logging.getLogger(__name__)

EventType = Literal["Normal", "Warning"]


@dataclass(slots=True)
class _Due:
    pod: Object
    status: Mapping[str, Any] | None = None
    annotations: dict[str, str] = field(default_factory=dict)
    written: asyncio.Event = field(default_factory=asyncio.Event)


class Reporter:
    """Writes statuses and Events from one task, so that a Pod's are written in their order."""

    def __init__(self, cluster: Cluster, *, node: str) -> None:
        self._cluster, self._node = cluster, node
        self._due: dict[str, _Due] = {}
        self._events: dict[tuple[str, ...], tuple[Ref, int]] = {}
        self._new_events: asyncio.Queue[Object] = asyncio.Queue(maxsize=_EVENTS_REMEMBERED)
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._busy = False

    def status(self, pod: Object, status: Mapping[str, Any]) -> asyncio.Event:
        """Have a Pod's status written; it replaces one that waits. Returns what is set when it is written."""
        due = self._due.setdefault(pod["metadata"]["uid"], _Due(pod))
        due.pod, due.status = pod, status
        self._work.set()
        return due.written

    def annotate(self, pod: Object, annotations: Mapping[str, str]) -> None:
        """Have annotations written to a Pod."""
        due = self._due.setdefault(pod["metadata"]["uid"], _Due(pod))
        due.annotations |= annotations
        self._work.set()

    def event(self, pod: Object, type_: EventType, reason: str, message: str, *, container: str = "") -> None:
        """Have an Event written; one like an earlier one raises that one's count."""
        metadata, now = pod["metadata"], rfc3339()
        involved = {"apiVersion": "v1", "kind": "Pod", "namespace": metadata["namespace"], "name": metadata["name"],
                    "uid": metadata["uid"]}  # fmt: skip
        if container:
            involved["fieldPath"] = f"spec.containers{{{container}}}"
        event = {
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": f"{metadata['name']}.{time.time_ns():x}", "namespace": metadata["namespace"]},
            "involvedObject": involved, "type": type_, "reason": reason, "message": message, "count": 1,
            "firstTimestamp": now, "lastTimestamp": now, "source": {"component": "podrunner", "host": self._node},
            "reportingComponent": "podrunner", "reportingInstance": self._node,
        }  # fmt: skip
        logger.info("event", extra={"pod": metadata["name"], "reason": reason, "what": message})
        try:
            self._new_events.put_nowait(event)
        except asyncio.QueueFull:
            logger.warning("event dropped: the API cannot be reached", extra={"reason": reason, "what": message})
        self._work.set()

    async def run(self) -> None:
        """Write what is due, for ever; while the API cannot be reached, try again with a growing delay."""
        backoff = Backoff(first_s=_RETRY_S, longest_s=_RETRY_CEILING_S)
        while True:
            await self._work.wait()
            self._work.clear()
            self._busy = True
            try:
                await self._write_all()
                backoff.reset()
            except TemporaryError as error:
                delay_s = error.delay_s or backoff.next_s()
                logger.warning("report delayed", extra={"problem": str(error), "delay_s": delay_s})
                self._work.set()
                await asyncio.sleep(delay_s)
            finally:
                self._busy = False
                self._idle.set()

    async def settled(self) -> None:
        """Wait until nothing is due."""
        while self._due or not self._new_events.empty() or self._busy:
            self._idle.clear()
            await self._idle.wait()

    async def _write_all(self) -> None:
        for uid in list(self._due):
            due = self._due.pop(uid)
            try:
                await asyncio.to_thread(self._write, due)
            except (NotFound, Conflict):
                pass  # deleted, or replaced by another Pod of the same name: the feed says so too
            except TemporaryError:
                newer = self._due.setdefault(uid, due)
                if newer is not due:
                    newer.annotations = due.annotations | newer.annotations
                    newer.status = newer.status or due.status
                raise
            except PermanentError:
                logger.exception("status refused", extra={"pod": due.pod["metadata"]["name"]})
            due.written.set()
        while not self._new_events.empty():
            await self._write_event()

    async def _write_event(self) -> None:
        event = self._new_events.get_nowait()
        try:
            await asyncio.to_thread(self._record, event)
        except TemporaryError:
            self._new_events.put_nowait(event)
            raise
        except PermanentError as error:
            logger.warning("event refused", extra={"reason": event["reason"], "problem": str(error)})

    def _write(self, due: _Due) -> None:
        ref, metadata = ref_of(due.pod), {"uid": due.pod["metadata"]["uid"]}
        if due.annotations:
            self._cluster.patch(ref, {"metadata": metadata | {"annotations": due.annotations}})
        if due.status is not None:
            self._cluster.patch(ref, {"metadata": metadata, "status": due.status}, subresource="status")

    def _record(self, event: Object) -> None:
        key = (event["involvedObject"]["uid"], event["involvedObject"].get("fieldPath", ""), event["type"],
               event["reason"], event["message"])  # fmt: skip
        if key in self._events:
            ref, count = self._events[key]
            try:
                self._cluster.patch(ref, {"count": count + 1, "lastTimestamp": event["lastTimestamp"]})
            except NotFound:
                pass  # expired: make it anew
            else:
                self._events[key] = ref, count + 1
                return
        self._cluster.create(event)
        if len(self._events) >= _EVENTS_REMEMBERED:
            del self._events[next(iter(self._events))]
        ref = Ref(kind=EVENT, name=event["metadata"]["name"], namespace=event["metadata"]["namespace"])
        self._events[key] = ref, 1
