# SPDX-License-Identifier: Apache-2.0
"""How long a fleet takes to agree with the cluster, and what that costs the GlobalManager.

1,000 and 10,000 simulated nodes (`bench.fleet`) on one broker, the real GlobalManager, a LocalCluster and a real API
server. A node has converged when the broker has acknowledged the node's own acknowledgement. All shares two cores with
the load: times are upper bounds, CPU times per process are what to reckon with.
"""

import asyncio
import math
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.figures import Figure, as_table
from bench.fleet import Fleet, Node
from bench.node import cpu_s
from bench.scale_world import (
    CLOUD,
    JIS,
    SPEAKS,
    Kubelets,
    World,
    api_world,
    lacks_api_server,
    local_world,
    model,
    service,
    wait_for,
)
from bench.wire import Wire, open_wire
from nereid_shared.messages import NodeState, Revision

QUICK_NODES: Final = 200
# 10,000 Pods take a real API server on two cores four minutes, most of them its own: `python -m bench.scale api 10000`.
SIZES: Final = {"local": (1000, 10_000), "api": (1000,)}
# One round of heartbeats.
IDLE_S: Final = 33.0
QUICK_IDLE_S: Final = 3.0
TIMEOUT_S: Final = 90.0
TIMEOUT_S_PER_NODE: Final = 0.03
LOOK_S: Final = 0.25
_IN_FLIGHT: Final = 20

WORLDS: Final[Mapping[str, Callable[[Path], AbstractContextManager[World]]]] = {"local": local_world, "api": api_world}


def run(*, quick: bool) -> list[Figure]:
    """Return the figures of each size on each kind of cluster."""
    figures = []
    for kind in ("local",) if lacks_api_server() else WORLDS:
        for nodes in (QUICK_NODES,) if quick else SIZES[kind]:
            figures += measure(kind, nodes=nodes, idle_s=QUICK_IDLE_S if quick else IDLE_S)
    return figures


def measure(kind: str, *, nodes: int, idle_s: float) -> list[Figure]:
    """Return the figures of one size on one kind of cluster."""
    with tempfile.TemporaryDirectory() as made, WORLDS[kind](Path(made)) as world, Kubelets(world) as kubelets:
        return asyncio.run(_Measurement(f"{kind}, {nodes}", world, kubelets, nodes=nodes).run(idle_s))


@dataclass(slots=True)
class Phase:
    """What a phase cost.

    Attributes:
        cpu_s: CPU time by process; `peak` the GlobalManager's highest share of a core in any quarter of a second.
        times: seconds until each node had converged, sorted.
    """

    seconds: float = 0.0
    told_s: float = 0.0
    cpu_s: dict[str, float] = field(default_factory=dict)
    peak: float = 0.0
    writes: int = 0
    messages: int = 0
    times: list[float] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        """Return the time within which that share of the nodes had converged."""
        return self.times[max(0, math.ceil(share * len(self.times)) - 1)]


class _Expectation:
    """Which nodes have acknowledged what is expected, and when."""

    def __init__(self, fleet: Fleet, holds: Callable[[Node, NodeState], bool]) -> None:
        self.began = time.perf_counter()
        self.times: dict[str, float] = {}
        self._fleet, self._holds, self._all = fleet, holds, asyncio.Event()
        fleet.on_state = self._take

    def _take(self, node: Node, state: NodeState) -> None:
        if node.name not in self.times and self._holds(node, state):
            self.times[node.name] = time.perf_counter() - self.began
            if len(self.times) == len(self._fleet.nodes):
                self._all.set()

    async def met(self) -> list[float]:
        """Wait for all nodes; returns their times, sorted.

        Raises:
            RuntimeError: some are missing after a time.
        """
        try:
            async with asyncio.timeout(_patience_s(self._fleet)):
                await self._all.wait()
        except TimeoutError:
            raise RuntimeError(f"{len(self.times)} of {len(self._fleet.nodes)} nodes acknowledged in time") from None
        return sorted(self.times.values())


class _Measurement:
    def __init__(self, name: str, world: World, kubelets: Kubelets, *, nodes: int) -> None:
        self._name, self._world, self._kubelets = name, world, kubelets
        self._names = [f"n{number:05}" for number in range(nodes)]
        self._fleet = Fleet(self._names, port=world.broker.port)
        self._figures: list[Figure] = []

    async def run(self, idle_s: float) -> list[Figure]:
        world, fleet, count = self._world, self._fleet, len(self._names)
        await asyncio.to_thread(self._prepare)
        alone = world.gm.rss_mib()
        joined = await self._phase(self._join)
        self._add("connected, all nodes", joined.seconds, "s", f"GM CPU {joined.cpu_s['gm']:.2f} s")
        present = await self._settled_rss()
        applied = await self._phase(self._apply)
        self._convergence("a new service", applied)
        holding = await self._settled_rss()
        self._bare = await self._bare_fan_out()
        changed = await self._phase(self._change)
        self._convergence("a changed deadline", changed)
        ratio = changed.percentile(0.99) / self._bare
        self._add(
            "a changed deadline: p99 / bare fan-out", ratio, "x", f"one message to each node in {self._bare:.2f} s"
        )
        idle = await self._phase(lambda: self._idle(idle_s))
        self._load("idle", idle)
        storm = await self._phase(self._cut)
        self._storm("all connections cut", storm)
        lost = await self._phase(self._lose_broker)
        self._storm("broker killed, its store lost", lost)
        deleted = await self._phase(self._delete)
        self._convergence("deletion", deleted)
        rss = world.gm.rss_mib()
        self._add("GM: RSS at the end", rss, "MiB", f"{alone:.0f} without nodes")
        self._add("GM: memory per node", (present - alone) / count * 1024, "KiB", "a Node and its LocalController")
        self._add("GM: memory per task on a node", (holding - present) / count * 1024, "KiB", "row, Pod and status")
        self._add("broker: RSS at the end", world.broker.process.rss_mib(), "MiB")
        await fleet.close()
        return self._figures

    def _prepare(self) -> None:
        self._world.make_nodes([CLOUD])
        self._world.create(model("little"))
        self._world.create(model("big"))
        wait_for(lambda: SPEAKS in self._world.gm.log(), timeout_s=TIMEOUT_S, why="the GlobalManager")

    async def _join(self) -> Phase:
        began = time.perf_counter()
        await asyncio.to_thread(self._world.make_nodes, self._names)
        self._progress(f"{len(self._names)} Nodes made in {time.perf_counter() - began:.1f} s")
        expected = _Expectation(self._fleet, lambda _node, _state: True)
        self._fleet.start()
        times = await expected.met()
        return Phase(times=times, seconds=times[-1])

    async def _apply(self) -> Phase:
        expected = _Expectation(self._fleet, lambda _node, state: bool(state.tasks))
        await asyncio.to_thread(self._world.create, service())
        times = await expected.met()
        await self._told(lambda found: found.get("nodes", {}).get("ready") == len(self._names))
        return Phase(times=times, told_s=time.perf_counter() - expected.began)

    async def _change(self) -> Phase:
        generation = (self._world.service() or {})["metadata"]["generation"] + 1
        expected = _Expectation(self._fleet, lambda _node, state: _generation(state) == generation)
        patch = {"spec": {"edgeWorker": {"deadline": "2s"}}}
        await asyncio.to_thread(self._world.cluster.patch, JIS, patch)
        self._world.written += 1
        times = await expected.met()
        await self._told(
            lambda found: (
                found.get("observedGeneration") == generation
                and found.get("nodes", {}).get("ready") == len(self._names)
            )
        )
        return Phase(times=times, told_s=time.perf_counter() - expected.began)

    async def _idle(self, seconds: float) -> Phase:
        await asyncio.sleep(seconds)
        return Phase()

    async def _cut(self) -> Phase:
        connections = {node.name: node.connections for node in self._fleet.nodes}
        expected = _Expectation(
            self._fleet,
            lambda node, state: (
                node.connections > connections[node.name] and state.digest == node.machine.applied.digest
            ),
        )
        self._fleet.drop()
        times = await expected.met()
        await self._quiet()
        return Phase(times=times, told_s=time.perf_counter() - expected.began)

    async def _lose_broker(self) -> Phase:
        revisions = {node.name: _place(node) for node in self._fleet.nodes}
        expected = _Expectation(self._fleet, lambda node, _state: _place(node) > revisions[node.name])
        await asyncio.to_thread(self._world.broker.restart_empty)
        times = await expected.met()
        await self._quiet()
        return Phase(times=times, told_s=time.perf_counter() - expected.began)

    async def _delete(self) -> Phase:
        expected = _Expectation(self._fleet, lambda _node, state: state.tasks == {})
        await asyncio.to_thread(self._world.cluster.delete, JIS)
        self._world.written += 1
        times = await expected.met()
        await self._until(lambda: self._world.service() is None, "the service to be gone")
        return Phase(times=times, told_s=time.perf_counter() - expected.began)

    async def _told(self, holds: Callable[[Mapping[str, Any]], bool]) -> None:
        """Wait until the service's status says it."""
        await self._until(lambda: holds((self._world.service() or {}).get("status") or {}), "the status to say it")

    async def _until(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _patience_s(self._fleet)
        while not await asyncio.to_thread(holds):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self._name}: waited too long for {what}")
            await asyncio.sleep(LOOK_S)

    async def _quiet(self) -> None:
        """Wait until the GlobalManager has worked off what came, and has little to do."""
        deadline, calm = time.monotonic() + _patience_s(self._fleet), 0
        while calm < 4 and time.monotonic() < deadline:
            before = self._world.gm.cpu_s()
            await asyncio.sleep(LOOK_S)
            calm = calm + 1 if self._world.gm.cpu_s() - before < 0.3 * LOOK_S else 0

    async def _settled_rss(self) -> float:
        await self._quiet()
        return self._world.gm.rss_mib()

    async def _bare_fan_out(self) -> float:
        """Return the seconds in which one client reaches all nodes with one small message each, 20 in flight."""
        topic = "neptune/nodes/{}/downstream/default/jointinferenceservices/bench/insert"
        body = Revision(cluster="bench", epoch=0, rev=0).encode() + b" " * 1500
        sender = _Sender()
        sender.wire = await open_wire(
            sender, port=self._world.broker.port, client_id="bench-sender", will=("bench/will", b""),
            subscriptions=["bench/nothing"], keepalive_s=60,
        )  # fmt: skip
        await sender.ready.wait()
        before, began = self._fleet.received, time.perf_counter()
        sender.send([topic.format(name) for name in self._names], body)
        while self._fleet.received - before < len(self._names):  # noqa: ASYNC110 - a count that others raise
            await asyncio.sleep(0.005)
        seconds = time.perf_counter() - began
        sender.wire.abort()
        return seconds

    async def _phase(self, work: Callable[[], Awaitable[Phase]]) -> Phase:
        """Run a phase and add what it cost."""
        world = self._world
        pids = {"gm": world.gm, "broker": world.broker.process}
        writes = await asyncio.to_thread(world.revision) - world.written
        messages = self._fleet.published + self._fleet.received
        before = {name: process.cpu_s() for name, process in pids.items()}
        servers = {name: cpu_s(pid) for name, pid in world.server.items()}
        load, began = time.process_time(), time.perf_counter()
        watching = asyncio.create_task(self._peak())
        phase = await work()
        watching.cancel()
        elapsed = time.perf_counter() - began
        phase.seconds = phase.seconds or elapsed
        phase.peak = max(self._shares, default=0.0)
        phase.cpu_s = {name: max(0.0, process.cpu_s() - before[name]) for name, process in pids.items()}
        if world.broker.process is not pids["broker"]:
            phase.cpu_s["broker"] = world.broker.process.cpu_s()
        phase.cpu_s |= {name: cpu_s(pid) - servers[name] for name, pid in world.server.items()}
        phase.cpu_s["load"] = time.process_time() - load
        phase.writes = await asyncio.to_thread(world.revision) - world.written - writes
        phase.messages = self._fleet.published + self._fleet.received - messages
        self._progress(
            f"{elapsed:6.1f} s, CPU "
            + ", ".join(f"{n} {s:.2f} s" for n, s in phase.cpu_s.items())
            + f", RSS {world.gm.rss_mib():.0f} MiB, {phase.writes} writes, {phase.messages} messages"
        )
        return phase

    async def _peak(self) -> None:
        self._shares: list[float] = []
        while True:
            before, began = self._world.gm.cpu_s(), time.perf_counter()
            await asyncio.sleep(LOOK_S)
            self._shares.append((self._world.gm.cpu_s() - before) / (time.perf_counter() - began) * 100)

    def _convergence(self, what: str, phase: Phase) -> None:
        self._add(f"{what}: p50", phase.percentile(0.5), "s", f"of {len(phase.times)} nodes")
        self._add(f"{what}: p99", phase.percentile(0.99), "s", f"max {phase.times[-1]:.2f}")
        self._add(f"{what}: told to the user", phase.told_s, "s", "by the service's status")
        self._load(what, phase)

    def _storm(self, what: str, phase: Phase) -> None:
        self._add(f"{what}: all acknowledged again", phase.times[-1], "s", f"p50 {phase.percentile(0.5):.2f}")
        self._add(f"{what}: GM's peak CPU", phase.peak, "%", f"calm again after {phase.told_s:.1f} s")
        self._load(what, phase)

    def _load(self, what: str, phase: Phase) -> None:
        cpu = ", ".join(f"{name} {spent / phase.seconds * 100:.0f} %" for name, spent in phase.cpu_s.items())
        self._add(f"{what}: GM CPU", phase.cpu_s["gm"], "s", f"in {phase.seconds:.1f} s; {cpu}")
        self._add(f"{what}: messages", phase.messages / phase.seconds, "1/s", f"{phase.messages} in all")
        self._add(f"{what}: API writes", phase.writes / phase.seconds, "1/s", f"{phase.writes} in all")

    def _add(self, what: str, value: float, unit: str, note: str = "") -> None:
        self._figures.append(Figure(name=f"{self._name}: {what}", value=value, unit=unit, note=note))

    def _progress(self, text: str) -> None:
        print(f"  {self._name}: {text}", file=sys.stderr, flush=True)


class _Sender:
    """A bare publisher with a window."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.wire: Wire | None = None
        self._topics: list[str] = []
        self._body = b""

    def on_ready(self) -> None:
        self.ready.set()

    def on_message(self, topic: str, payload: bytes, *, retained: bool) -> None:
        """Nothing is subscribed to."""

    def on_lost(self) -> None:
        """The measurement is over."""

    def send(self, where: list[str], body: bytes) -> None:
        self._topics, self._body = where[::-1], body
        for _ in range(_IN_FLIGHT):
            self._next()

    def _next(self) -> None:
        if self._topics and self.wire is not None:
            self.wire.publish(self._topics.pop(), self._body, on_ack=self._next)


def _patience_s(fleet: Fleet) -> float:
    return TIMEOUT_S + TIMEOUT_S_PER_NODE * len(fleet.nodes)


def _generation(state: NodeState) -> int:
    return max((task.generation for task in (state.tasks or {}).values()), default=0)


def _place(node: Node) -> tuple[int, int]:
    return node.machine.applied.epoch, node.machine.applied.rev


if __name__ == "__main__":
    print(as_table({"scale": measure(sys.argv[1], nodes=int(sys.argv[2]), idle_s=IDLE_S)}))
