# SPDX-License-Identifier: Apache-2.0
"""A worker whose state folder was damaged, with a real LocalController: what is lost is counted, and not waited for."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.conftest import MosquittoFactory
from tests.edge.peers import TIMEOUT_S, CloudPeer, EdgePeer, GmPeer, Lab, answered_by_the_ledger
from tests.edge.rows import SERVICE_ID, SERVICE_UID, WORKER, document, row, service_row
from tests.flow import patience
from tests.worker.scenes import HARD, Worker, running, write_dataset, write_model

from nereid_shared.messages import Ledger, TaskRow

pytestmark = pytest.mark.slow  # each test starts processes

LOST = 5


class Node:
    """A GlobalManager, a cloud that answers, and a node with `LOST` hard pictures."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.gm, self.cloud, self.watcher = lab, GmPeer(lab.cloud), CloudPeer(lab.cloud), EdgePeer(lab.edge)
        self.state = folder / "worker"
        self._row = _service(write_model(folder / "model"), write_dataset(folder / "data", [HARD] * LOST))
        names = {"NEREID_WORKER": WORKER, "NEREID_SERVICE": SERVICE_ID}
        self.worker = Worker(lab.edge.url, self.state, env=names)

    async def loses(self, name: str) -> None:
        """Have the worker's pictures taken while no LC runs, and one of its files damaged."""
        async with self.lab.controller():
            await self.gm.desire(document({SERVICE_UID: self._row}))
            await self.watcher.until(lambda: self.watcher.tasks)
        with running(self.worker):
            patience.until(lambda: len(self.worker.answers()) >= LOST, "the edge's own answers", within_s=TIMEOUT_S)
            assert self.worker.stop() == 0
        file = self.state / name
        with file.open("r+b") as damaged:
            damaged.write(b"\x07" * min(file.stat().st_size, 8192))

    async def settles(self) -> Ledger:
        """Return the ledger once it was seen with what was lost pending, and then with nothing pending."""
        async with self.lab.controller():
            await self.gm.until(lambda: self.gm.ledger(SERVICE_UID).pending == LOST)
            with running(self.worker):
                await self.gm.until(lambda: self._reason() and not self.gm.ledger(SERVICE_UID).pending)
        assert all(answered_by_the_ledger(one.ledger) for one in self.gm.statuses if one.ledger is not None)
        return self.gm.ledger(SERVICE_UID)

    def _reason(self) -> bool:
        status = self.gm.status(SERVICE_UID)
        return status.status == "completed" and status.reason in {"PageDamaged", "SpoolDamaged"}


def _service(model: Path, index: Path) -> TaskRow:
    made = service_row(deadline="200ms", dataset={"name": "frames"})
    refs = {
        **made.refs,
        "models": {"little": {"uid": "m", "generation": 1, "spec": {"modelUrl": str(model), "format": "tflite"}}},
        "datasets": {"frames": {"uid": "d", "generation": 1, "spec": {"dataUrl": str(index), "format": "csv"}}},
    }
    return row(kind=made.kind, spec=made.spec, refs=refs)


@pytest.fixture
async def node(mosquitto: MosquittoFactory, tmp_path: Path) -> AsyncIterator[Node]:
    made = Node(Lab(mosquitto(), mosquitto(), tmp_path / "lc"), tmp_path)
    async with AsyncExitStack() as links:
        for link in (made.gm.link, made.cloud.link, made.watcher.link):
            await links.enter_async_context(link)
            await link.wait_connected()
        yield made


async def test_what_a_damaged_page_named_is_forgotten_and_taken_anew(node: Node) -> None:
    await node.loses("ledger.page")
    ledger = await node.settles()
    assert (ledger.hard, ledger.answered, ledger.dropped) == (2 * LOST, LOST, {"forgotten": LOST})


async def test_what_a_damaged_spool_held_is_forgotten(node: Node) -> None:
    await node.loses("samples.spool")
    ledger = await node.settles()
    assert (ledger.hard, ledger.answered, ledger.dropped) == (LOST, 0, {"forgotten": LOST})
