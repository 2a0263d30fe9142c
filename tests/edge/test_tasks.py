# SPDX-License-Identifier: Apache-2.0
"""What the tasks publish to a real edge broker."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.edge.peers import NODE, TIMEOUT_S, Heard
from tests.edge.rows import SERVICE_UID, WORKER, service_row
from tests.mosquitto import Mosquitto

from nereid_edge.relay import Relay
from nereid_edge.served import ServedBook
from nereid_edge.store import OutboxStore
from nereid_edge.tasks import Tasks
from nereid_edge.worker_folders import WorkerFolders
from nereid_shared import topics
from nereid_shared.link import Link, Message
from nereid_shared.link_settings import LinkSettings
from nereid_shared.messages import WorkerInfo

OTHER = "other-worker"
INFO = topics.WORKER_INFO.of(worker=OTHER)


class EdgeBroker(Heard):
    """A link to the edge broker, and what came over it of the tasks and of another service's worker."""

    def __init__(self, broker: Mosquitto) -> None:
        super().__init__()
        self.came: list[tuple[str, bool]] = []
        watched = (topics.TASK.of(worker=WORKER), INFO)
        self.link = Link(
            LinkSettings.from_url(broker.url, client_id="lc"), subscriptions=dict.fromkeys(watched, self._note)
        )

    def _note(self, message: Message) -> None:
        self.came.append((message.topic, bool(message.payload)))
        self.ring()


@pytest.fixture
async def edge(broker: Mosquitto) -> AsyncIterator[EdgeBroker]:
    made = EdgeBroker(broker)
    async with made.link:
        await made.link.wait_connected()
        yield made


@pytest.fixture
async def tasks(edge: EdgeBroker, tmp_path: Path) -> AsyncIterator[Tasks]:
    folders = WorkerFolders(None)
    relay = Relay(node=NODE, store=OutboxStore(tmp_path / "outbox.db"), folders=folders)
    cache, served = (tmp_path / "cache", 2**30), ServedBook(tmp_path / "served.json")
    made = Tasks(relay=relay, folders=folders, cache=cache, served=served, on_change=lambda: None)
    made.attach(edge.link)
    running = asyncio.create_task(made.run())
    yield made
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    made.close()


def will() -> Message:
    body = WorkerInfo(
        name=OTHER, namespace="default", owner_name="o", owner_kind="jointinferenceservice", status="offline", boot="b"
    )
    return Message(topic=INFO, payload=body.encode(), retain=True)


@pytest.mark.parametrize("known", [False, True])
async def test_the_word_of_a_worker_that_is_gone_is_cleared_once_the_tasks_are_known(
    edge: EdgeBroker, tasks: Tasks, *, known: bool
) -> None:
    await edge.link.publish(INFO, will().payload, retain=True)
    tasks.apply({}, known=known)
    tasks.on_info(will())
    # What is to be cleared by now goes before the task.
    tasks.apply({SERVICE_UID: service_row()}, known=True)
    async with asyncio.timeout(TIMEOUT_S):
        await edge.until(lambda: (topics.TASK.of(worker=WORKER), True) in edge.came)
    assert ((INFO, False) in edge.came) == known
