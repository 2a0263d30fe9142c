# SPDX-License-Identifier: Apache-2.0
"""Which nodes hold, or may still hold, a task: on record before they are told, and what a deletion waits for.

Protocol, "Delete": the finalizer goes when every node that ever held the task reports state without it, or is offline,
not ready or gone, or after a time-out; the retained document finishes the work when such a node returns.
"""

import asyncio
import time
from collections.abc import Callable, Iterable

from nereid_cloud.cluster.kinds import ref_of
from nereid_cloud.cluster.port import Cluster, Object
from nereid_cloud.cluster.readiness import is_ready
from nereid_cloud.gm.downstream import Downstream
from nereid_cloud.gm.events import Recorder
from nereid_cloud.gm.informer import Informer
from nereid_cloud.gm.names import FINALIZER
from nereid_cloud.gm.observed import Observed


class Holding:
    """The holders of one kind's tasks.

    Args:
        cluster: where the objects are.
        objects: the cache of the kind.
        nodes: the cache of Nodes.
        timeout_s: how long a deletion waits for a node that is there.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        objects: Informer,
        nodes: Informer,
        observed: Observed,
        downstream: Downstream,
        recorder: Recorder,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster, self._objects, self._nodes = cluster, objects, nodes
        self._observed, self._downstream, self._recorder = observed, downstream, recorder
        self._timeout_s, self._clock = timeout_s, clock
        self._deleting_since: dict[str, float] = {}
        self._awaited: dict[str, frozenset[str]] = {}

    async def claim(self, obj: Object, nodes: Iterable[str]) -> Object:
        """Put the finalizer and the nodes on record, before any node is told; returns the object as it then is.

        Raises:
            Conflict, Unavailable: try again.
        """
        if FINALIZER not in (obj["metadata"].get("finalizers") or ()):
            finalizers = [*(obj["metadata"].get("finalizers") or ()), FINALIZER]
            obj = await self._patched(obj, {"metadata": {"finalizers": finalizers}})
        held = held_by(obj)
        new = frozenset(nodes) - held
        if new:
            obj = await self._patched(obj, {"status": {"heldBy": sorted(held | new)}}, status=True)
        return obj

    def still_held_by(self, obj: Object, *, wanted: Iterable[str]) -> frozenset[str]:
        """Return the nodes on record that are wanted, or have not yet let go."""
        uid, held = obj["metadata"]["uid"], held_by(obj)
        gone = held.difference(wanted)
        waiting = frozenset(node for node in gone if not self._let_go(node, uid))
        self._await(uid, waiting)
        return held - gone | waiting

    def awaiting(self, node: str) -> list[str]:
        """Return the tasks that the node shall no longer have, and may still hold."""
        return [uid for uid, nodes in self._awaited.items() if node in nodes]

    def forget(self, uid: str) -> None:
        """Drop what is remembered of an object that is no more."""
        self._await(uid, frozenset())

    def _await(self, uid: str, nodes: frozenset[str]) -> None:
        if nodes:
            self._awaited[uid] = nodes
        else:
            self._awaited.pop(uid, None)

    async def delete(self, obj: Object) -> float | None:
        """Take the task from all nodes; returns None when the object may go, else seconds until the next look."""
        uid = obj["metadata"]["uid"]
        self._downstream.assign(uid, {})
        finalizers = obj["metadata"].get("finalizers") or []
        if FINALIZER not in finalizers:
            self._deleting_since.pop(uid, None)
            return None
        waiting = sorted(n for n in held_by(obj) if not self._let_go_or_away(n, uid))
        self._await(uid, frozenset(waiting))
        since = self._deleting_since.setdefault(uid, self._clock())
        left_s = since + self._timeout_s - self._clock()
        if waiting and left_s > 0:
            return min(1.0, left_s)
        if waiting:
            message = f"not confirmed by {', '.join(waiting[:20])} within {self._timeout_s:g} s; it goes on by itself"
            await self._recorder.record(obj, "Warning", "DeleteUndelivered", message)
        await self._patched(obj, {"metadata": {"finalizers": [f for f in finalizers if f != FINALIZER]}})
        self._deleting_since.pop(uid, None)
        self.forget(uid)
        self._observed.forget_task(uid)
        return None

    def _let_go(self, node: str, uid: str) -> bool:
        return self._nodes.get("", node) is None or self._downstream.is_released(node, uid)

    def _let_go_or_away(self, node: str, uid: str) -> bool:
        if self._let_go(node, uid) or not is_ready(self._nodes.get("", node)):
            return True
        return not self._observed.is_observable(node)

    async def _patched(self, obj: Object, patch: Object, *, status: bool = False) -> Object:
        version = {"resourceVersion": obj["metadata"]["resourceVersion"]}
        patch = {**patch, "metadata": {**patch.get("metadata", {}), **version}}
        result = await asyncio.to_thread(
            self._cluster.patch, ref_of(obj), patch, subresource="status" if status else ""
        )
        self._objects.written(obj, result)
        return result


def held_by(obj: Object) -> frozenset[str]:
    """Return the nodes on an object's record."""
    return frozenset((obj.get("status") or {}).get("heldBy") or ())
