# SPDX-License-Identifier: Apache-2.0
"""The serving worker as its Pod runs it: a process with an environment, a broker, and signals."""

import asyncio
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from tests.mosquitto import Mosquitto, free_port
from tests.worker.serving.http import get, post
from tests.worker.serving.served import MODEL, WAIT_S, model_in, task_of, version_of

from nereid_shared import topics
from nereid_shared.link import Link, LinkSettings, Message
from nereid_shared.messages import ServedVersion, ServingTask, WorkerInfo

POD = "isv-edge-0"
BODY = {"inputs": [{"name": "t0", "shape": [1, 8, 8, 1], "datatype": "FP32", "data": [0.0] * 64}]}


@asynccontextmanager
async def process(port: int, **env: str) -> AsyncIterator[asyncio.subprocess.Process]:
    given = {"NEREID_ROLE": "serving", "NEREID_WORKER": POD, "NEREID_PORT": str(port), "NEREID_LISTEN": "127.0.0.1"}
    made = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "nereid_worker", env={**os.environ, **given, **env},
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield made
    finally:
        if made.returncode is None:
            made.kill()
        await made.wait()


class Lc:
    """What stands for the LocalController: gives tasks, and sees what the worker says."""

    def __init__(self, url: str) -> None:
        self.infos: list[WorkerInfo] = []
        self._news = asyncio.Condition()
        self._info = topics.WORKER_INFO.of(worker=POD)
        self.link = Link(
            LinkSettings.from_url(url, client_id="lc"),
            subscriptions={self._info: self._take, topics.CLOUD_INFO.filter(): self._take},
        )

    async def give(self, task: ServingTask) -> None:
        await self.link.publish(topics.TASK.of(worker=POD), task.encode(), retain=True)

    async def until(self, true: Callable[[WorkerInfo], bool]) -> WorkerInfo:
        async with asyncio.timeout(WAIT_S), self._news:
            await self._news.wait_for(lambda: any(map(true, self.infos)))
        return next(filter(true, self.infos))

    async def _take(self, message: Message) -> None:
        async with self._news:
            self.infos.append(WorkerInfo.decode(message.payload, max_bytes=1 << 20))
            self._news.notify_all()


@asynccontextmanager
async def lc_at(broker: Mosquitto) -> AsyncIterator[Lc]:
    lc = Lc(broker.url)
    async with lc.link:
        await lc.link.wait_connected()
        yield lc


async def test_on_a_node_the_task_comes_by_the_broker_and_the_next_one_changes_it_in_place(
    broker: Mosquitto, tmp_path: Path
) -> None:
    files = {n: version_of(model_in(tmp_path / n, shift=float(n), golden=1.0), n) for n in ("1", "2")}
    address = f"http://127.0.0.1:{(port := free_port())}"
    node = {"NEREID_NODE": "edge-0", "NEREID_BROKER": broker.url, "NEREID_STATE": str(tmp_path / "state")}
    async with lc_at(broker) as lc, process(port, **node) as worker:
        assert (await lc.until(lambda info: True)).reason == "WaitingForTask"
        await lc.give(task_of(files["1"]))
        running = await lc.until(lambda info: info.status == "running")
        assert (running.kind, running.serving_version, running.node) == ("serving", "1", "edge-0")
        assert running.task_hash == task_of(files["1"]).hash
        assert (running.models[0].version, running.models[0].status) == ("1", "ready")
        status, said = await post(f"{address}/v2/models/{MODEL}/infer", BODY)
        assert (status, said["outputs"][0]["data"]) == (200, [0.0, 1.0])
        # Version 2 gives 2.0 where its card promises 1.0.
        await lc.give(task_of(files["2"]))
        failed = await lc.until(lambda info: info.reason == "GoldenMismatch")
        assert (failed.status, failed.serving_version) == ("running", "1")
        assert (await post(f"{address}/v1/models/{MODEL}:predict", {"instances": [[[[0.0]] * 8] * 8]}))[0] == 200
        model_in(tmp_path / "2", shift=2.0, golden=2.0)
        await lc.give(task_of(files["2"], max_batch=4))
        healed = await lc.until(lambda info: info.serving_version == "2")
        assert (healed.status, healed.boot) == ("running", running.boot)
        assert (await post(f"{address}/v2/models/{MODEL}/infer", BODY))[1]["model_version"] == "2"
        assert worker.returncode is None
        worker.send_signal(signal.SIGTERM)
        assert await worker.wait() == 0
        await lc.until(lambda info: info.status == "offline" and info.reason == "Stopped")


async def test_a_killed_worker_is_offline(broker: Mosquitto, tmp_path: Path) -> None:
    node = {"NEREID_NODE": "edge-0", "NEREID_BROKER": broker.url, "NEREID_STATE": str(tmp_path)}
    async with lc_at(broker) as lc, process(free_port(), **node) as worker:
        boot = (await lc.until(lambda info: True)).boot
        worker.kill()
        assert (await lc.until(lambda info: info.status == "offline")).boot == boot


async def test_in_the_cloud_the_task_is_in_the_environment_and_a_broker_is_no_need(tmp_path: Path) -> None:
    task = task_of(version_of(model_in(tmp_path), "4"))
    port = free_port()
    async with process(port, NEREID_TASK=task.encode().decode()) as worker:
        curl = await asyncio.create_subprocess_exec(
            "curl", "--silent", "--retry", "100", "--retry-connrefused", "--retry-delay", "0", "--retry-max-time", "30",
            "--data", json.dumps(BODY), f"http://127.0.0.1:{port}/v2/models/{MODEL}/infer",
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        said, _ = await curl.communicate()
        assert json.loads(said)["model_version"] == "4"
        soft, hard = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
        assert soft == hard or soft >= 65_536  # a connection each
        assert (await get(f"http://127.0.0.1:{port}/v2/health/ready"))[0] == 200
        worker.send_signal(signal.SIGTERM)
        assert await worker.wait() == 0


async def test_in_the_cloud_a_broker_hears_how_it_is(broker: Mosquitto, tmp_path: Path) -> None:
    task = task_of(version_of(model_in(tmp_path), "4"))
    async with (
        lc_at(broker) as lc,
        process(free_port(), NEREID_TASK=task.encode().decode(), NEREID_BROKER=broker.url),
    ):
        assert (await lc.until(lambda info: info.status == "running")).serving_version == "4"


async def test_a_port_that_is_taken_is_said_and_listened_at_when_it_is_free(broker: Mosquitto, tmp_path: Path) -> None:
    task = task_of(version_of(model_in(tmp_path), "4"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        env = {"NEREID_TASK": task.encode().decode(), "NEREID_BROKER": broker.url}
        async with lc_at(broker) as lc, process(port, **env):
            said = await lc.until(lambda info: info.reason == "PortUnavailable")
            assert (said.status, said.serving_version, str(port) in said.message) == ("failed", "", True)
            taken.close()
            await lc.until(lambda info: info.status == "running")
            assert (await get(f"http://127.0.0.1:{port}/v2/health/ready"))[0] == 200


async def test_probes_are_answered_before_a_model_is_there(broker: Mosquitto, tmp_path: Path) -> None:
    missing = task_of(ServedVersion(version="4", url=str(tmp_path / "model.tflite")))
    health = free_port()
    env = {"NEREID_NODE": "edge-0", "NEREID_BROKER": broker.url, "NEREID_STATE": str(tmp_path / "state")}
    async with lc_at(broker) as lc, process(free_port(), NEREID_HEALTH=f"127.0.0.1:{health}", **env):
        await lc.give(missing)
        await lc.until(lambda info: info.reason == "ModelMissing")
        assert (await probed(health, "livez"), (await probed(health, "readyz"))[0]) == ((200, "ok\n"), 503)
        await lc.give(task_of(version_of(model_in(tmp_path), "4")))
        await lc.until(lambda info: info.status == "running")
        assert await probed(health, "readyz") == (200, "ok\n")


async def probed(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/{path}") as answer:
        return answer.status, await answer.text()


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"NEREID_TASK": "{}"}, "missing; add it"),
        ({}, "NEREID_NODE"),
        ({"NEREID_TASK": "{}", "NEREID_PORT": "x"}, "not a port"),
    ],
)
async def test_a_wrong_environment_ends_it_with_a_word_and_code_2(env: dict[str, str], words: str) -> None:
    async with process(0, **env) as worker:
        _, said = await worker.communicate()
        assert (worker.returncode, words in said.decode()) == (2, True), said
