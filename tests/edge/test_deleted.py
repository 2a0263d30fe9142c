# SPDX-License-Identifier: Apache-2.0
"""What is left of a deleted service goes when its time is over, its workers' folder too."""

from pathlib import Path

import pytest
from tests.edge.peers import NODE
from tests.edge.rows import SERVICE_ID

from nereid_edge.deleted import KEPT_S, Deleted
from nereid_edge.records import Loaded
from nereid_edge.service import Service, ServiceSettings
from nereid_edge.store import OutboxStore


@pytest.fixture
def workers(tmp_path: Path) -> Path:
    folder = tmp_path / "workers"
    for name in (SERVICE_ID, "other-12345678"):
        (folder / name).mkdir(parents=True)
        (folder / name / "answers.jsonl").write_text("{}\n")
    return folder


def delete(tmp_path: Path, workers: Path, name: str) -> Deleted:
    """Delete a service at the time 0."""
    deleted = Deleted(OutboxStore(tmp_path / "outbox.db"), workers=workers)
    deleted.put(Service.restored(name, ServiceSettings(worker=""), Loaded(), node=NODE), 0.0)
    return deleted


async def test_a_workers_folder_stays_while_its_service_may_come_back_and_then_goes(
    tmp_path: Path, workers: Path
) -> None:
    deleted = delete(tmp_path, workers, SERVICE_ID)
    deleted.expire(KEPT_S - 1)
    assert (workers / SERVICE_ID).exists()
    deleted.expire(1e6)
    assert [folder.name for folder in workers.iterdir()] == ["other-12345678"]


@pytest.mark.parametrize("name", ["..", "."])
async def test_a_name_leads_nowhere_else(tmp_path: Path, workers: Path, name: str) -> None:
    delete(tmp_path, workers, name).expire(1e6)
    assert (workers / SERVICE_ID).exists()
    assert (workers / "other-12345678").exists()
