# SPDX-License-Identifier: Apache-2.0
import asyncio
import hashlib
import json
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from msgspec import structs
from tests import tiny_models
from tests.conftest import MosquittoFactory
from tests.mosquitto import Mosquitto
from tests.shared.storage.file_server import serving

from nereid_shared import topics
from nereid_shared.errors import BadSample, SubscribeRefused, UserError
from nereid_shared.link import Link, LinkSettings, Message
from nereid_shared.messages import Task, TaskModel, WorkerInfo
from nereid_shared.samples import Counts, Result, Sample
from nereid_worker.batches import QUICK_AFTER, QUICK_S
from nereid_worker.cloud import CloudWorker
from nereid_worker.cloud_answers import Predict

Start = Callable[[Task, Mosquitto], Awaitable[asyncio.subprocess.Process]]

SERVICE, NODE, WAIT_S = "helmet-01234567", "edge-0", 90.0


def png(value: int) -> bytes:
    done, data = cv2.imencode(".png", np.full((8, 8), value, np.uint8))
    assert done
    return bytes(data)


def sample(seq: int, payload: bytes = b"", *, stream: str = "s1", **more: Any) -> Sample:
    payload = payload or png(255)
    fields: dict[str, Any] = {
        "stream": stream, "seq": seq, "digest": hashlib.sha256(payload).digest(), "key": f"{seq}.png",
        "captured_at": 1.0, "remaining_ms": 900, "label": "dark", "score": 0.5, "payload": payload,
        "counts": Counts(seen=seq, easy=0, hard=seq, failed=0), "encoding": "png",
    }  # fmt: skip
    return Sample(**(fields | more))


def model_in(folder: Path, *, card: bool = True) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / "big.tflite"
    file.write_bytes(tiny_models.brightness())
    if card:
        write_card(folder)
    return file


def write_card(folder: Path) -> None:
    body = {
        "schema": "nereid.io/model-card/v1", "name": "brightness", "version": "1", "task": "classification",
        "input": {
            "layout": "NHWC", "colorOrder": "GRAY", "resize": "stretch", "interpolation": "linear",
            "normalization": {"unit": "unit", "mean": [0], "std": [1]},
        },
        "output": {"kind": "logits", "labels": ["dark", "bright"]},
    }  # fmt: skip
    made = folder / "model.json.new"
    made.write_text(json.dumps(body))
    made.rename(folder / "model.json")


def task_for(model: Path, **more: Any) -> Task:
    fields: dict[str, Any] = {
        "uid": "u", "service": SERVICE, "role": "cloud", "namespace": "default", "name": "helmet", "generation": 1,
        "hash": "h", "model": TaskModel(name="big", url=str(model), format="tflite"), "nodes": [NODE, "edge-1"],
        "group": "secret",
    }  # fmt: skip
    return Task(**(fields | more))


class Edge:
    """What stands for the LCs: sends samples and sees results and infos."""

    def __init__(self, url: str) -> None:
        self.results: list[tuple[str, Result]] = []
        self.infos: list[WorkerInfo] = []
        self._news = asyncio.Condition()
        self.link = Link(
            LinkSettings.from_url(url, client_id="edge"),
            subscriptions={
                topics.RESULTS.filter(service=SERVICE): self._on_result,
                topics.CLOUD_INFO.filter(service=SERVICE): self._on_info,
            },
        )

    async def send(self, one: Sample | bytes, *, node: str = NODE) -> int:
        body = one if isinstance(one, bytes) else one.encode()
        return await self.link.publish(topics.SAMPLES.of(service=SERVICE, node=node), body)

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S), self._news:
            await self._news.wait_for(true)

    async def until_results(self, count: int) -> None:
        await self.until(lambda: len(self.results) == count)

    async def until_running(self) -> None:
        await self.until(lambda: any(info.status == "running" for info in self.infos))

    async def _on_result(self, message: Message) -> None:
        levels = topics.RESULTS.match(message.topic)
        assert levels is not None
        async with self._news:
            self.results.append((levels["node"], Result.decode(message.payload, max_bytes=1 << 20)))
            self._news.notify_all()

    async def _on_info(self, message: Message) -> None:
        async with self._news:
            self.infos.append(WorkerInfo.decode(message.payload, max_bytes=1 << 20))
            self._news.notify_all()


@asynccontextmanager
async def edge_at(broker: Mosquitto) -> AsyncIterator[Edge]:
    edge = Edge(broker.url)
    async with edge.link:
        await edge.link.wait_connected()
        yield edge


@asynccontextmanager
async def worker_of(
    task: Task, broker: Mosquitto, predict: Predict | None = None, *, worker: str = "cloud-1"
) -> AsyncIterator[CloudWorker]:
    settings = LinkSettings.from_url(broker.url, client_id=worker, receive_max=16)
    cloud = CloudWorker(task, settings, worker=worker, info_every_s=0.1)
    async with asyncio.TaskGroup() as group:
        group.create_task(cloud.run(predict))
        yield cloud
        cloud.stop()


async def test_a_sample_is_answered_with_its_identity_and_the_model_s_digest(broker: Mosquitto, tmp_path: Path) -> None:
    model = model_in(tmp_path / "m")
    async with edge_at(broker) as edge, worker_of(task_for(model), broker):
        await edge.until_running()
        sent = sample(7)
        assert await edge.send(sent) == 0
        await edge.until(lambda: bool(edge.results))
        node, result = edge.results[0]
    assert node == NODE
    assert (result.stream, result.seq, result.digest, result.key) == ("s1", 7, sent.digest, "7.png")
    assert (result.label, result.error, result.batch) == ("bright", "", 1)
    assert result.score == pytest.approx(0.99966, abs=1e-4)
    assert [name for name, _ in result.scores] == ["bright", "dark"]
    assert result.model == hashlib.sha256(model.read_bytes()).hexdigest()


async def test_an_undecodable_sample_is_answered_with_its_error_and_spoils_no_other(
    broker: Mosquitto, tmp_path: Path
) -> None:
    async with edge_at(broker) as edge, worker_of(task_for(model_in(tmp_path / "m")), broker) as cloud:
        await edge.until_running()
        wrong_digest = sample(3, digest=bytes(32))
        bad_raw = sample(4, b"x" * 10, encoding="raw", shape=(4, 4, 1), dtype="uint8")
        objects = sample(5, b"x" * 16, encoding="raw", shape=(2,), dtype="object")
        for one in (sample(1, b"not a picture"), sample(2), wrong_digest, bad_raw, objects):
            await edge.send(one)
        await edge.until(lambda: len(edge.results) == 5)
        assert cloud.undecodable == 4
        assert cloud.processed == 1
    answers = {result.seq: (result.label, result.error) for _, result in edge.results}
    bad = ("", "undecodable")
    assert answers == {1: bad, 2: ("bright", ""), 3: bad, 4: bad, 5: bad}


async def test_raw_pixels_are_answered(broker: Mosquitto, tmp_path: Path) -> None:
    async with edge_at(broker) as edge, worker_of(task_for(model_in(tmp_path / "m")), broker):
        await edge.until_running()
        await edge.send(sample(1, bytes(16 * 12 * 3), encoding="raw", shape=(16, 12, 3), dtype="uint8"))
        await edge.until(lambda: bool(edge.results))
    assert edge.results[0][1].label == "dark"


async def test_what_is_no_sample_at_all_is_counted_and_the_next_one_answered(broker: Mosquitto, tmp_path: Path) -> None:
    async with edge_at(broker) as edge, worker_of(task_for(model_in(tmp_path / "m")), broker) as cloud:
        await edge.until_running()
        await edge.send(b"\xc1 no msgpack")
        await edge.send(sample(1))
        await edge.until(lambda: bool(edge.results))
        assert cloud.undecodable == 1
        await edge.until(lambda: edge.infos[-1].undecodable == 1 and edge.infos[-1].processed == 1)


async def test_a_node_outside_the_service_is_refused_and_counted(broker: Mosquitto, tmp_path: Path) -> None:
    async with edge_at(broker) as edge, worker_of(task_for(model_in(tmp_path / "m")), broker) as cloud:
        await edge.until_running()
        await edge.send(sample(1), node="stranger")
        await edge.send(sample(1), node="edge-1")
        await edge.until(lambda: bool(edge.results))
        assert [node for node, _ in edge.results] == ["edge-1"]
        assert cloud.refused == 1
        await edge.until(lambda: edge.infos[-1].refused == 1)


async def test_a_sample_that_comes_again_gets_the_same_answer_without_the_model(
    broker: Mosquitto, tmp_path: Path
) -> None:
    async with edge_at(broker) as edge, worker_of(task_for(model_in(tmp_path / "m")), broker) as cloud:
        await edge.until_running()
        await edge.send(sample(1))
        await edge.until(lambda: len(edge.results) == 1)
        await edge.send(sample(1))
        await edge.until(lambda: len(edge.results) == 2)
        await edge.send(sample(1, stream="s2"))
        await edge.until(lambda: len(edge.results) == 3)
        assert (cloud.processed, cloud.repeated) == (2, 1)
    assert edge.results[0] == edge.results[1]


class Gate:
    """A predict that holds its first batch until the test opens it."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.entered, self.open = threading.Event(), threading.Event()

    def __call__(self, frames: list[Any]) -> list[tuple[str, float]]:
        self.batches.append(len(frames))
        self.entered.set()
        assert self.open.wait(WAIT_S)
        return [("bright", 0.9)] * len(frames)


async def waiting(cloud: CloudWorker, samples: int, *, repeated: int = 0) -> None:
    """Return when so many samples wait for the model that is busy."""
    async with asyncio.timeout(WAIT_S):
        while len(cloud._batches) < samples or cloud.repeated < repeated:
            await asyncio.sleep(0.005)


async def test_a_busy_model_finds_a_batch_when_it_is_free(broker: Mosquitto, tmp_path: Path) -> None:
    gate = Gate()
    task = task_for(tmp_path / "none", max_batch=4)
    async with edge_at(broker) as edge, worker_of(task, broker, gate) as cloud:
        await edge.until_running()
        await edge.send(sample(1))
        assert await asyncio.to_thread(gate.entered.wait, WAIT_S)
        for seq in range(2, 8):
            await edge.send(sample(seq))
        await edge.send(sample(2))
        await waiting(cloud, 6, repeated=1)
        gate.open.set()
        await edge.until(lambda: len(edge.results) == 7)
        assert cloud.repeated == 1
    assert gate.batches == [1, 4, 2]
    assert [result.seq for _, result in edge.results] == [1, 2, 3, 4, 5, 6, 7]


async def test_a_full_worker_holds_the_broker_back_and_loses_nothing(broker: Mosquitto, tmp_path: Path) -> None:
    gate = Gate()
    async with edge_at(broker) as edge, worker_of(task_for(tmp_path / "none"), broker, gate) as cloud:
        await edge.until_running()
        for seq in range(1, 101):
            await edge.send(sample(seq))
        assert await asyncio.to_thread(gate.entered.wait, WAIT_S)
        assert len(cloud._batches) <= 16
        gate.open.set()
        await edge.until(lambda: len(edge.results) == 100)
    assert [result.seq for _, result in edge.results] == list(range(1, 101))


async def test_a_stopped_worker_answers_what_it_has_and_says_goodbye(broker: Mosquitto, tmp_path: Path) -> None:
    gate = Gate()
    async with edge_at(broker) as edge:
        async with worker_of(task_for(tmp_path / "none"), broker, gate) as cloud:
            await edge.until_running()
            for seq in range(1, 6):
                await edge.send(sample(seq))
            assert await asyncio.to_thread(gate.entered.wait, WAIT_S)
            cloud.stop()
            async with asyncio.timeout(WAIT_S):
                while await edge.send(sample(9)) != 0x10:
                    pass  # its model is busy still; the next samples are for others
            gate.open.set()
        await edge.until(lambda: edge.infos[-1].status == "offline")
    assert {result.seq for _, result in edge.results} >= {1, 2, 3, 4, 5}


async def test_a_worker_that_is_stopped_while_its_model_comes_ends_the_download(
    broker: Mosquitto, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving() as server:
        server.stalls, server.cut_after = 1, 10
        coming = structs.replace(task_for(tmp_path), model=TaskModel(name="big", url=server.url, format="tflite"))
        async with edge_at(broker) as edge:
            async with worker_of(coming, broker) as cloud:
                assert await asyncio.to_thread(server.stalled.wait, WAIT_S)
                cloud.stop()
            await edge.until(lambda: edge.infos[-1].status == "offline")
        assert not server.go_on.is_set()
    assert "samples left unanswered" not in caplog.text


async def test_a_worker_tells_of_its_model(broker: Mosquitto, tmp_path: Path) -> None:
    file = tmp_path / "m" / "big.tflite"
    async with edge_at(broker) as edge, worker_of(task_for(file), broker):
        await edge.until(lambda: any(info.status == "failed" for info in edge.infos))
        (failed,) = edge.infos[-1].models
        assert (failed.name, failed.url, failed.status, failed.reason) == ("big", str(file), "failed", "ModelMissing")
        model_in(tmp_path / "m")
        await edge.until_running()
        (ready,) = edge.infos[-1].models
    assert (ready.status, ready.reason, ready.bytes) == ("ready", "NoGoldenSamples", file.stat().st_size)
    assert ready.digest == hashlib.sha256(file.read_bytes()).hexdigest()


async def test_a_predict_that_raises_costs_only_the_sample_that_it_cannot_take(
    broker: Mosquitto, tmp_path: Path
) -> None:
    def predict(frames: list[Any]) -> list[Any]:
        if any(frame == png(13) for frame in frames):
            raise ZeroDivisionError
        return [("ok", 2.0) if frame == png(14) else BadSample("", reason="odd") if frame == png(15) else ("ok", 0.5)
                for frame in frames]  # fmt: skip

    async with edge_at(broker) as edge, worker_of(task_for(tmp_path / "none"), broker, predict) as cloud:
        await edge.until_running()
        for seq in range(12, 17):
            await edge.send(sample(seq, png(seq)))
        await edge.until(lambda: len(edge.results) == 5)
        assert (cloud.processed, cloud.failed, cloud.undecodable) == (2, 3, 0)
    assert {result.seq: result.error for _, result in edge.results} == {
        12: "", 13: "predict-failed", 14: "malformed-scores", 15: "odd", 16: "",
    }  # fmt: skip


async def test_a_sample_at_which_predict_raised_is_predicted_again(broker: Mosquitto, tmp_path: Path) -> None:
    tries: list[int] = []

    def predict(frames: list[Any]) -> list[tuple[str, float]]:
        tries.append(len(frames))
        if len(tries) == 1:
            raise TimeoutError
        return [("ok", 0.5)] * len(frames)

    async with edge_at(broker) as edge, worker_of(task_for(tmp_path / "none"), broker, predict):
        await edge.until_running()
        for count in range(1, 4):
            await edge.send(sample(1))
            await edge.until_results(count)
    assert [result.error for _, result in edge.results] == ["predict-failed", "", ""]
    assert tries == [1, 1]


async def test_a_refusal_without_a_reason_is_no_answer(broker: Mosquitto, tmp_path: Path) -> None:
    def predict(frames: list[Any]) -> list[BadSample]:
        return [BadSample("", reason="") for _ in frames]

    async with edge_at(broker) as edge, worker_of(task_for(tmp_path / "none"), broker, predict):
        await edge.until_running()
        await edge.send(sample(1))
        await edge.until(lambda: bool(edge.results))
    assert edge.results[0][1].error == "refused"


async def test_an_answer_that_is_too_large_spoils_no_other_of_its_batch(
    mosquitto: MosquittoFactory, tmp_path: Path
) -> None:
    gate = Gate()

    def predict(frames: list[Any]) -> list[tuple[str, float]]:
        gate(frames)
        return [("x" * 5000 if frame == png(2) else "ok", 0.5) for frame in frames]

    broker = mosquitto(max_packet_size=4000)
    async with edge_at(broker) as edge, worker_of(task_for(tmp_path / "none", max_batch=4), broker, predict) as cloud:
        await edge.until_running()
        await edge.send(sample(1))
        assert await asyncio.to_thread(gate.entered.wait, WAIT_S)
        for seq in (2, 3):
            await edge.send(sample(seq, png(seq)))
        await waiting(cloud, 2)
        gate.open.set()
        await edge.until_results(2)
        assert not cloud._waiting
    assert gate.batches == [1, 2]
    assert [result.seq for _, result in edge.results] == [1, 3]


async def test_a_refused_subscription_is_reported_and_ends_the_worker(broker: Mosquitto, tmp_path: Path) -> None:
    # No broker takes a wildcard in the name of a share group (MQTT 5, section 4.8.2).
    task = task_for(model_in(tmp_path / "m"), group="g+")
    async with edge_at(broker) as edge:
        cloud = CloudWorker(task, LinkSettings.from_url(broker.url, client_id="c"), worker="cloud-1")
        with pytest.raises(SubscribeRefused):
            async with asyncio.timeout(WAIT_S):
                await cloud.run()
        await edge.until(lambda: bool(edge.infos) and edge.infos[-1].status == "failed")
    assert edge.infos[-1].reason == "SubscribeRefused"


async def test_two_workers_share_the_samples(broker: Mosquitto, tmp_path: Path) -> None:
    task = task_for(model_in(tmp_path / "m"))
    async with (
        edge_at(broker) as edge,
        worker_of(task, broker, worker="cloud-1") as one,
        worker_of(task, broker, worker="cloud-2") as two,
    ):
        await edge.until(
            lambda: {info.name for info in edge.infos if info.status == "running"} == {"cloud-1", "cloud-2"}
        )
        for seq in range(1, 21):
            await edge.send(sample(seq))
        await edge.until(lambda: len(edge.results) == 20)
        assert one.processed + two.processed == 20
        assert min(one.processed, two.processed) > 0


async def test_a_missing_card_is_reported_and_heals(broker: Mosquitto, tmp_path: Path) -> None:
    model = model_in(tmp_path / "m", card=False)
    async with edge_at(broker) as edge, worker_of(task_for(model), broker):
        await edge.until(lambda: bool(edge.infos) and edge.infos[-1].reason == "CardMissing")
        assert edge.infos[-1].status == "failed"
        assert "model.json" in edge.infos[-1].message
        assert await edge.send(sample(1)) == 0x10  # nobody subscribes before there is a model
        write_card(tmp_path / "m")
        await edge.until_running()
        await edge.send(sample(2))
        await edge.until(lambda: bool(edge.results))


async def test_it_goes_on_after_the_broker_was_killed(broker: Mosquitto, tmp_path: Path) -> None:
    async with edge_at(broker) as edge, worker_of(task_for(model_in(tmp_path / "m")), broker):
        await edge.until_running()
        await edge.send(sample(1))
        await edge.until(lambda: len(edge.results) == 1)
        before = edge.link.connections
        broker.kill()
        broker.start()
        await edge.link.wait_connected(after=before)
        edge.infos.clear()
        await edge.until_running()
        await edge.send(sample(2))
        await edge.until(lambda: len(edge.results) == 2)


@pytest.fixture
async def process() -> AsyncIterator[Start]:
    """Starts cloud workers as processes; what still runs at the end is killed."""
    program = (
        "import asyncio, sys; from nereid_shared import logs; from nereid_shared.messages import Task;"
        "from nereid_worker.cloud import run_cloud; logs.configure(json=False);"
        "asyncio.run(run_cloud(Task.decode(sys.argv[1].encode(), max_bytes=1 << 20), broker_url=sys.argv[2],"
        " worker='cloud-1'))"
    )
    started: list[asyncio.subprocess.Process] = []

    async def start(task: Task, broker: Mosquitto) -> asyncio.subprocess.Process:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, task.encode().decode(), broker.url, stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        started.append(child)
        return child

    yield start
    for child in started:
        if child.returncode is None:
            child.kill()
        _, said = await child.communicate()
        sys.stderr.write(said.decode())


async def test_a_script_answers_with_a_model_of_its_own_and_ends_on_sigterm(
    broker: Mosquitto, tmp_path: Path, process: Start
) -> None:
    (tmp_path / "cloud.py").write_text(
        "from beside import SCORE\n"
        "from nereid_worker import CloudWorker\n"
        "worker = CloudWorker.from_task()\n"
        "worker.serve(lambda frames: [(worker.parameters['say'], SCORE) for frame in frames])\n"
    )
    (tmp_path / "beside.py").write_text("SCORE = 0.25\n")
    task = task_for(
        tmp_path / "none", script_dir=str(tmp_path), script_boot_file="cloud.py", parameters={"say": "hello"}
    )
    async with edge_at(broker) as edge:
        child = await process(task, broker)
        await edge.until_running()
        await edge.send(sample(1))
        await edge.until(lambda: bool(edge.results))
        child.send_signal(signal.SIGTERM)
        async with asyncio.timeout(WAIT_S):
            assert await child.wait() == 0
        await edge.until(lambda: edge.infos[-1].status == "offline")
    assert (edge.results[0][1].label, edge.results[0][1].score) == ("hello", 0.25)
    assert edge.results[0][1].model == "big"


@pytest.mark.parametrize("given", ["", ", model='mine'"])
async def test_the_answers_of_a_script_name_the_task_s_model_or_its_own(
    broker: Mosquitto, tmp_path: Path, process: Start, given: str
) -> None:
    (tmp_path / "cloud.py").write_text(
        "from nereid_worker import CloudWorker\n"
        f"CloudWorker.from_task().serve(lambda frames: [('hello', 0.5) for frame in frames]{given})\n"
    )
    file = model_in(tmp_path / "model")
    async with edge_at(broker) as edge:
        child = await process(task_for(file, script_dir=str(tmp_path), script_boot_file="cloud.py"), broker)
        await edge.until_running()
        await edge.send(sample(1))
        await edge.until(lambda: bool(edge.results))
        child.terminate()
        async with asyncio.timeout(WAIT_S):
            await child.wait()
    assert edge.results[0][1].model == ("mine" if given else hashlib.sha256(file.read_bytes()).hexdigest())


async def test_a_killed_worker_is_offline_by_its_will(broker: Mosquitto, tmp_path: Path, process: Start) -> None:
    async with edge_at(broker) as edge:
        child = await process(task_for(model_in(tmp_path / "m")), broker)
        await edge.until_running()
        child.kill()
        await child.wait()
        await edge.until(lambda: edge.infos[-1].status == "offline")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("1 / 0", "ScriptFailed"),
        ("pass", "ScriptEnded"),
        ("from nereid_worker import CloudWorker\nCloudWorker.from_task().classifier", "ModelMissing"),
    ],
)
async def test_a_script_that_fails_or_ends_is_reported(
    broker: Mosquitto, tmp_path: Path, process: Start, script: str, reason: str
) -> None:
    (tmp_path / "cloud.py").write_text(script)
    task = task_for(tmp_path / "none", script_dir=str(tmp_path), script_boot_file="cloud.py")
    async with edge_at(broker) as edge:
        child = await process(task, broker)
        async with asyncio.timeout(WAIT_S):
            _, errors = await child.communicate()
        assert child.returncode != 0
        assert (b"cloud.py" if reason.startswith("Script") else b"there is no such model file") in errors
        await edge.until(lambda: edge.infos[-1].status == "failed")
    assert edge.infos[-1].reason == reason


async def test_a_missing_script_is_named_and_waited_for(broker: Mosquitto, tmp_path: Path) -> None:
    task = task_for(model_in(tmp_path / "m"), script_dir=str(tmp_path), script_boot_file="absent.py")
    async with edge_at(broker) as edge, worker_of(task, broker):
        await edge.until(lambda: bool(edge.infos) and edge.infos[-1].reason == "ScriptNotFound")
        info = edge.infos[-1]
        assert (info.status, info.message) == (
            "failed",
            f"{tmp_path}/absent.py: there is no such file on this node. Copy the script there.",
        )


async def test_a_worker_whose_script_came_late_runs_it(broker: Mosquitto, tmp_path: Path, process: Start) -> None:
    task = task_for(model_in(tmp_path / "m"), script_dir=str(tmp_path), script_boot_file="late.py")
    async with edge_at(broker) as edge:
        child = await process(task, broker)
        await edge.until(lambda: bool(edge.infos) and edge.infos[-1].reason == "ScriptNotFound")
        (tmp_path / "late.py").write_text("from nereid_worker import CloudWorker\nCloudWorker.from_task().serve()\n")
        await edge.until_running()
        child.terminate()
        async with asyncio.timeout(WAIT_S):
            assert await child.wait() == 0


def test_an_edge_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not that of a cloud worker"):
        CloudWorker(
            task_for(tmp_path, role="edge"),
            LinkSettings.from_url("mqtt://127.0.0.1:1", client_id="c"),
            worker="w",
        )


async def test_a_quick_model_answers_lone_samples_in_the_links_thread_until_it_is_slow(
    tmp_path: Path, broker: Mosquitto
) -> None:
    threads: list[str] = []
    one_at_a_time, slow = threading.Lock(), png(7)

    def predict(frames: list[Any]) -> list[tuple[str, float]]:
        assert one_at_a_time.acquire(blocking=False)
        threads.append(threading.current_thread().name)
        if frames == [slow]:
            threading.Event().wait(2 * QUICK_S)
        one_at_a_time.release()
        return [("bright", 0.9)] * len(frames)

    async with edge_at(broker) as edge, worker_of(task_for(model_in(tmp_path)), broker, predict):
        await edge.until_running()
        seq = 0
        while threads.count("MainThread") < 3 and seq < 500:
            seq += 1
            await edge.send(sample(seq))
            await edge.until_results(seq)
        assert set(threads[:QUICK_AFTER]) == {"model"}
        assert "MainThread" in threads
        await edge.send(sample(seq + 1, slow))
        await edge.until_results(seq + 1)
        await edge.send(sample(seq + 2))
        await edge.until_results(seq + 2)
        assert threads[-1] == "model"
