# SPDX-License-Identifier: Apache-2.0
"""The demo's course: everything up, samples applied, the link cut and healed halfway, the ledger, everything down."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from nereid_cloud.cluster.kinds import JOINT_INFERENCE_SERVICE
from nereid_cloud.cluster.local import LocalCluster
from nereid_cloud.cluster.opening import DATABASE
from nereid_cloud.cluster.port import Object, Ref
from nereid_cloud.cluster.readiness import is_ready
from nereid_cloud.demo import report, stage
from nereid_cloud.demo.evaluation import Accuracy, ask_big_model, score
from nereid_cloud.demo.view import Lookout, View
from nereid_cloud.laptop import links, running
from nereid_cloud.laptop.system import System
from nereid_shared.errors import NereidError

T = TypeVar("T")

CUT_S: Final = 5.0
POLL_S: Final = 0.25
STALL_S: Final = 90.0
"""Without any new count for so long the demo gives up and says what it was waiting for."""

READY_S: Final = 120.0
"""A busy machine starts a dozen processes in a minute, and nothing of the service moves meanwhile."""
MANAGER: Final = "nereid-demo"

SETTLE_S: Final = 30.0
"""Without any new count for so long after the last sample, what has not come is reported as missing: a worker that left
for good would keep its answers waiting for as long as the outbox does."""

OnFrame = Callable[[View], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user asked for.

    Attributes:
        samples: how many pictures; None for all.
        cut: whether the first node's link is cut halfway.
        base_port: see `Ports.choose`.
    """

    state: Path
    nodes: int
    samples: int | None
    seed: int
    cut: bool
    base_port: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of it.

    Attributes:
        problems: identities and equalities that do not hold; empty in a good run.
    """

    ledger: dict[str, Any]
    accuracy: Accuracy
    service: Object
    problems: list[str]


async def play(
    options: Options, *, progress: running.Progress, on_up: Callable[[System], None], on_frame: OnFrame
) -> Outcome:
    """Run the whole course.

    Raises:
        UserError: the machine is not as needed (ports, Mosquitto, state folder).
        NereidError: the service did not get ready, or counts stopped growing.
    """
    async with running.running(options.state, nodes=options.nodes, base_port=options.base_port, progress=progress) as (
        system,
        _,
    ):
        on_up(system)
        scene = await asyncio.to_thread(stage.set_up, system, samples=options.samples, seed=options.seed)
        cluster = LocalCluster(system.state / DATABASE)
        try:
            for manifest in scene.manifests():
                manifest["metadata"].setdefault("namespace", stage.NAMESPACE)
                await asyncio.to_thread(cluster.apply, manifest, manager=MANAGER)
            course = _Course(system, scene, cluster, on_frame, progress)
            return await course.run(cut=options.cut)
        finally:
            cluster.close()


class _Course:
    def __init__(
        self, system: System, scene: stage.Stage, cluster: LocalCluster, on_frame: OnFrame, progress: running.Progress
    ) -> None:
        self._system, self._scene, self._cluster = system, scene, cluster
        self._on_frame, self._progress = on_frame, progress
        self._note = ""
        ref = Ref(kind=JOINT_INFERENCE_SERVICE, name=stage.SERVICE, namespace=stage.NAMESPACE)
        self._lookout = Lookout(system, cluster, ref, nodes=system.nodes)

    async def run(self, *, cut: bool) -> Outcome:
        self._say("waiting for the service to get ready")
        await self._until(self._is_ready, "the service to get ready", stall_s=READY_S)
        self._say("streaming")
        half = self._scene.samples // 2
        if cut:
            await self._until(lambda view: _seen(view) >= half, "half of the samples")
            await self._cut_and_heal(self._system.nodes[0])
        await self._until(lambda view: _seen(view) >= self._scene.samples, "all samples")
        self._say("waiting for the last answers")
        final, is_settled = await watched(self._look, self._is_settled, moves=_settling, stall_s=SETTLE_S)
        if not is_settled:
            self._say(f"nothing moved for {SETTLE_S:.0f} s; what is missing is reported")
        self._progress("asking the big model about every sample, for comparison")
        pictures = list(self._scene.pictures())
        alone = await asyncio.to_thread(ask_big_model, self._scene.big_model, pictures)
        return self._outcome(final, alone)

    async def _cut_and_heal(self, node: str) -> None:
        await self._set_link(node, "cut")
        self._say(f"the link of {node} is cut for {CUT_S:.0f} s")
        end = time.monotonic() + CUT_S
        while (left := end - time.monotonic()) > 0:
            await self._look()
            await asyncio.sleep(min(POLL_S, left))
        await self._set_link(node, "up")
        self._say(f"the link of {node} is healed")

    async def _set_link(self, node: str, mode: links.Mode) -> None:
        command = {"do": "set", "node": node, "quality": {"mode": mode}}
        await asyncio.to_thread(links.ask, self._system.control, command)

    def _say(self, note: str) -> None:
        self._note = note
        self._progress(note)

    async def _until(self, reached: Callable[[View], bool], what: str, *, stall_s: float = STALL_S) -> View:
        """Look until `reached`; give up when nothing moves any more."""
        view, is_reached = await watched(
            self._look, reached, moves=lambda view: (report.metrics_of(view.service), _seen(view)), stall_s=stall_s
        )
        if not is_reached:
            conditions = view.service.get("status", {}).get("conditions", [])
            raise NereidError(
                f"waited {stall_s:.0f} s in vain for {what}; the service says {conditions}; "
                f"the logs are in {self._system.logs}"
            )
        return view

    async def _look(self) -> View:
        view = await asyncio.to_thread(self._lookout.view, self._note)
        self._on_frame(view)
        return view

    def _is_ready(self, view: View) -> bool:
        return _seen(view) > 0 or is_ready(view.service)

    def _is_settled(self, view: View) -> bool:
        ledger = report.ledger_of(view.service)
        return (
            ledger["seen"] >= self._scene.samples and not report.unsettled(ledger) and not self._unequal(view, ledger)
        )

    def _unequal(self, view: View, ledger: dict[str, Any]) -> list[str]:
        """Compare the status with what the workers logged, which are two accounts of the same samples."""
        said = [one for answers in view.per_node.values() for one in answers.values()]
        logged = {
            "seen": len(said),
            "hard": sum(one.is_hard for one in said),
            "failed": sum(one.edge is None for one in said),
        }
        shown = {"seen": ledger["seen"], "hard": ledger["hard"], "failed": sum(ledger["failed"].values())}
        return [
            f"{name}: the status says {shown[name]}, the log of answers {count}"
            for name, count in logged.items()
            if shown[name] != count
        ]

    def _outcome(self, view: View, alone: dict[Path, str]) -> Outcome:
        ledger = report.ledger_of(view.service)
        truth = stage.labels()
        folder = self._scene.node_folder
        accuracy = score(
            {folder(node) / key: one for node, answers in view.per_node.items() for key, one in answers.items()},
            alone,
            {folder(node) / path: truth[path] for node, part in self._scene.parts.items() for path in part},
        )
        problems = [
            *report.broken_identities(ledger, samples=self._scene.samples),
            *report.unsettled(ledger),
            *self._unequal(view, ledger),
        ]
        return Outcome(ledger=ledger, accuracy=accuracy, service=view.service, problems=problems)


async def watched(
    look: Callable[[], Awaitable[T]],
    reached: Callable[[T], bool],
    *,
    moves: Callable[[T], object],
    stall_s: float,
    every_s: float = POLL_S,
) -> tuple[T, bool]:
    """Look until `reached`, or until nothing of what `moves` names has changed for `stall_s`.

    Returns:
        the last look, and whether it was reached.
    """
    moved_at, before = time.monotonic(), None
    while not reached(view := await look()):
        now = moves(view)
        if now != before:
            moved_at, before = time.monotonic(), now
        if time.monotonic() - moved_at > stall_s:
            return view, False
        await asyncio.sleep(every_s)
    return view, True


def _settling(view: View) -> list[Any]:
    # Not all counts: what is sent again and again settles nothing.
    ledger = report.ledger_of(view.service)
    return [ledger[name] for name in ("seen", "hard", "answered", "dropped", "late", "corrected", "undelivered")]


def _seen(view: View) -> int:
    return sum(len(answers) for answers in view.per_node.values())


__all__ = ["Options", "Outcome", "View", "play"]
