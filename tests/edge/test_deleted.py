# SPDX-License-Identifier: Apache-2.0
"""What is left of a deleted service goes when its time is over, or its room is needed; its workers' folder too."""

import asyncio
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.edge.peers import NODE, TIMEOUT_S
from tests.edge.rows import SERVICE_ID

from nereid_edge.deleted import Deleted
from nereid_edge.records import Change, Loaded
from nereid_edge.rows import OutboxPolicy, Row, SampleKey
from nereid_edge.service import Service, ServiceSettings
from nereid_edge.store import OutboxStore
from nereid_edge.worker_folders import KEPT_S, WorkerFolders

OTHER = "other-12345678"


@pytest.fixture
def workers(tmp_path: Path) -> Path:
    folder = tmp_path / "workers"
    for name in (SERVICE_ID, OTHER):
        (folder / name).mkdir(parents=True)
        (folder / name / "answers.jsonl").write_text("{}\n")
    return folder


@asynccontextmanager
async def removing(folders: WorkerFolders) -> AsyncIterator[None]:
    task = asyncio.create_task(folders.run())
    try:
        yield
    finally:
        task.cancel()


async def until_left(workers: Path, *names: str) -> None:
    """Return when these folders are left and no others."""
    async with asyncio.timeout(TIMEOUT_S):
        while sorted(folder.name for folder in workers.iterdir()) != sorted(names):
            await asyncio.sleep(0.01)


def service(name: str, *, stored: int = 0, most: int = 1000, keep_for_s: float = 3600.0) -> Service:
    """Return a service with `stored` bytes of samples, of `most` that it may have."""
    made = Service.restored(
        name,
        ServiceSettings(worker="", policy=OutboxPolicy(max_bytes=most, keep_for_s=keep_for_s)),
        Loaded(),
        node=NODE,
    )
    if stored:
        made.box.accept(
            Row(key=SampleKey("s", 1), digest=b"d" * 32, label="7", score=0.5, size=stored, born=0.0, deadline=1.0)
        )
    return made


async def test_a_workers_folder_stays_while_its_service_may_come_back_and_then_goes(
    tmp_path: Path, workers: Path
) -> None:
    folders = WorkerFolders(workers)
    deleted = Deleted(OutboxStore(tmp_path / "outbox.db"), folders)
    deleted.put(service(SERVICE_ID, keep_for_s=1.0), 0.0)
    async with removing(folders):
        deleted.expire(KEPT_S - 1)
        assert (workers / SERVICE_ID).exists()
        deleted.expire(KEPT_S)
        assert not (workers / SERVICE_ID).exists()
        await until_left(workers, OTHER)


async def test_a_folder_is_removed_off_the_loop(workers: Path) -> None:
    threads = set()

    def note(event: str, arguments: tuple[object, ...]) -> None:
        if event == "shutil.rmtree" and str(workers) in str(arguments[0]):
            threads.add(threading.current_thread())

    sys.addaudithook(note)
    folders = WorkerFolders(workers)
    async with removing(folders):
        folders.give_up(SERVICE_ID)
        await until_left(workers, OTHER)
    assert len(threads) == 1
    assert threading.main_thread() not in threads


async def test_what_an_earlier_process_gave_up_is_removed(workers: Path) -> None:
    WorkerFolders(workers).give_up(SERVICE_ID)
    assert len(list(workers.iterdir())) == 2
    async with removing(WorkerFolders(workers)):
        await until_left(workers, OTHER)


@pytest.mark.parametrize("name", ["..", ".", "", f"../workers/{SERVICE_ID}"])
async def test_a_name_leads_nowhere_else(workers: Path, name: str) -> None:
    WorkerFolders(workers).give_up(name)
    await until_left(workers, OTHER, SERVICE_ID)


async def test_of_deleted_services_the_first_goes_when_the_outbox_is_at_its_bound_in_bytes(
    tmp_path: Path, workers: Path
) -> None:
    deleted = Deleted(OutboxStore(tmp_path / "outbox.db"), WorkerFolders(workers))
    for number, name in enumerate((SERVICE_ID, OTHER)):
        deleted.put(service(name, stored=400), float(number))
    deleted.make_room([service("a", stored=200)])
    assert (workers / SERVICE_ID).exists()
    deleted.make_room([service("a", stored=201)])
    assert not (workers / SERVICE_ID).exists()
    assert (workers / OTHER).exists()
    assert deleted.take(SERVICE_ID) is None
    assert deleted.take(OTHER) is not None


async def test_on_a_full_disk_nothing_is_kept_of_deleted_services(tmp_path: Path, workers: Path) -> None:
    async with OutboxStore(tmp_path / "outbox.db") as store:
        deleted = Deleted(store, WorkerFolders(workers))
        deleted.put(service(SERVICE_ID, stored=1), 0.0)
        store.put(Change(statements=[("PRAGMA max_page_count = 1", ()), ("CREATE TABLE more (one)", ())]))
        async with asyncio.timeout(TIMEOUT_S):
            while not store.full:
                await asyncio.sleep(0.05)
        deleted.make_room([])
        assert not deleted
        assert not (workers / SERVICE_ID).exists()


async def test_the_folder_of_a_served_model_goes_some_time_after_it(workers: Path) -> None:
    (workers / "digits-1").mkdir()
    folders = WorkerFolders(workers, kept_s=0.0)
    async with removing(folders):
        folders.serve(["digits-1"])
        folders.serve([])
        async with asyncio.timeout(TIMEOUT_S):
            while (workers / "digits-1").exists():
                await asyncio.sleep(0)


async def test_the_folder_of_a_served_model_that_comes_back_stays(workers: Path) -> None:
    (workers / "digits-1").mkdir()
    folders = WorkerFolders(workers, kept_s=0.0)
    folders.serve(["digits-1"])
    folders.serve([])
    folders.serve(["digits-1"])
    await asyncio.sleep(0)
    assert (workers / "digits-1").exists()
