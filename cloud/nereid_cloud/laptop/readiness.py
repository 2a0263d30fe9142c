# SPDX-License-Identifier: Apache-2.0
"""Knows when a system is up: each part has said so itself, in this run, and none has failed to start.

A process that runs proves nothing. Brokers answer on their ports, links on their socket, the controllers and the
PodRunners by their Leases, the GlobalManager and the LocalControllers by their births on the cloud broker, which
remembers nothing of a former run.
"""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from nereid_cloud.cluster.kinds import LEASE, NODE
from nereid_cloud.cluster.local import LocalCluster
from nereid_cloud.cluster.readiness import is_ready
from nereid_cloud.laptop import links
from nereid_cloud.laptop.controllers import LEASE as CONTROLLERS
from nereid_cloud.laptop.node_lifecycle import LEASES
from nereid_cloud.laptop.supervisor import Kept, Supervisor
from nereid_cloud.laptop.system import CLOUD_NODE, System
from nereid_shared import topics
from nereid_shared.errors import NereidError, UserError
from nereid_shared.link import Link, LinkSettings, Message
from nereid_shared.messages import GmAlive, NodeAlive

READY_S: Final = 60.0
POLL_S: Final = 0.1
ENDS: Final = 3
"""A part that ended so often while the system came up is not waited for any longer."""

USERS_ERROR: Final = 2
"""A part that ends with it will do so at the next start too."""

CONNECT_S: Final = 1.0
SHOWN_LINES: Final = 10
_TAIL_BYTES: Final = 64 * 1024

Progress = Callable[[str], None]


async def until_up(
    system: System, supervisor: Supervisor, signs: "Signs", progress: Progress, *, limit_s: float = READY_S
) -> None:
    """Wait until every part that the supervisor has started says that it is up.

    Raises:
        UserError: a part ended, or did not say so in time; it carries the last lines of the part's log.
    """
    end = time.monotonic() + limit_s
    births = _Births()
    waiting_for: list[str] = []
    async with contextlib.AsyncExitStack() as stack:
        listens = False
        while True:
            up = await asyncio.to_thread(signs.seen, supervisor)
            missing = [name for name in supervisor.kept if name not in up | births.parts]
            if not missing:
                return
            if failed := [kept for kept in supervisor.kept.values() if _has_failed(kept)]:
                raise _not_up(failed, "did not start")
            if time.monotonic() > end:
                raise _not_up([supervisor.kept[name] for name in missing], f"was not up after {limit_s:.0f} s")
            if missing != waiting_for:
                waiting_for = missing
                progress(f"waiting for {', '.join(missing)}")
            if not listens and f"broker-{CLOUD_NODE}" in up:
                # Not before the broker is there: a link that finds none waits longer with each try, and warns.
                await stack.enter_async_context(births.link(system.cloud_broker))
                listens = True
            await asyncio.sleep(POLL_S)


def _has_failed(kept: Kept) -> bool:
    return kept.ends >= ENDS or (kept.ends > 0 and kept.code == USERS_ERROR)


def _not_up(parts: Sequence[Kept], problem: str) -> UserError:
    told = [f"{kept.program.name} {problem}; {_last_words(kept.program.log)}" for kept in parts]
    folder = parts[0].program.log.parent
    return UserError("\n".join(told), where=str(folder))


def _last_words(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()[-SHOWN_LINES:]
    except OSError:
        lines = []
    if not lines:
        return f"{log.name} is empty"
    return "\n  ".join([f"the end of {log.name}:", *lines])


class Signs:
    """The signs of life that parts leave in the cluster, on ports and on the links' socket.

    Args:
        system: which parts, and where they are.
        cluster: the system's; to be given before any part starts, since what its Leases say then is of a former run.
    """

    def __init__(self, system: System, cluster: LocalCluster) -> None:
        self._system, self._cluster = system, cluster
        self._former = self._renewals()

    def seen(self, supervisor: Supervisor) -> set[str]:
        """Return the names of the parts that give such a sign."""
        ports = {CLOUD_NODE: self._system.ports.cloud, **self._system.ports.brokers}
        # Apart from the port: another program may hold one on which a broker could not listen.
        runs = {name for name, kept in supervisor.kept.items() if kept.pid}
        found = {f"broker-{name}" for name, port in ports.items() if f"broker-{name}" in runs and _listens(port)}
        with contextlib.suppress(NereidError):
            links.ask(self._system.control, {"do": "list"})
            found.add("links")
        with contextlib.suppress(NereidError):
            ready = self._ready_nodes()
            renewed = {key for key, time in self._renewals().items() if self._former.get(key) != time}
            found |= {f"podrunner-{name}" for namespace, name in renewed if namespace == LEASES and name in ready}
            found |= {"controllers"} if (CONTROLLERS.namespace, CONTROLLERS.name) in renewed else set()
        return found

    def _renewals(self) -> dict[tuple[str, str], str]:
        return {
            (lease["metadata"]["namespace"], lease["metadata"]["name"]): str(lease["spec"].get("renewTime", ""))
            for lease in self._cluster.list(LEASE).items
        }

    def _ready_nodes(self) -> set[str]:
        return {node["metadata"]["name"] for node in self._cluster.list(NODE).items if is_ready(node)}


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(CONNECT_S)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class _Births:
    """The parts that say on the cloud broker that they are there.

    Attributes:
        parts: their names.
    """

    def __init__(self) -> None:
        self.parts: set[str] = set()

    def link(self, broker: str) -> Link:
        """Return a link that hears them."""
        settings = LinkSettings.from_url(broker, client_id=f"nereid-up-{os.getpid()}")
        topic = topics.NODE_ALIVE.filter()
        return Link(settings, subscriptions={topics.GM_ALIVE.of(): self._on_gm, topic: self._on_node})

    def _on_gm(self, message: Message) -> None:
        alive = GmAlive.decode(message.payload, max_bytes=topics.GM_ALIVE.max_bytes, topic=message.topic)
        self._take("gm", alive.status)

    def _on_node(self, message: Message) -> None:
        alive = NodeAlive.decode(message.payload, max_bytes=topics.NODE_ALIVE.max_bytes, topic=message.topic)
        node = (topics.NODE_ALIVE.match(message.topic) or {}).get("node", "")
        self._take(f"lc-{node}", alive.status)

    def _take(self, part: str, status: str) -> None:
        if status == "online":
            self.parts.add(part)
        else:
            self.parts.discard(part)
