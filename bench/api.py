# SPDX-License-Identifier: Apache-2.0
"""What 2,000 resources cost the GlobalManager on a real API server, and how soon a change is at a node and its worker.

A thousand Models and a thousand Datasets, 20 of these on each simulated node (`bench.fleet`). An apply ends when the
node has taken the document; `bench.containers` goes on from there, to workers in containers on a real node.
"""

import asyncio
import queue
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from bench import containers
from bench.figures import Figure
from bench.fleet import Fleet, Node
from bench.scale_world import CLOUD, World, api_world, lacks_api_server, model, wait_for
from nereid_cloud.cluster.kinds import DATASET, MODEL
from nereid_cloud.cluster.listwatch import ListWatch
from nereid_cloud.cluster.port import Object, Ref
from nereid_shared.messages import NodeState

RESOURCES: Final = 2000
QUICK_RESOURCES: Final = 200
PER_NODE: Final = 20
APPLIES: Final = 50
QUICK_APPLIES: Final = 10
IDLE_S: Final = 10.0
QUICK_IDLE_S: Final = 3.0
TIMEOUT_S: Final = 120.0
WRITES: Final = 20
_WRITERS: Final = 4


def run(*, quick: bool) -> list[Figure]:
    """Return the figures."""
    if lacks_api_server():
        return []
    with tempfile.TemporaryDirectory() as made, api_world(Path(made)) as world:
        figures = asyncio.run(_Measurement(world, QUICK_RESOURCES if quick else RESOURCES).run(quick=quick))
    return figures + containers.figures(quick=quick)


class _Measurement:
    def __init__(self, world: World, resources: int) -> None:
        self._world, self._half = world, resources // 2
        self._nodes = [f"n{number:05}" for number in range(max(1, self._half // PER_NODE))]
        self._fleet = Fleet(self._nodes, port=world.broker.port)
        self._acknowledged: dict[tuple[str, int], float] = {}
        self._applied: dict[tuple[str, int], float] = {}

    async def run(self, *, quick: bool) -> list[Figure]:
        world, gm = self._world, self._world.gm
        await asyncio.to_thread(wait_for, lambda: "speaking to the nodes" in gm.log(), timeout_s=30, why="the Lease")
        await asyncio.to_thread(world.make_nodes, [CLOUD, *self._nodes])
        self._fleet.on_state = self._acknowledge
        self._fleet.on_applied = self._apply_here
        self._fleet.start()
        empty = gm.rss_mib()
        before, began = gm.cpu_s(), time.perf_counter()
        await asyncio.to_thread(self._fill)
        made_s = time.perf_counter() - began
        await self._until(lambda: len(self._acknowledged) >= self._half)
        reconciled_s, spent = time.perf_counter() - began, gm.cpu_s() - before
        idle_s = QUICK_IDLE_S if quick else IDLE_S
        await asyncio.sleep(2)
        before = gm.cpu_s()
        await asyncio.sleep(idle_s)
        idle = (gm.cpu_s() - before) / idle_s * 100
        full = gm.rss_mib()
        listed = await asyncio.to_thread(self._list, repeats=3)
        watched = await asyncio.to_thread(self._watch)
        applies = sorted([await self._apply(number) for number in range(QUICK_APPLIES if quick else APPLIES)])
        relisted = await asyncio.to_thread(self._world.restart_gm)
        await self._fleet.close()
        total = 2 * self._half
        return [
            Figure(name="list, raw, of half of them", value=listed, unit="s", note=f"{self._half} Datasets, best of 3"),
            Figure(name="watch: from a write to the event", value=watched * 1e3, unit="ms", note=f"median of {WRITES}"),
            Figure(
                name=f"GM: {total} resources applied and acknowledged", value=reconciled_s, unit="s",
                note=f"{made_s:.1f} s of it to create them; {spent / reconciled_s * 100:.0f} % of a core",
            ),
            Figure(name="GM: reconcile rate", value=self._half / reconciled_s, unit="1/s", note="Datasets"),
            Figure(name="GM: CPU per Dataset", value=spent / self._half * 1e3, unit="ms"),
            Figure(name="GM: RSS", value=full, unit="MiB", note=f"{empty:.0f} without them"),
            Figure(name="GM: memory per resource", value=(full - empty) * 1024 / total, unit="KiB"),
            Figure(name="GM: CPU while nothing happens", value=idle, unit="%", note=f"over {idle_s:g} s"),
            Figure(name="GM: start to speaking, all of them there", value=relisted, unit="s"),
            Figure(name="apply to the task at the node: p50", value=statistics.median(applies) * 1e3, unit="ms"),
            Figure(
                name="apply to the task at the node: max", value=applies[-1] * 1e3, unit="ms",
                note=f"of {len(applies)}",
            ),
        ]  # fmt: skip

    def _acknowledge(self, node: Node, _state: NodeState) -> None:
        _note(node, self._acknowledged)

    def _apply_here(self, node: Node) -> None:
        _note(node, self._applied)

    def _fill(self) -> None:
        with ThreadPoolExecutor(_WRITERS) as pool:
            list(pool.map(self._world.create, (model(f"m{number:05}") for number in range(self._half))))
            list(pool.map(self._world.create, (self._dataset(number) for number in range(self._half))))

    def _dataset(self, number: int) -> Object:
        return {
            "apiVersion": "edgeai.io/v1alpha1", "kind": "Dataset",
            "metadata": {"name": f"d{number:05}", "namespace": "default", "labels": {"app": "bench"}},
            "spec": {
                "dataUrl": "/var/lib/nereid/data/index.csv", "format": "csv",
                "nodeName": self._nodes[number % len(self._nodes)],
            },
        }  # fmt: skip

    def _list(self, *, repeats: int) -> float:
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            assert len(self._world.cluster.list(DATASET).items) == self._half
            times.append(time.perf_counter() - began)
        return min(times)

    def _watch(self) -> float:
        """Return the seconds from the beginning of a write to its event, the median of several."""
        stop, seen = threading.Event(), queue.SimpleQueue[str]()
        follow = ListWatch(
            self._world.cluster, MODEL, on_list=lambda _: seen.put("listed"), stop=stop,
            on_event=lambda event: seen.put(event.object["metadata"]["resourceVersion"]),
        )  # fmt: skip
        threading.Thread(target=follow.run, name="models", daemon=True).start()
        seen.get(timeout=TIMEOUT_S)
        times = []
        for number in range(WRITES):
            began = time.perf_counter()
            patch = {"metadata": {"labels": {"bench": str(number)}}}
            written = self._world.cluster.patch(Ref(kind=MODEL, name="m00000", namespace="default"), patch)
            while seen.get(timeout=TIMEOUT_S) != written["metadata"]["resourceVersion"]:
                pass
            times.append(time.perf_counter() - began)
        stop.set()
        return statistics.median(times)

    async def _apply(self, number: int) -> float:
        name = f"d{number:05}"
        manifest = self._dataset(number)
        manifest["spec"]["dataUrl"] = "/var/lib/nereid/data/other.csv"
        began = time.perf_counter()
        result = await asyncio.to_thread(self._world.cluster.apply, manifest, manager="bench")
        key = name, result["metadata"]["generation"]
        await self._until(lambda: key in self._applied)
        return self._applied[key] - began

    async def _until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not holds():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{len(self._acknowledged)} of {self._half} Datasets acknowledged")
            await asyncio.sleep(0.005)


def _note(node: Node, times: dict[tuple[str, int], float]) -> None:
    for row in node.machine.applied.tasks.values():
        times.setdefault((row.name, row.generation), time.perf_counter())
