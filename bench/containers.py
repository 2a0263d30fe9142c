# SPDX-License-Identifier: Apache-2.0
"""How soon what is applied is at its workers: containers on a real node, their image there, brokers with TLS.

The node is that of `tests.cluster`, which is edge and cloud at once; both brokers are asked what the workers say. All
times begin with the start of kubectl.
"""

import asyncio
import base64
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.cluster.fixtures import IMAGES, own_cluster
from tests.cluster.kubectl import Kubectl
from tests.cluster.node import ADDRESS, missing
from tests.k8s.containers import Containers, put_up, take_down

from bench.figures import Figure
from nereid_shared import topics
from nereid_shared.link import Link, LinkSettings, Message, TlsFiles
from nereid_shared.messages import WorkerInfo
from nereid_shared.topics import service_id

SERVICES: Final = 6
QUICK_SERVICES: Final = 1
CHANGES: Final = 20
QUICK_CHANGES: Final = 3
PICTURES: Final = 50
FPS: Final = 25
TIMEOUT_S: Final = 120.0
_EDGE_BROKER: Final = "mqtt://127.0.0.1:11883"
_CLOUD_BROKER: Final = f"mqtts://{ADDRESS}:30884"
_GM_CERTIFICATE: Final = "nereid-gm-tls"


def figures(*, quick: bool) -> list[Figure]:
    """Return the figures; none, having said why, where there can be no node."""
    problem = missing() or ("" if list(IMAGES.glob("nereid-*.tar")) else "no images: make images")
    if problem:
        print(f"not measured, workers in containers: {problem}", file=sys.stderr)
        return []
    with own_cluster() as cluster, tempfile.TemporaryDirectory() as made:
        kubectl, place = Kubectl(cluster.server.kubectl, namespace="default"), Path(made)
        try:
            system = put_up(kubectl, cluster, place, pictures=PICTURES, fps=FPS)
            assert isinstance(system, Containers), system
            return asyncio.run(_measured(system, _certificates(kubectl, place), quick=quick))
        finally:
            take_down(kubectl, cluster, place)


def _certificates(kubectl: Kubectl, place: Path) -> TlsFiles:
    data: dict[str, str] = kubectl.json("secret", _GM_CERTIFICATE, "--namespace=nereid")["data"]
    for name, content in data.items():
        (place / name).write_bytes(base64.b64decode(content))
    return TlsFiles(ca=place / "ca.crt", cert=place / "tls.crt", key=place / "tls.key")


class _Words:
    """When workers first said something, by what they said."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, str], dict[str, float]] = {}
        self._came = asyncio.Event()

    def take(self, message: Message) -> None:
        """Note a worker's info."""
        if message.payload and not message.retain:
            info = WorkerInfo.decode(message.payload, max_bytes=topics.WORKER_INFO.max_bytes)
            now = time.perf_counter()
            side = "edge" if topics.WORKER_INFO.match(message.topic) else "cloud"
            for word in (info.task_hash, f"{info.task_hash} {info.status}"):
                self._first.setdefault((side, info.service), {}).setdefault(word, now)
            self._came.set()

    def of(self, side: str, service: str) -> dict[str, float]:
        """Return what a service's workers said, and when first: task hashes, and these with the worker's status."""
        return self._first.get((side, service), {})

    async def until(self, holds: Callable[[], Any]) -> Any:
        """Return the first true value."""
        async with asyncio.timeout(TIMEOUT_S):
            while not (found := holds()):
                self._came.clear()
                await self._came.wait()
            return found


async def _measured(system: Containers, tls: TlsFiles, *, quick: bool) -> list[Figure]:
    words = _Words()
    edge = LinkSettings.from_url(_EDGE_BROKER, client_id="bench-edge")
    cloud = LinkSettings.from_url(_CLOUD_BROKER, client_id="bench-cloud", tls=tls)
    async with (
        Link(edge, subscriptions={topics.WORKER_INFO.filter(): words.take}) as at_edge,
        Link(cloud, subscriptions={topics.CLOUD_INFO.filter(): words.take}) as in_cloud,
    ):
        await at_edge.wait_connected()
        await in_cloud.wait_connected()
        made: list[tuple[float, float, float]] = []
        changed: list[float] = []
        last = (QUICK_SERVICES if quick else SERVICES) - 1
        for number in range(last + 1):
            made.append(await _new(system, words))
            if number == last:
                changed = [await _changed(system, words, n) for n in range(QUICK_CHANGES if quick else CHANGES)]
            await asyncio.to_thread(_delete, system)
    to_edge, to_work, to_cloud = zip(*made, strict=True)
    return [
        _figure("new service: task at the edge worker, in a new container", to_edge),
        _figure("new service: edge worker runs its model", to_work),
        _figure("new service: cloud worker runs its model, in a new container", to_cloud),
        _figure("changed service: task at the edge worker that runs", changed),
    ]


async def _new(system: Containers, words: _Words) -> tuple[float, float, float]:
    """Apply the sample; return the seconds to the edge worker's task, to its first run, to the cloud worker's."""
    began = time.perf_counter()
    await asyncio.to_thread(system.kubectl, "apply", "-f", system.manifest)
    service = await asyncio.to_thread(_service, system)

    def runs(side: str) -> Any:
        return next((at for word, at in words.of(side, service).items() if word.endswith(" running")), None)

    to_work, to_cloud = await words.until(lambda: runs("edge")), await words.until(lambda: runs("cloud"))
    to_edge = next(at for word, at in words.of("edge", service).items() if word and not word.startswith(" "))
    return to_edge - began, to_work - began, to_cloud - began


async def _changed(system: Containers, words: _Words, number: int) -> float:
    """Change the deadline, which takes no new Pod; return the seconds to the worker's first word with that task."""
    service = await asyncio.to_thread(_service, system)
    known = set(words.of("edge", service))
    deadline = f"deadline: {1000 + number + 1}ms"
    manifest = Path(system.manifest)
    text = manifest.read_text().replace("deadline: 1s", deadline).replace(f"deadline: {1000 + number}ms", deadline)
    manifest.write_text(text)
    began = time.perf_counter()
    await asyncio.to_thread(system.kubectl, "apply", "-f", system.manifest)
    new = await words.until(lambda: words.of("edge", service).keys() - known)
    return min(words.of("edge", service)[word] for word in new if not word.startswith(" ")) - began


def _service(system: Containers) -> str:
    return service_id("digits", system.kubectl.json("jis", "digits")["metadata"]["uid"])


def _delete(system: Containers) -> None:
    system.kubectl("delete", "-f", system.manifest, "--timeout=60s", timeout_s=70)
    for kind in ("pods", "replicasets"):
        chosen = (kind, "--selector=nereid.io/service-uid", "--timeout=60s")
        system.kubectl.run("wait", "--for=delete", *chosen, timeout_s=70)


def _figure(name: str, times: tuple[float, ...] | list[float]) -> Figure:
    note = f"p50 of {len(times)}; {min(times):.2f} to {max(times):.2f}"
    return Figure(name=f"apply to a {name}", value=statistics.median(times), unit="s", note=note)
