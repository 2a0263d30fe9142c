# SPDX-License-Identifier: Apache-2.0
"""Which changes of a service's conditions become Events, and when.

Conditions say everything at once; an Event that warns is for what a person should look at. Hence patience with what is
missing, since a Model often comes with the service that names it, and one Event for a container that ends again and
again, however often its Pod is seen between two ends.
"""

import time
from collections.abc import Callable
from typing import Final, Literal

from nereid_cloud.cluster.port import Object
from nereid_cloud.gm.conditions import ALL_RUNNING, CRASH_LOOP, SERVING, SOURCE_FINISHED, Verdict
from nereid_cloud.gm.events import Recorder
from nereid_shared.messages import MODEL_FETCHING, MODEL_SWAPPING

MISSING_GRACE_S: Final = 3.0
# A container that has run for so long since its last end is no longer taken to be crashing.
CALM_S: Final = 60.0

# What a kubelet calls a container that has more than its start in front of it, and a node that lost its broker.
_BAD_WAITING: Final = ("Err", "BackOff", "Invalid", "BrokerDown")


class Telling:
    """The Events about services' conditions."""

    def __init__(self, recorder: Recorder, clock: Callable[[], float] = time.monotonic) -> None:
        self._recorder, self._clock = recorder, clock
        self._missing: dict[str, tuple[str, float]] = {}
        self._crashed_at: dict[str, float] = {}

    async def look(self, raw: Object, verdict: Verdict, *, changed: bool) -> float | None:
        """Tell what is to be told now; returns seconds until the next look, or None.

        Args:
            raw: the service.
            verdict: what its conditions say.
            changed: whether a status or reason among them has just become another.
        """
        uid = raw["metadata"]["uid"]
        if verdict.ready_reason == CRASH_LOOP:
            is_first = uid not in self._crashed_at
            self._crashed_at[uid] = self._clock()
            self._missing.pop(uid, None)
            if changed and is_first:
                await self._tell(raw, verdict)
            return None
        if uid in self._crashed_at and (verdict.ready == "True" or _is_routine(verdict)):
            left_s = self._crashed_at[uid] + CALM_S - self._clock()
            if left_s > 0 or verdict.ready != "True":
                return max(left_s, 0.0) or None
            del self._crashed_at[uid]
            changed = True
        return await self._patiently(raw, verdict, changed=changed)

    async def _patiently(self, raw: Object, verdict: Verdict, *, changed: bool) -> float | None:
        uid, reason = raw["metadata"]["uid"], verdict.ready_reason
        if changed and reason.endswith("NotFound"):
            self._missing[uid] = reason, self._clock() + MISSING_GRACE_S
        waiting = self._missing.get(uid)
        if waiting is not None and waiting[0] == reason:
            left_s = waiting[1] - self._clock()
            if left_s > 0:
                return left_s
            changed = True
        self._missing.pop(uid, None)
        if changed:
            await self._tell(raw, verdict)
        return None

    def forget(self, uid: str) -> None:
        """Drop what is remembered of a service that is no more."""
        self._missing.pop(uid, None)
        self._crashed_at.pop(uid, None)

    async def _tell(self, raw: Object, verdict: Verdict) -> None:
        if verdict.ready == "True" and verdict.ready_reason in (ALL_RUNNING, SOURCE_FINISHED):
            reason = SOURCE_FINISHED if verdict.reason == SOURCE_FINISHED else "Running"
            await self._recorder.record(raw, "Normal", reason, verdict.message)
            return
        kind: Literal["Normal", "Warning"] = "Normal" if _is_routine(verdict) else "Warning"
        await self._recorder.record(raw, kind, verdict.ready_reason, verdict.ready_message or verdict.phase)


def _is_routine(verdict: Verdict) -> bool:
    if verdict.ready == "True":
        return verdict.ready_reason in (ALL_RUNNING, SERVING, SOURCE_FINISHED, MODEL_FETCHING, MODEL_SWAPPING)
    starts = verdict.phase == "Pending" and verdict.status == "True" and verdict.ready_reason == verdict.reason
    return starts and not verdict.is_problem and not any(word in verdict.reason for word in _BAD_WAITING)
