# SPDX-License-Identifier: Apache-2.0
"""The serving demo's course: a model in the cloud and at the edge, asked all the while; a rollout, two broken versions.

The next version comes without a failed request. One with a wrong digest and one that fails its self-test are wanted in
turn: neither ever answers, the version before goes on, and the resource says why.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from nereid_cloud.cluster.kinds import INFERENCE_MODEL
from nereid_cloud.cluster.local import LocalCluster
from nereid_cloud.cluster.opening import DATABASE
from nereid_cloud.cluster.port import Object, Ref
from nereid_cloud.cluster.readiness import condition_of
from nereid_cloud.demo import model_store
from nereid_cloud.demo.model_store import FIRST, SECOND, WRONG_DIGEST, WRONG_MODEL, Store
from nereid_cloud.demo.story import MANAGER, watched
from nereid_cloud.demo.traffic import Tally, Traffic
from nereid_cloud.laptop import running
from nereid_cloud.laptop.system import System
from nereid_shared.errors import NereidError

MODEL: Final = "digits"
NAMESPACE: Final = "default"
CLOUD: Final = "cloud"
"""A place beside the edge nodes' names."""
STALL_S: Final = 120.0
REQUESTS: Final = 200
"""Requests that each step lasts at least, at each place."""
BROKEN: Final = {WRONG_DIGEST: "DigestMismatch", WRONG_MODEL: "SelfTestFailed"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user asked for.

    Attributes:
        nodes: edge nodes that serve the model.
        requests: that each step lasts at least, at each place.
        base_port: see `Ports.choose`.
    """

    state: Path
    nodes: int
    requests: int
    base_port: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollback:
    """A version that was wanted and did not come to serve: the one before went on."""

    place: str
    version: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One look.

    Attributes:
        models, tallies: by place.
    """

    models: dict[str, Object]
    tallies: dict[str, Tally]
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of it.

    Attributes:
        problems: what should not have been; empty in a good run.
    """

    view: View
    rollbacks: list[Rollback]
    problems: list[str]


async def play(
    options: Options,
    *,
    progress: running.Progress,
    on_up: Callable[[System], None],
    on_frame: Callable[[View], None],
) -> Outcome:
    """Run the whole course.

    Raises:
        UserError: the machine is not as needed (ports, Mosquitto, state folder).
        NereidError: what was waited for did not come.
    """
    async with running.running(options.state, nodes=options.nodes, base_port=options.base_port, progress=progress) as (
        system,
        _,
    ):
        on_up(system)
        with (
            model_store.opened(system.state / "models") as store,
            contextlib.closing(LocalCluster(system.state / DATABASE)) as cluster,
        ):
            for place in (CLOUD, *system.nodes):
                await asyncio.to_thread(cluster.apply, _manifest(place, store), manager=MANAGER)
            course = _Course(
                system, cluster, store=store, requests=options.requests, on_frame=on_frame, progress=progress
            )
            return await course.run()


class _Course:
    def __init__(
        self,
        system: System,
        cluster: LocalCluster,
        *,
        store: Store,
        requests: int,
        on_frame: Callable[[View], None],
        progress: running.Progress,
    ) -> None:
        self._system, self._cluster, self._store, self._requests = system, cluster, store, requests
        self._on_frame, self._progress = on_frame, progress
        self._places = CLOUD, *system.nodes
        self._traffic: dict[str, Traffic] = {}
        self._note = ""
        self._rollbacks: list[Rollback] = []

    async def run(self) -> Outcome:
        self._say("waiting for version 1 to serve, in the cloud and at the edge")
        view = await self._until(lambda view: _serves(view, FIRST), "version 1 to serve")
        with contextlib.ExitStack() as stack:
            for place, model in view.models.items():
                traffic = Traffic(model["status"]["url"], model=MODEL, golden=self._store.golden)
                self._traffic[place] = stack.enter_context(traffic)
            await self._more_requests("version 1 answers")
            await self._want(SECOND, "rolling out version 2")
            await self._until(lambda view: _serves(view, SECOND), "version 2 to serve")
            await self._more_requests("version 2 answers")
            for version, why in ((WRONG_DIGEST, "has another digest"), (WRONG_MODEL, "fails its self-test")):
                await self._want(version, f"rolling out version {version}, which {why}")
                await self._until(partial(_refused, version=version), f"version {version} to be refused")
                await self._more_requests(f"version {version} was refused; version 2 goes on")
                self._note_rollbacks(await self._look(), version)
            await self._want(SECOND, "back to version 2")
            await self._until(lambda view: _serves(view, SECOND), "version 2 to be Ready again")
        final = await self._look()
        return Outcome(view=final, rollbacks=self._rollbacks, problems=self._problems(final))

    async def _want(self, version: str, note: str) -> None:
        self._say(note)
        for place in self._places:
            patch = {"spec": {"targetVersion": version}}
            await asyncio.to_thread(self._cluster.patch, _ref(place), patch)

    async def _more_requests(self, note: str) -> None:
        self._say(note)
        before = {place: tally.requests for place, tally in (await self._look()).tallies.items()}

        def enough(view: View) -> bool:
            return all(view.tallies[place].requests >= before[place] + self._requests for place in self._places)

        await self._until(enough, f"{self._requests} more requests")

    async def _until(self, reached: Callable[[View], bool], what: str) -> View:
        view, is_reached = await watched(
            self._look, reached, moves=lambda view: (_statuses(view), _counts(view)), stall_s=STALL_S
        )
        if not is_reached:
            raise NereidError(
                f"waited {STALL_S:.0f} s in vain for {what}; the models say {_statuses(view)}; "
                f"the logs are in {self._system.logs}"
            )
        return view

    async def _look(self) -> View:
        models = {place: await asyncio.to_thread(self._cluster.get, _ref(place)) for place in self._places}
        tallies = {place: traffic.tally() for place, traffic in self._traffic.items()}
        view = View(models=models, tallies=tallies, note=self._note)
        self._on_frame(view)
        return view

    def _say(self, note: str) -> None:
        self._note = note
        self._progress(note)

    def _note_rollbacks(self, view: View, version: str) -> None:
        for place, model in view.models.items():
            failure = model["status"]["lastFailure"]
            self._rollbacks.append(Rollback(place=place, version=version, reason=failure["reason"]))

    def _problems(self, view: View) -> list[str]:
        found = []
        for place, tally in view.tallies.items():
            if tally.failed:
                found.append(f"{place}: {tally.failed} requests failed, such as {tally.failures[0]}")
            if tally.wrong:
                found.append(f"{place}: {tally.wrong} answers are not those of the version that they name")
            if foreign := sorted(tally.versions.keys() - {FIRST, SECOND}):
                found.append(f"{place}: version {foreign[0]} answered")
        found += [
            f"{one.place}: version {one.version} was refused for {one.reason}"
            for one in self._rollbacks
            if one.reason != BROKEN[one.version]
        ]
        return found


def _manifest(place: str, store: Store) -> Object:
    where = {"deployToLayer": "cloud"} if place == CLOUD else {"deployToLayer": "edge", "nodeName": place}
    spec = {
        "modelName": MODEL, "frameworkType": "tflite", "manifest": store.manifest, "targetVersion": FIRST,
        "servingPort": _free_port(), **where,
    }  # fmt: skip
    metadata = {"name": _ref(place).name, "namespace": NAMESPACE}
    return {"apiVersion": INFERENCE_MODEL.api_version, "kind": INFERENCE_MODEL.kind, "metadata": metadata, "spec": spec}


def _ref(place: str) -> Ref:
    return Ref(kind=INFERENCE_MODEL, name=f"{MODEL}-{place}", namespace=NAMESPACE)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _serves(view: View, version: str) -> bool:
    return all(
        status.get("servingVersion") == version and condition_of(view.models[place], "Ready").get("status") == "True"
        for place, status in _each_status(view)
    )


def _refused(view: View, version: str) -> bool:
    return all(
        status.get("servingVersion") == SECOND and (status.get("lastFailure") or {}).get("version") == version
        for _, status in _each_status(view)
    )


def _each_status(view: View) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the statuses by place; one of an earlier generation says nothing yet."""
    return [
        (place, status if status.get("observedGeneration") == model["metadata"].get("generation") else {})
        for place, model in view.models.items()
        for status in [model.get("status") or {}]
    ]


def _statuses(view: View) -> list[Any]:
    return [
        [place, status.get("servingVersion"), condition_of(view.models[place], "Ready").get("message")]
        for place, status in _each_status(view)
    ]


def _counts(view: View) -> list[int]:
    return [tally.versions.total() for tally in view.tallies.values()]
