# SPDX-License-Identifier: Apache-2.0
"""Versions beside one another, swapped under load, and versions that never serve."""

import asyncio
import hashlib
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from tests.worker.serving.http import get
from tests.worker.serving.served import (
    MODEL,
    WAIT_S,
    listening,
    model_in,
    running,
    serving,
    task_of,
    url,
    version_of,
)

from nereid_shared.errors import RequestRefused
from nereid_shared.messages import ServedVersion, ServingTask
from nereid_worker.serving.metrics import Metrics
from nereid_worker.serving.process import ServingProcess
from nereid_worker.serving.versions import Versions

CLIENTS, SWAPS = 8, 12


def body(rows: int = 1) -> tuple[bytes, dict[str, str]]:
    """Return black pictures as a binary tensor, and the headers that go with them."""
    given = {
        "name": "t0", "shape": [rows, 8, 8, 1], "datatype": "FP32", "parameters": {"binary_data_size": 256 * rows},
    }  # fmt: skip
    head = json.dumps({"inputs": [given]}).encode()
    return head + bytes(256 * rows), {"Inference-Header-Content-Length": str(len(head))}


async def ask(
    session: aiohttp.ClientSession, process: ServingProcess, *, version: str = "", rows: int = 1
) -> tuple[int, dict[str, Any]]:
    path = f"/v2/models/{MODEL}" + (f"/versions/{version}" if version else "") + "/infer"
    data, headers = body(rows)
    async with session.post(url(process, path), data=data, headers=headers) as answer:
        said: dict[str, Any] = await answer.json(content_type=None)
        return answer.status, said


def shift_of(said: dict[str, Any]) -> float:
    """Return which model answered, by its figures."""
    figures = np.array(said["outputs"][0]["data"]).reshape(-1, 2)
    assert len(set(figures[:, 1])) == 1
    return float(figures[0, 1])


async def reported(process: ServingProcess) -> dict[str, Any]:
    async with aiohttp.ClientSession() as session, session.get(url(process, "/v2/health/ready")) as answer:
        said: dict[str, Any] = await answer.json()
        return {"status": answer.status, **said}


async def serves(process: ServingProcess, task: ServingTask) -> None:
    def it_does() -> bool:
        default = process.versions.default
        return (
            default is not None
            and default.version == task.target
            and default.source in task.versions
            and default.task.max_batch == task.max_batch
        )

    process.versions.want(task)
    async with asyncio.timeout(WAIT_S):
        await process.versions.until(it_does)


async def test_no_request_fails_and_none_is_mislabelled_while_versions_are_swapped(tmp_path: Path) -> None:
    """Each version's figures are its own, so that an answer under another's label would show."""
    files = {str(n): version_of(model_in(tmp_path / str(n), shift=float(n), golden=float(n)), str(n)) for n in (1, 2)}
    asked: Counter[str] = Counter()
    over, news = asyncio.Event(), asyncio.Condition()

    async def client(process: ServingProcess, rows: int) -> None:
        async with aiohttp.ClientSession() as session:
            while not over.is_set():
                status, said = await ask(session, process, rows=rows)
                assert status == 200, said
                assert shift_of(said) == float(said["model_version"])
                async with news:
                    asked[said["model_version"]] += 1
                    news.notify_all()

    async with serving(task_of(files["1"])) as process, asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(client(process, rows=1 + number % 3))
        for swap in range(SWAPS):
            version = "12"[swap % 2]
            # Another batching bound makes it another thread and interpreter each time, as another file would.
            await serves(process, task_of(files[version], max_batch=4 + swap))
            before = asked[version]
            async with asyncio.timeout(WAIT_S), news:
                await news.wait_for(lambda: asked[version] >= before + 20)  # noqa: B023 - awaited here
        over.set()
    assert min(asked["1"], asked["2"]) >= 20 * SWAPS // 2


async def test_versions_answer_beside_one_another_and_the_target_by_default(tmp_path: Path) -> None:
    versions = [version_of(model_in(tmp_path / n, shift=float(n)), n) for n in ("1", "2", "3")]
    async with serving(task_of(*versions, target="2")) as process, aiohttp.ClientSession() as session:
        async with asyncio.timeout(WAIT_S):
            await process.versions.until(lambda: len(process.versions.loaded) == 3)
        for version in ("1", "2", "3"):
            status, said = await ask(session, process, version=version)
            assert (status, said["model_version"], shift_of(said)) == (200, version, float(version))
        assert shift_of((await ask(session, process))[1]) == 2.0
        await serves(process, task_of(versions[2]))
        async with asyncio.timeout(WAIT_S):
            await process.versions.until(lambda: len(process.versions.loaded) == 1)
        assert shift_of((await ask(session, process))[1]) == 3.0
        assert (await ask(session, process, version="1"))[0] == 404


def broken(tmp_path: Path) -> list[tuple[ServedVersion, str]]:
    """Return versions that must never serve, each with its reason."""
    mistaken = version_of(model_in(tmp_path / "golden", shift=9.0, golden=1.0), "9")
    digest = version_of(model_in(tmp_path / "digest", shift=9.0), "9", sha256="0" * 64)
    cut = model_in(tmp_path / "cut", shift=9.0)
    cut.write_bytes(cut.read_bytes()[:200])
    endless = version_of(model_in(tmp_path / "endless", shift=float("inf"), card=False), "9")
    missing = ServedVersion(version="9", url=str(tmp_path / "missing.tflite"))
    return [
        (mistaken, "GoldenMismatch"), (digest, "DigestMismatch"), (version_of(cut, "9"), "ModelCorrupt"),
        (endless, "SelfTestFailed"), (missing, "ModelMissing"),
    ]  # fmt: skip


@pytest.mark.parametrize("which", range(5))
async def test_a_broken_target_never_serves_is_named_and_the_former_goes_on(tmp_path: Path, which: int) -> None:
    good = version_of(model_in(tmp_path / "good", shift=1.0, golden=1.0), "1")
    bad, reason = broken(tmp_path)[which]
    async with serving(task_of(good)) as process, aiohttp.ClientSession() as session:
        process.versions.want(task_of(bad))
        async with asyncio.timeout(WAIT_S):
            await process.versions.until(lambda: process.versions.problem is not None)
        status, said = await ask(session, process)
        assert (status, said["model_version"], shift_of(said)) == (200, "1", 1.0)
        ready = await reported(process)
        assert (ready["status"], ready["serving_version"], ready["target_version"]) == (200, "1", "9")
        assert [one["reason"] for one in ready["versions"] if one["version"] == "9"] == [reason]
        status, said = await ask(session, process, version="9")
        assert (status, reason in said["error"]) == (503, True)
        # A version is no better under another's name.
        await serves(process, task_of(good, max_batch=2))
        assert (await ask(session, process, version="9"))[0] == 404


async def test_a_server_does_not_listen_before_its_target_serves(tmp_path: Path) -> None:
    file = model_in(tmp_path / "late", shift=1.0, golden=2.0)
    async with running(task_of(version_of(file, "1"))) as process:
        async with asyncio.timeout(WAIT_S):
            await process.versions.until(lambda: process.versions.problem is not None)
        assert process.server.port == 0
        model_in(tmp_path / "late", shift=2.0, golden=2.0)
        process.versions.want(task_of(version_of(file, "1"), generation=2))
        await listening(process)
        assert (await reported(process))["ready"] is True


async def test_a_new_file_under_an_old_label_replaces_the_former(tmp_path: Path) -> None:
    first, second = (version_of(model_in(tmp_path / n, shift=float(n)), "stable") for n in ("1", "2"))
    async with serving(task_of(first)) as process, aiohttp.ClientSession() as session:
        assert shift_of((await ask(session, process))[1]) == 1.0
        await serves(process, task_of(second))
        assert shift_of((await ask(session, process))[1]) == 2.0
        assert shift_of((await ask(session, process, version="stable"))[1]) == 2.0


async def test_after_a_restart_on_a_node_the_former_serves_where_the_target_fails(tmp_path: Path) -> None:
    """The other version of the manifest, which would load too, never served and does not do so now."""
    files = [version_of(model_in(tmp_path / n, shift=float(n), golden=1.0), n) for n in ("1", "2")]
    untried = version_of(model_in(tmp_path / "0"), "0")
    node = {"node": "edge-0", "state": tmp_path / "state"}
    async with serving(task_of(files[0]), **node) as process:
        assert process.versions.default is not None
    async with serving(task_of(untried, *files), **node) as process, aiohttp.ClientSession() as session:
        assert shift_of((await ask(session, process))[1]) == 1.0
        ready = await reported(process)
        assert (ready["serving_version"], ready["target_version"]) == ("1", "2")
    async with running(task_of(untried, files[1]), **node) as process:
        async with asyncio.timeout(WAIT_S):
            await process.versions.until(
                lambda: [one.status for one in process.versions.states()] == ["ready", "failed"]
            )
        assert process.versions.default is None


async def test_an_archive_s_folder_may_stand_in_folders(tmp_path: Path) -> None:
    model_in(tmp_path / "unpacked" / MODEL / "1", shift=1.0, golden=1.0)
    async with serving(task_of(version_of(tmp_path / "unpacked", "1"))) as process, aiohttp.ClientSession() as session:
        assert shift_of((await ask(session, process))[1]) == 1.0


async def test_an_archive_is_fetched_checked_and_unpacked(tmp_path: Path) -> None:
    model_in(tmp_path / "made" / "brightness-1", shift=1.0, golden=1.0)
    archive = tmp_path / "brightness-1.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "made" / "brightness-1", "brightness-1")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    good, bad = version_of(archive, "1", sha256=digest), version_of(archive, "1", sha256="0" * 64)
    async with serving(task_of(good)) as process, aiohttp.ClientSession() as session:
        assert shift_of((await ask(session, process))[1]) == 1.0
    async with running(task_of(bad)) as process:
        async with asyncio.timeout(WAIT_S):
            await process.versions.until(lambda: process.versions.problem is not None)
        assert process.versions.problem is not None
        assert process.versions.problem.reason == "DigestMismatch"


async def test_more_requests_than_may_wait_are_refused(tmp_path: Path) -> None:
    async with serving(task_of(version_of(model_in(tmp_path), "1"), max_batch=1)) as process:
        loaded = process.versions.default
        assert loaded is not None
        rows = np.zeros((1024, 8, 8, 1), np.float32)
        waiting = [loaded.batcher.submit(rows)]
        with pytest.raises(RequestRefused) as refused:
            waiting.extend(loaded.batcher.submit(rows) for _ in range(1000))
        assert refused.value.status == 503
        answered = await asyncio.gather(*waiting)
        assert all(len(one) == 1024 for one in answered)


async def test_what_nobody_foresaw_in_loading_a_version_stops_no_other(tmp_path: Path) -> None:
    good, odd = version_of(model_in(tmp_path / "1"), "1"), version_of(tmp_path / "odd", "2")

    def obtain(_task: ServingTask, source: ServedVersion) -> Path:
        if source == odd:
            raise ZeroDivisionError("odd")
        return Path(source.url)

    metrics = Metrics(list, in_flight=int)
    versions = Versions(obtain=obtain, observer_of=metrics.observer, on_change=lambda: None)
    keeping = asyncio.create_task(versions.keep())
    versions.want(task_of(good, odd))
    async with asyncio.timeout(WAIT_S):
        await versions.until(lambda: versions.find("1") is not None and versions.problem is not None)
    assert versions.problem is not None
    assert (versions.problem.reason, keeping.done()) == ("LoadFailed", False)
    keeping.cancel()
    await versions.close()


async def test_a_target_s_batches_are_ready_before_it_serves(tmp_path: Path) -> None:
    versions = [version_of(model_in(tmp_path / n), n) for n in ("1", "2")]
    async with serving(task_of(*versions, max_batch=4)) as process:
        async with asyncio.timeout(WAIT_S):
            await process.versions.until(lambda: len(process.versions.loaded) == 2)
        made = [set(one.model._interpreter._runners) for one in process.versions.loaded]  # type: ignore[attr-defined]
        assert made == [{1, 4}, {1}]


async def test_a_version_that_nothing_tried_says_so_and_serves(tmp_path: Path) -> None:
    tried, untried = model_in(tmp_path / "1", golden=0.0), model_in(tmp_path / "2")
    bare = model_in(tmp_path / "3", card=False)
    versions = [version_of(file, n) for n, file in (("1", tried), ("2", untried), ("3", bare))]
    async with serving(task_of(*versions)) as process:
        async with asyncio.timeout(WAIT_S):
            await process.versions.until(lambda: len(process.versions.loaded) == 3)
        said = {one["version"]: (one["status"], one["reason"]) for one in (await reported(process))["versions"]}
        assert said == {"1": ("ready", ""), "2": ("ready", "NoGoldenSamples"), "3": ("ready", "NoGoldenSamples")}
        _, status = await get(url(process, f"/v1/models/{MODEL}"))
        assert {one["status"]["error_code"] for one in status["model_version_status"]} == {"OK"}
