# SPDX-License-Identifier: Apache-2.0
"""A real worker process, a real broker, a scripted LocalController: what happens over kills, signals and bad input."""

import hashlib
import sqlite3
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.mosquitto import Mosquitto
from tests.worker.lc_peer import LcPeer, answer_to, at_once, never
from tests.worker.scenes import (
    EASY,
    EXIT_S,
    HARD,
    Worker,
    dataset_of,
    make_task,
    picture,
    running,
    write_dataset,
    write_model,
)

from nereid_shared.messages import Task, TaskDataset, TaskModel, TaskRule, WorkerInfo
from nereid_shared.samples import Result, Sample
from nereid_worker.edge import DRAIN_S
from nereid_worker.state_lock import StateLock

pytestmark = pytest.mark.slow  # each test starts processes


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def classify(tmp_path: Path, file: Path, greys: list[int], **changes: object) -> Task:
    index = write_dataset(tmp_path / "data", greys)
    return make_task(file, **{"dataset": dataset_of(index), **changes})


def assert_ledger(peer: LcPeer, *, seen: int, hard: int) -> None:
    ledger = peer.last.ledger
    assert ledger is not None
    assert (ledger.seen, ledger.hard, ledger.easy) == (seen, hard, seen - hard)
    assert len(peer.samples) == hard
    assert {(sample.stream, sample.seq) for sample in peer.samples} == {
        (peer.last.stream, seq) for seq in range(1, hard + 1)
    }


def test_a_dataset_is_answered_and_logged_once_per_sample(tmp_path: Path, broker: Mosquitto, model: Path) -> None:
    greys = [EASY, HARD, EASY, EASY, HARD] * 8
    with LcPeer(broker.url, task=classify(tmp_path, model, greys)) as peer:
        with running(Worker(broker.url, tmp_path / "state")) as worker:
            info = peer.wait_status("completed")
            assert_ledger(peer, seen=40, hard=16)
            events = worker.answers()
            assert [e["key"] for e in events if e["event"] == "edge"] == [f"images/{n:05}.png" for n in range(40)]
            answers = [e for e in events if e["event"] == "answer"]
            assert sorted(str(e["key"]) for e in answers) == [
                f"images/{n:05}.png" for n, grey in enumerate(greys) if grey == HARD
            ]
            assert {(e["label"], e["tier"], e["cloud_label"], e["degraded"]) for e in answers} == {
                ("cloud", "cloud", "cloud", False)
            }
            assert info.models[0].digest
            assert (info.owner_kind, info.kind, info.task_hash) == ("jointinferenceservice", "inference", "h1")
            assert worker.stop() == 0
        peer.wait_status("offline", reason="Stopped")


def test_the_bytes_travel_as_they_are_in_the_file(tmp_path: Path, broker: Mosquitto, model: Path) -> None:
    task = classify(tmp_path, model, [HARD])
    (tmp_path / "data" / "images" / "00001.jpg").write_bytes(picture(HARD, suffix=".jpg", side=64))
    with (tmp_path / "data" / "index.csv").open("a") as index:
        index.write("images/00001.jpg\n")
    with LcPeer(broker.url, task=task) as peer, running(Worker(broker.url, tmp_path / "state")):
        peer.wait_status("completed")
        assert [(s.encoding, s.payload) for s in peer.samples] == [
            ("png", (tmp_path / "data" / "images" / "00000.png").read_bytes()),
            ("jpeg", (tmp_path / "data" / "images" / "00001.jpg").read_bytes()),
        ]


@pytest.mark.slow
def test_over_kills_every_frame_counts_once(tmp_path: Path, broker: Mosquitto, model: Path) -> None:
    frames, kills = 1500, 6
    greys = [HARD if n % 5 == 0 else EASY for n in range(frames)]
    task = classify(tmp_path, model, greys, parameters={"fps": "500"})

    def half_are_late(sample: Sample) -> Iterator[tuple[float, Result]]:
        yield (0.0 if sample.seq % 2 else 0.3), answer_to(sample)

    with LcPeer(broker.url, task=task, behaviour=half_are_late) as peer:
        worker = Worker(broker.url, tmp_path / "state")
        for number in range(1, kills + 1):
            with running(worker):
                wanted = number * 300 // (kills + 1)
                peer.wait(lambda: len(peer.samples) >= wanted)  # noqa: B023 - waited for within the turn
                worker.kill()
        before = len(peer.samples)
        with running(worker):
            peer.wait_status("completed", timeout_s=120)
            peer.wait(lambda: peer.last.accepted == 300)
            assert_ledger(peer, seen=frames, hard=300)
            edge = [str(e["key"]) for e in worker.answers() if e["event"] == "edge"]
            assert set(edge) == {f"images/{n:05}.png" for n in range(frames)}
            assert len(edge) <= frames + kills, "at most the frame in flight comes again"
            asked = {s.key for s in peer.samples if s.seq > before}
            peer.wait(lambda: asked <= {e["key"] for e in worker.answers() if e["event"] in {"answer", "correction"}})
            assert worker.stop() == 0


@pytest.mark.slow
def test_a_broker_that_dies_loses_nothing(tmp_path: Path, broker: Mosquitto, model: Path) -> None:
    greys = [HARD if n % 4 == 0 else EASY for n in range(800)]
    task = classify(tmp_path, model, greys, parameters={"fps": "400"}, deadline_s=0.5)
    index = tmp_path / "data" / "index.csv"
    header, *lines = index.read_text().splitlines(keepends=True)
    index.write_text(header + "".join(lines[:400]))
    with LcPeer(broker.url, task=task) as peer, running(Worker(broker.url, tmp_path / "state")) as worker:
        peer.wait(lambda: len(peer.samples) >= 50)
        broker.kill()
        before = len(worker.answers())
        with index.open("a") as more:  # however far it has come by now, these meet no broker
            more.write("".join(lines[400:]))
        peer.wait(lambda: len(worker.answers()) >= before + 100)
        broker.start()
        peer.wait(lambda: len(peer.samples) == 200, timeout_s=120)
        peer.wait_status("completed")
        peer.wait(lambda: peer.last.accepted == 200)
        assert_ledger(peer, seen=800, hard=200)
        settled = {e["key"] for e in worker.answers() if e["event"] in {"answer", "correction"}}
        assert len(settled) == 200


def test_another_task_starts_it_over_in_place(tmp_path: Path, broker: Mosquitto, model: Path) -> None:
    task = classify(tmp_path, model, [EASY, HARD] * 50, parameters={"fps": "20"})
    with LcPeer(broker.url, task=task) as peer, running(Worker(broker.url, tmp_path / "state")) as worker:
        peer.wait(lambda: peer.infos and peer.last.ledger and peer.last.ledger.seen > 3)
        first = peer.last
        peer.give(replace(task, hash="h2", generation=2, parameters={}))
        info = peer.wait_status("completed")
        assert (info.task_hash, info.stream) == ("h2", first.stream)
        assert info.boot != first.boot
        assert worker.process is not None
        assert worker.process.poll() is None
        assert_ledger(peer, seen=100, hard=50)
        assert worker.stop() == 0


def test_sigterm_leaves_time_for_what_is_under_way(tmp_path: Path, broker: Mosquitto, model: Path) -> None:
    task = classify(tmp_path, model, [HARD] * 5000, parameters={"fps": "100"})
    with LcPeer(broker.url, task=task, behaviour=never) as peer:
        with running(Worker(broker.url, tmp_path / "state")) as worker:
            peer.wait(lambda: len(peer.samples) >= 30)
            began = time.monotonic()
            assert worker.stop() == 0
            assert time.monotonic() - began >= DRAIN_S
            taken = [e for e in worker.answers() if e["event"] == "edge"]
        ledger = peer.wait_status("offline").ledger
        assert ledger is not None
        assert 5000 > ledger.hard == len(taken) >= len(peer.samples)


@pytest.mark.parametrize(
    ("changes", "reason_and_words"),
    [
        ({"model": TaskModel(name="m", url="/nowhere/x.tflite")}, ("ModelMissing", "/nowhere/x.tflite")),
        ({"model": TaskModel(name="m", url="/x.h5", format="keras")}, ("ModelUnsupported", "'keras', and this worker")),
        ({"dataset": TaskDataset(name="d", url="/x", format="tfrecord")}, ("DatasetFormatUnknown", "'tfrecord'")),
        ({"rule": TaskRule(name="Guess")}, ("TaskInvalid", "there is no rule 'Guess'")),
        ({"rule": TaskRule(name="Margin", parameters={"threshold": "1.5"})}, ("TaskInvalid", "threshold")),
        ({"script_boot_file": "builtin:other"}, ("TaskInvalid", "builtin:classify")),
        ({"script_dir": "/nowhere", "script_boot_file": "edge.py"}, ("ScriptNotFound", "/nowhere/edge.py")),
        ({"parameters": {"fps": "fast"}}, ("TaskInvalid", "frames per second")),
        ({"dataset": None}, ("TaskInvalid", "dataset")),
    ],
)
def test_what_cannot_run_says_why_and_stops_in_order(
    tmp_path: Path, broker: Mosquitto, model: Path, changes: dict[str, object], reason_and_words: tuple[str, str]
) -> None:
    reason, said = reason_and_words
    task = classify(tmp_path, model, [EASY], **changes)
    with LcPeer(broker.url, task=task) as peer, running(Worker(broker.url, tmp_path / "state")) as worker:
        info = peer.wait_status("failed", reason=reason)
        assert said in info.message
        assert worker.stop() == 0


def test_a_wrong_digest_is_refused(tmp_path: Path, broker: Mosquitto, model: Path) -> None:
    task = classify(tmp_path, model, [EASY], model=TaskModel(name="m", url=str(model), sha256="0" * 64))
    with LcPeer(broker.url, task=task) as peer, running(Worker(broker.url, tmp_path / "state")):
        info = peer.wait_status("failed", reason="DigestMismatch")
        assert hashlib.sha256(model.read_bytes()).hexdigest() in info.message
        assert "0" * 64 in info.message


def test_a_corrupt_model_heals_when_it_is_replaced(tmp_path: Path, broker: Mosquitto, model: Path) -> None:
    content = model.read_bytes()
    model.write_bytes(b"not a model")
    task = classify(tmp_path, model, [EASY, HARD])
    with LcPeer(broker.url, task=task) as peer, running(Worker(broker.url, tmp_path / "state")):
        peer.wait_status("failed", reason="ModelCorrupt")
        model.write_bytes(content)
        peer.wait_status("completed")
        assert_ledger(peer, seen=2, hard=1)


def test_a_dataset_that_vanishes_is_waited_for(tmp_path: Path, broker: Mosquitto, model: Path) -> None:
    task = classify(tmp_path, model, [EASY] * 20)
    with LcPeer(broker.url, task=task) as peer, running(Worker(broker.url, tmp_path / "state")):
        peer.wait_status("completed")
        (tmp_path / "data").rename(tmp_path / "gone")
        peer.wait_status("failed", reason="DatasetUnreadable")
        (tmp_path / "gone").rename(tmp_path / "data")
        with (tmp_path / "data" / "index.csv").open("a") as index:
            index.write("images/00003.png\nimages/nothing.png\n")
        peer.wait(lambda: peer.last.ledger and peer.last.ledger.seen == 22)
        ledger = peer.last.ledger
        assert ledger is not None
        assert (ledger.easy, ledger.failed) == (21, {"missing": 1})


def test_two_of_one_service_do_not_share_the_state(tmp_path: Path, broker: Mosquitto, model: Path) -> None:
    task = classify(tmp_path, model, [EASY] * 10)
    with LcPeer(broker.url, task=task) as peer, running(Worker(broker.url, tmp_path / "state")) as old:
        peer.wait_status("completed")
        with LcPeer(broker.url, worker="worker-b") as other:
            second = Worker(broker.url, tmp_path / "state", env={"NEREID_WORKER": "worker-b"})
            with running(second):
                other.wait_status("starting", reason="WaitingForState")
                assert old.stop() == 0
                other.wait_status("starting", reason="WaitingForTask")
                assert second.stop() == 0


def said_at(info: WorkerInfo) -> datetime:
    """Return when the worker wrote it, whenever it came here."""
    assert info.task_info is not None
    assert info.task_info.update_time is not None
    return datetime.fromisoformat(info.task_info.update_time)


def test_info_without_news_goes_seldom(tmp_path: Path, broker: Mosquitto, model: Path) -> None:
    task = classify(tmp_path, model, [EASY] * 3)
    with LcPeer(broker.url, task=task) as peer, running(Worker(broker.url, tmp_path / "state")):
        peer.wait_status("completed")
        came = []
        for _ in range(3):
            heard = len(peer.infos)
            peer.wait(lambda: len(peer.infos) > heard)  # noqa: B023 - waited for within the turn
            came.append(said_at(peer.last))
        assert came[2] - came[1] > timedelta(seconds=0.99), "every tenth of 0.1 s"
        with (tmp_path / "data" / "index.csv").open("a") as index:
            index.write("images/00000.png\n")
        peer.wait(lambda: peer.last.ledger and peer.last.ledger.seen == 4)


def test_a_dataset_may_be_a_folder_of_indices(tmp_path: Path, broker: Mosquitto, model: Path) -> None:
    index = write_dataset(tmp_path / "data", [EASY, HARD, EASY])
    (index.parent / "later.csv").write_text("label,path\n1,images/00001.png\n")
    task = make_task(model, dataset=dataset_of(index.parent))
    with LcPeer(broker.url, task=task) as peer, running(Worker(broker.url, tmp_path / "state")):
        peer.wait_status("completed")
        assert_ledger(peer, seen=4, hard=2)
        (index.parent / "zero.csv").write_text("path\nimages/00001.png\n")
        peer.wait(lambda: peer.last.ledger and peer.last.ledger.seen == 5)
        peer.wait_status("completed")
        assert_ledger(peer, seen=5, hard=3)


def test_a_dataset_may_be_a_folder_of_pictures(tmp_path: Path, broker: Mosquitto, model: Path) -> None:
    folder = write_dataset(tmp_path / "data", [EASY, HARD]).parent
    task = make_task(model, dataset=dataset_of(folder, "folder"))
    with LcPeer(broker.url, task=task) as peer, running(Worker(broker.url, tmp_path / "state")) as worker:
        peer.wait_status("completed")
        (folder / "images" / "00001.png").rename(folder / "images" / "0.png")  # read already, under another name
        peer.wait(lambda: peer.last.ledger and peer.last.ledger.seen == 3)
        peer.wait_status("completed")
        assert_ledger(peer, seen=3, hard=2)
        keys = [line["key"] for line in worker.answers() if line["event"] == "edge"]
        assert keys == ["images/00000.png", "images/00001.png", "images/0.png"]


def test_a_format_that_only_scripts_read_says_so(tmp_path: Path, broker: Mosquitto, model: Path) -> None:
    task = make_task(model, dataset=dataset_of(tmp_path / "d.parquet", "parquet"))
    with LcPeer(broker.url, task=task) as peer, running(Worker(broker.url, tmp_path / "state")):
        info = peer.wait_status("failed")
        assert (info.reason, "let a script open" in info.message) == ("DatasetFormatUnknown", True)


def test_a_second_process_of_the_same_name_waits_in_silence(tmp_path: Path, broker: Mosquitto, model: Path) -> None:
    task = classify(tmp_path, model, [EASY] * 10)
    with LcPeer(broker.url, task=task) as peer, running(Worker(broker.url, tmp_path / "state")) as first:
        boot = peer.wait_status("completed").boot
        with running(Worker(broker.url, tmp_path / "state")) as second:
            peer.wait(lambda: "another worker holds the state folder" in second.log())
            assert f"pid={first.pid}" in second.log()
            heard = len(peer.infos)
            peer.wait(lambda: len(peer.infos) > heard + 1)
            assert {info.boot for info in peer.infos} == {boot}
            first.kill()
            peer.wait(lambda: peer.last.boot != boot and peer.last.status == "completed")
            assert_ledger(peer, seen=10, hard=0)
            assert second.stop() == 0


def test_a_second_process_that_waits_stops_when_told(tmp_path: Path, broker: Mosquitto) -> None:
    with StateLock(tmp_path / "state", worker="worker-a") as lock, LcPeer(broker.url) as peer:
        lock.take(on_wait=lambda _: None)
        with running(Worker(broker.url, tmp_path / "state")) as second:
            peer.wait(lambda: "another worker holds" in second.log())
            assert second.stop() == 0
        assert peer.infos == []


def test_a_state_folder_that_cannot_be_used_says_so(tmp_path: Path, broker: Mosquitto) -> None:
    (tmp_path / "file").write_text("")
    with running(Worker(broker.url, tmp_path / "file" / "state", log=tmp_path / "log")) as worker:
        assert worker.process is not None
        assert worker.process.wait(EXIT_S) == 2
        assert "the state folder cannot be used" in worker.log()
        assert "Traceback" not in worker.log()


def test_a_script_of_25_lines_is_enough(tmp_path: Path, broker: Mosquitto, model: Path) -> None:
    scripts = Path(__file__).parents[2] / "examples" / "scripts"
    assert len((scripts / "edge.py").read_text().splitlines()) <= 25
    out = tmp_path / "answers.sqlite"
    task = classify(
        tmp_path, model, [EASY, HARD, EASY, HARD], script_dir=str(scripts), script_boot_file="edge.py",
        parameters={"out": str(out)},
    )  # fmt: skip
    with LcPeer(broker.url, task=task) as peer, running(Worker(broker.url, tmp_path / "state")):
        peer.wait_status("completed")
        with sqlite3.connect(out) as db:
            rows = dict(db.execute("SELECT key, label FROM answers").fetchall())
        assert rows == {
            "images/00000.png": "dark", "images/00001.png": "cloud", "images/00002.png": "dark",
            "images/00003.png": "cloud",
        }  # fmt: skip


def script(tmp_path: Path, text: str) -> dict[str, object]:
    (tmp_path / "script").mkdir(exist_ok=True)
    (tmp_path / "script" / "edge.py").write_text(text)
    return {"script_dir": str(tmp_path / "script"), "script_boot_file": "edge.py"}


def test_a_camera_that_cannot_be_opened_is_named(tmp_path: Path, broker: Mosquitto, model: Path) -> None:
    text = "from nereid_worker import camera\ncamera('/nowhere/camera')\n"
    task = classify(tmp_path, model, [EASY], **script(tmp_path, text))
    with LcPeer(broker.url, task=task) as peer, running(Worker(broker.url, tmp_path / "state")):
        info = peer.wait_status("failed", reason="CameraUnavailable")
    assert info.message.startswith("camera /nowhere/camera: it cannot be opened")


def test_a_script_that_fails_says_how(tmp_path: Path, broker: Mosquitto, model: Path) -> None:
    text = """
from nereid_worker import JointInference
for answer in JointInference.from_task().stream():
    if answer.index == 2:
        raise RuntimeError("no more of this")
"""
    task = classify(tmp_path, model, [EASY] * 5, **script(tmp_path, text))
    with LcPeer(broker.url, task=task) as peer, running(Worker(broker.url, tmp_path / "state")) as worker:
        info = peer.wait_status("failed", reason="ScriptFailed")
        assert info.message == "RuntimeError: no more of this"
        assert worker.process is not None
        assert worker.process.wait(EXIT_S) == 1
        peer.wait(lambda: peer.last.ledger and peer.last.ledger.seen == 3)
        assert peer.last.status == "failed"
    with LcPeer(broker.url, task=task) as peer, running(Worker(broker.url, tmp_path / "state")):
        peer.wait_status("completed")
        assert_ledger(peer, seen=5, hard=0)


def test_what_is_added_while_a_script_ends_is_read_too(tmp_path: Path, broker: Mosquitto, model: Path) -> None:
    # Its time is set back, as it would be by a copy: a change within the last ticks is looked at again in any case.
    text = f"""
import os
from pathlib import Path
from nereid_worker import JointInference
for answer in JointInference.from_task().stream():
    pass
index = Path({str(tmp_path / "data" / "index.csv")!r})
if len(index.read_text().splitlines()) == 3:
    with index.open("a") as file:
        file.write("images/00000.png\\n")
    os.utime(index, (1, 1))
"""
    task = classify(tmp_path, model, [EASY] * 2, **script(tmp_path, text))
    with LcPeer(broker.url, task=task) as peer, running(Worker(broker.url, tmp_path / "state")):
        peer.wait(lambda: peer.infos and peer.last.ledger and peer.last.ledger.seen == 3)
        peer.wait_status("completed")
        assert_ledger(peer, seen=3, hard=0)


@pytest.mark.parametrize("own", [False, True])
def test_it_is_completed_when_the_last_answer_is_in(tmp_path: Path, broker: Mosquitto, model: Path, own: bool) -> None:
    text = "from nereid_worker import JointInference\nfor answer in JointInference.from_task().stream():\n    pass\n"
    more = script(tmp_path, text) if own else {}
    task = classify(tmp_path, model, [EASY, HARD], deadline_s=60.0, **more)
    with LcPeer(broker.url, task=task, behaviour=never) as peer, running(Worker(broker.url, tmp_path / "state")):
        for hard in (1, 2):
            peer.wait(lambda: peer.infos and peer.last.ledger and peer.last.ledger.hard == hard)  # noqa: B023 - within
            heard = len(peer.infos)
            peer.wait(lambda: len(peer.infos) > heard)  # noqa: B023 - within the turn
            assert peer.last.status == "running"
            peer.send(answer_to(peer.samples[-1]))
            assert peer.wait_status("completed").ledger is not None
            with (tmp_path / "data" / "index.csv").open("a") as index:
                index.write("images/00001.png\n")


@pytest.mark.parametrize("wait", ["time.sleep(3600)", "service.infer(FRAME)"])
def test_a_script_that_is_busy_elsewhere_still_stops(tmp_path: Path, broker: Mosquitto, model: Path, wait: str) -> None:
    text = f"""
import pathlib, time
from nereid_worker import JointInference

service = JointInference.from_task()
FRAME = pathlib.Path({str(tmp_path / "data/images/00000.png")!r}).read_bytes()
service.infer(FRAME)
while True:
    {wait}
"""
    task = classify(tmp_path, model, [EASY], **script(tmp_path, text))
    with LcPeer(broker.url, task=task, behaviour=never) as peer:
        with running(Worker(broker.url, tmp_path / "state")) as worker:
            peer.wait(lambda: peer.infos and peer.last.ledger and peer.last.ledger.seen > 0)
            assert worker.stop() == 0
        peer.wait_status("offline")


def test_without_the_extra_it_says_what_to_install(tmp_path: Path, broker: Mosquitto, model: Path) -> None:
    # A folder whose numpy cannot be found stands for an installation without the extra.
    blocked = tmp_path / "blocked"
    (blocked / "numpy").mkdir(parents=True)
    (blocked / "numpy" / "__init__.py").write_text("raise ModuleNotFoundError('No module named numpy', name='numpy')")
    task = classify(tmp_path, model, [EASY])
    worker = Worker(broker.url, tmp_path / "state", env={"PYTHONPATH": str(blocked)})
    with LcPeer(broker.url, task=task) as peer, running(worker):
        info = peer.wait_status("failed", reason="ExtraMissing")
        assert "pip install 'nereid-ai[worker]'" in info.message
        assert worker.stop() == 0


def test_answers_that_come_twice_are_given_once(tmp_path: Path, broker: Mosquitto, model: Path) -> None:
    def twice(sample: Sample) -> Iterator[tuple[float, Result]]:
        yield 0.0, answer_to(sample)
        yield 0.0, answer_to(sample)
        yield 0.05, answer_to(sample)

    task = classify(tmp_path, model, [HARD, EASY] * 10)
    with LcPeer(broker.url, task=task, behaviour=twice) as peer, running(Worker(broker.url, tmp_path / "state")) as w:
        peer.wait_status("completed")
        peer.behaviour = at_once
        with (tmp_path / "data" / "index.csv").open("a") as index:
            index.write("images/00000.png\n")
        peer.wait(lambda: peer.last.ledger and peer.last.ledger.hard == 11)
        peer.wait_status("completed")
        events = [e["event"] for e in w.answers()]
        assert (events.count("answer"), events.count("correction")) == (11, 0)
