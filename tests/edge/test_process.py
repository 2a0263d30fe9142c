# SPDX-License-Identifier: Apache-2.0
"""The LocalController as a process: how it starts, ends, and what a SIGKILL leaves."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial

import pytest
from tests.edge.peers import NODE, TIMEOUT_S, CloudPeer, EdgePeer, GmPeer, Lab, answered_by_the_ledger
from tests.edge.rows import SERVICE_UID, document, service_row

from nereid_edge.desired_store import DesiredStore
from nereid_edge.store import OutboxStore

pytestmark = pytest.mark.slow  # each test starts processes

Process = asyncio.subprocess.Process
Start = Callable[..., Awaitable[Process]]


@pytest.fixture
async def start(lab: Lab) -> AsyncIterator[Start]:
    """Starts LocalControllers that end with the test; the first one's disk holds the service."""
    lab.state.mkdir()
    DesiredStore(lab.state / "desired.db").apply(document({SERVICE_UID: service_row()}))
    running: list[Process] = []

    async def run(*more: str) -> Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *lab.argv(), *more, stderr=asyncio.subprocess.PIPE
        )
        running.append(process)
        return process

    yield run
    for process in running:
        if process.returncode is None:
            process.kill()
        _, said = await process.communicate()
        sys.stderr.write(said.decode())


async def test_sigterm_ends_it_in_order(gm: GmPeer, start: Start) -> None:
    process = await start()
    await gm.until(lambda: gm.states)
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(TIMEOUT_S):
        assert await process.wait() == 0
    await gm.until(lambda: gm.alive[-1].status == "offline")
    assert gm.alive[-1].boot == gm.alive[-2].boot


async def test_a_killed_one_leaves_its_will(gm: GmPeer, start: Start) -> None:
    process = await start()
    await gm.until(lambda: gm.states)
    process.kill()
    await gm.until(lambda: gm.alive[-1].status == "offline")
    assert (gm.alive[-1].boot, gm.alive[-1].connection) == (gm.alive[0].boot, 1)


async def test_a_second_one_on_the_folder_is_refused(gm: GmPeer, start: Start) -> None:
    await start()
    await gm.until(lambda: gm.states)
    second = await start()
    async with asyncio.timeout(TIMEOUT_S):
        _, said = await second.communicate()
    assert second.returncode == 2
    assert b"another LocalController runs on this folder" in said
    assert b"Traceback" not in said


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--node", "Edge_0"), b"node name"),
        (("--cloud-broker", "http://x"), b"not a broker URL"),
        (("--status-interval", "soon"), b"--status-interval"),
        (("--node", "edge-9"), b"belongs to node"),
    ],
)
async def test_a_wrong_option_is_named(lab: Lab, start: Start, more: tuple[str, ...], says: bytes) -> None:
    (lab.state / "node").write_text(NODE)
    process = await start(*more)
    async with asyncio.timeout(TIMEOUT_S):
        _, said = await process.communicate()
    assert process.returncode == 2
    assert says in said
    assert b"Traceback" not in said


async def test_what_the_user_can_mend_is_one_line_at_any_time(
    lab: Lab, gm: GmPeer, worker: EdgePeer, start: Start
) -> None:
    process = await start()
    await worker.until(lambda: worker.tasks)
    await worker.send(1)
    await worker.until(lambda: worker.accepted == 1)
    for path in lab.state.glob("outbox.db*"):
        path.unlink()
    (lab.state / "outbox.db").write_bytes(b"not a database" * 1000)
    # Now the sample is looked for on disk.
    async with asyncio.timeout(TIMEOUT_S), CloudPeer(lab.cloud).link:
        _, said = await process.communicate()
    assert process.returncode == 2
    assert b"nereid_edge: " in said.splitlines()[-1]
    assert b"outbox.db: cannot be read: file is not a database. Move it away" in said.splitlines()[-1]
    assert b"Traceback" not in said


def _reached(seen: list[int], seq: int) -> bool:
    return max(seen, default=0) >= seq


def _has_more(tasks: Sequence[object], than: int) -> bool:
    return len(tasks) > than


def _accepted(worker: EdgePeer, seq: int) -> bool:
    return worker.accepted >= seq


@pytest.mark.parametrize("answering", [True, False])
async def test_killed_in_the_middle_of_a_stream_it_loses_and_doubles_nothing(
    lab: Lab, gm: GmPeer, cloud: CloudPeer, worker: EdgePeer, start: Start, *, answering: bool
) -> None:
    cloud.answering = answering
    process = await start()
    await worker.until(lambda: worker.tasks)
    await gm.until(lambda: gm.states)
    for cut in (60, 120, 180):
        sending = asyncio.create_task(worker.send(*range(cut - 59, cut + 1)))
        if answering:
            await cloud.until(partial(_reached, cloud.seen, cut - 40))
        else:
            await worker.until(partial(_accepted, worker, cut - 40))
        process.kill()
        await process.wait()
        await sending
        told = len(worker.tasks)
        process = await start()
        await worker.until(partial(_has_more, worker.tasks, told))
        await worker.send_until_accepted(cut)
    cloud.answering = True
    async with asyncio.timeout(60):
        await worker.until(lambda: len(worker.answers) == 180, timeout_s=60)
    await gm.until(lambda: gm.ledger(SERVICE_UID).answered == 180)
    ledger = gm.ledger(SERVICE_UID)
    assert answered_by_the_ledger(ledger)
    assert (ledger.hard, ledger.pending, ledger.dropped, ledger.sent) == (180, 0, {}, 180)
    process.terminate()
    await process.wait()
    loaded = OutboxStore(lab.state / "outbox.db").load()
    (counters,) = loaded.counters.values()
    assert (loaded.rows, counters["accepted"], counters["answered"]) == ([], 180, 180)
