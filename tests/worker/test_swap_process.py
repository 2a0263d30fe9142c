# SPDX-License-Identifier: Apache-2.0
"""A real worker process whose model is changed under it: it goes on as the same process, and back after a crash."""

import hashlib
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.mosquitto import Mosquitto
from tests.tiny_models import brightness
from tests.worker.lc_peer import LcPeer
from tests.worker.scenes import EASY, Worker, dataset_of, make_task, running, write_dataset
from tests.worker.test_swapper import inverted, write

from nereid_shared.digests import sealed
from nereid_shared.messages import Task, TaskModel

pytestmark = pytest.mark.slow  # each test starts processes

FRAMES = 2000
A, B = (hashlib.sha256(content).hexdigest() for content in (brightness(), inverted()))


@pytest.fixture
def first(tmp_path: Path) -> Task:
    """A task for more pictures than are read while a test lasts."""
    file = write(tmp_path / "a", brightness(), golden=[4.0, -4.0])
    index = write_dataset(tmp_path / "data", [EASY] * FRAMES)
    return sealed(make_task(file, dataset=dataset_of(index), parameters={"fps": "50"}))


def changed(task: Task, folder: Path, content: bytes, *, golden: list[float]) -> Task:
    model = TaskModel(name="little", url="http://host/b.tflite", path=str(write(folder / "b", content, golden=golden)))
    return sealed(replace(task, model=model, generation=2))


def edge_answers(worker: Worker) -> list[dict[str, object]]:
    return [event for event in worker.answers() if event["event"] == "edge"]


def test_a_changed_model_serves_without_another_start(tmp_path: Path, broker: Mosquitto, first: Task) -> None:
    with LcPeer(broker.url, task=first) as peer, running(Worker(broker.url, tmp_path / "state")) as worker:
        peer.wait(lambda: len(edge_answers(worker)) > 20)
        before = peer.last
        second = changed(first, tmp_path, inverted(), golden=[-4.0, 4.0])
        peer.give(second)
        peer.wait(lambda: peer.last.task_hash == second.hash)
        told = peer.last
        assert (told.boot, told.status, told.reason) == (before.boot, "running", "")
        (model,) = told.models
        assert (model.url, model.digest, model.status, model.bytes) == (
            "http://host/b.tflite", B, "ready", len(inverted()),
        )  # fmt: skip
        reached = len(edge_answers(worker))
        peer.wait(lambda: len(edge_answers(worker)) > reached + 20)
        assert worker.stop() == 0
        answers = edge_answers(worker)
        assert [one["key"] for one in answers] == [f"images/{n:05}.png" for n in range(len(answers))]
        assert {(one["model"], one["label"]) for one in answers} == {(A, "dark"), (B, "bright")}
        assert peer.last.ledger is not None
        assert peer.last.ledger.seen == len(answers)


def test_a_model_that_fails_its_test_is_told_and_the_former_goes_on(
    tmp_path: Path, broker: Mosquitto, first: Task
) -> None:
    with LcPeer(broker.url, task=first) as peer, running(Worker(broker.url, tmp_path / "state")) as worker:
        peer.wait(lambda: len(edge_answers(worker)) > 20)
        boot = peer.last.boot
        bad = changed(first, tmp_path, inverted(), golden=[4.0, -4.0])
        peer.give(bad)
        info = peer.wait_status("running", reason="GoldenMismatch")
        peer.wait(lambda: peer.last.task_hash == bad.hash)
        assert info.boot == boot
        assert [(one.digest, one.status) for one in info.models] == [(A, "ready"), ("", "failed")]
        reached = len(edge_answers(worker))
        peer.wait(lambda: len(edge_answers(worker)) > reached + 20)
        assert {one["model"] for one in edge_answers(worker)} == {A}
        peer.give(replace(first, generation=3))
        peer.wait(lambda: (peer.last.reason, len(peer.last.models)) == ("", 1))
        assert peer.last.boot == boot


def test_a_crash_soon_after_puts_the_former_model_back_and_an_orderly_end_does_not(
    tmp_path: Path, broker: Mosquitto, first: Task
) -> None:
    second = changed(first, tmp_path, inverted(), golden=[-4.0, 4.0])
    with LcPeer(broker.url, task=first) as peer:
        worker = Worker(broker.url, tmp_path / "state")
        with running(worker):
            peer.wait(lambda: peer.infos and peer.last.status == "running")
            peer.give(second)
            peer.wait(lambda: peer.last.task_hash == second.hash)
            assert worker.stop() == 0
        with running(worker):
            peer.wait(lambda: peer.last.status == "running" and peer.last.models[0].digest == B)
            worker.kill()
        with running(worker):
            info = peer.wait_status("running", reason="RolledBack")
            assert [(one.digest, one.status) for one in info.models] == [(A, "ready"), ("", "failed")]
            assert info.task_hash == second.hash
            third = sealed(replace(second, model=replace(second.model, url="http://host/mended.tflite")))
            peer.give(third)
            peer.wait(lambda: (peer.last.reason, peer.last.models[0].digest) == ("", B))
            assert worker.stop() == 0
