# SPDX-License-Identifier: Apache-2.0
"""A model that is elsewhere: fetched before its worker is told, while the former one goes on; over restarts, too."""

import asyncio
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.edge.peers import EdgePeer, GmPeer, Lab
from tests.edge.rows import SERVICE_UID, document, row, service_row
from tests.shared.storage.file_server import Server, serving

from nereid_edge.desired_store import DesiredStore
from nereid_edge.preparing import Artefact, Preparing
from nereid_shared.messages import ModelOutput, Task, TaskRow

OLD, NEW = b"old " * 50_000, b"new " * 50_000


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        running.files = {"/old/m.tflite": OLD, "/new/m.tflite": NEW}
        yield running


def with_model(url: str, *, digest: str = "", generation: int = 1, of_service: int = 1, **edge: Any) -> TaskRow:
    made = service_row(**edge)
    spec = {"modelUrl": url, "format": "tflite", **({"sha256": digest} if digest else {})}
    little = {"uid": "m", "generation": generation, "spec": spec}
    refs = {**made.refs, "models": {"little": little}}
    return row(kind=made.kind, generation=of_service, spec=made.spec, refs=refs)


def card(name: str) -> bytes:
    body = {
        "schema": "nereid.io/model-card/v1", "name": name, "version": "1", "task": "classification",
        "input": {
            "layout": "NHWC", "colorOrder": "GRAY", "resize": "stretch", "interpolation": "linear",
            "normalization": {"unit": "unit", "mean": [0], "std": [1]},
        },
        "output": {"kind": "logits", "labels": ["dark", "bright"]},
    }  # fmt: skip
    return json.dumps(body).encode()


def told(worker: EdgePeer) -> Task:
    task = worker.tasks[-1]
    assert task is not None
    return task


def models(gm: GmPeer) -> list[ModelOutput]:
    output = gm.status(SERVICE_UID).output
    return output.models if output is not None else []


async def test_a_worker_is_told_of_its_model_when_that_is_here(
    lab: Lab, gm: GmPeer, worker: EdgePeer, server: Server
) -> None:
    server.stalls, server.cut_after = 1, 100_000
    async with lab.controller():
        await gm.desire(document({SERVICE_UID: with_model(server.url_of("/old/m.tflite"))}))
        await gm.until(lambda: gm.status(SERVICE_UID).message.endswith("50 % of 200.0 kB"))
        status = gm.status(SERVICE_UID)
        assert (status.status, status.reason) == ("starting", "ModelFetching")
        assert [(one.status, one.reason) for one in models(gm)] == [("fetching", "ModelFetching")]
        assert worker.tasks == []
        server.go_on.set()
        await worker.until(lambda: worker.tasks)
        assert Path(told(worker).model.path).read_bytes() == OLD
        assert Path(told(worker).model.path).is_relative_to(lab.state.parent / "cache")
        await gm.until(lambda: models(gm)[0].status == "ready")
        assert (models(gm)[0].digest, models(gm)[0].bytes, models(gm)[0].generation) == (sha256(OLD), len(OLD), 1)


async def test_the_former_model_goes_on_while_another_one_comes(
    lab: Lab, gm: GmPeer, worker: EdgePeer, server: Server
) -> None:
    async with lab.controller():
        await gm.desire(document({SERVICE_UID: with_model(server.url_of("/old/m.tflite"))}))
        await worker.until(lambda: worker.tasks)
        old = told(worker)
        await worker.say("running", task_hash=old.hash)
        await gm.until(lambda: gm.status(SERVICE_UID).status == "running")
        server.stalls, server.cut_after = 1, 100_000
        changed = with_model(server.url_of("/new/m.tflite"), digest=sha256(NEW), generation=2)
        await gm.desire(document({SERVICE_UID: changed}, rev=2))
        await gm.until(lambda: gm.status(SERVICE_UID).reason == "ModelFetching")
        assert gm.status(SERVICE_UID).status == "running"
        assert worker.tasks == [old]
        url = server.url_of("/new/m.tflite")
        both = with_model(url, digest=sha256(NEW), generation=2, of_service=2, deadline="2s")
        await gm.desire(document({SERVICE_UID: both}, rev=3))
        await gm.until(lambda: gm.status(SERVICE_UID).generation == 2)
        assert (gm.status(SERVICE_UID).status, gm.status(SERVICE_UID).reason) == ("starting", "ModelFetching")
        assert worker.tasks == [old]
        server.go_on.set()
        await worker.until(lambda: told(worker) != old)
        assert Path(told(worker).model.path).read_bytes() == NEW
        assert told(worker).deadline_s == 2.0
        assert Path(old.model.path).read_bytes() == OLD


async def test_a_file_with_another_digest_is_told_and_never_given_to_a_worker(
    lab: Lab, gm: GmPeer, worker: EdgePeer, server: Server
) -> None:
    async with lab.controller():
        await gm.desire(document({SERVICE_UID: with_model(server.url_of("/old/m.tflite"))}))
        await worker.until(lambda: worker.tasks)
        await worker.say("running", task_hash=told(worker).hash)
        wrong = with_model(server.url_of("/new/m.tflite"), digest="0" * 64, generation=2)
        await gm.desire(document({SERVICE_UID: wrong}, rev=2))
        await gm.until(lambda: gm.status(SERVICE_UID).reason == "DigestMismatch")
        assert gm.status(SERVICE_UID).status == "running"
        last = models(gm)[-1]
        assert (last.status, last.reason, last.generation) == ("failed", "DigestMismatch", 2)
        assert {task.model.url for task in worker.tasks if task} == {server.url_of("/old/m.tflite")}
        right = with_model(server.url_of("/new/m.tflite"), digest=sha256(NEW), generation=3)
        await gm.desire(document({SERVICE_UID: right}, rev=3))
        await worker.until(lambda: told(worker).model.sha256 == sha256(NEW))


async def test_a_model_that_nobody_has_fails_the_service_and_heals(
    lab: Lab, gm: GmPeer, worker: EdgePeer, server: Server
) -> None:
    content = server.files.pop("/new/m.tflite")
    async with lab.controller():
        await gm.desire(document({SERVICE_UID: with_model(server.url_of("/new/m.tflite"))}))
        await gm.until(lambda: gm.status(SERVICE_UID).reason == "ModelMissing")
        assert gm.status(SERVICE_UID).status == "failed"
        server.files["/new/m.tflite"] = content
        await worker.until(lambda: worker.tasks)


async def test_a_card_that_its_worker_found_wrong_is_fetched_again_until_it_is_mended(
    lab: Lab, gm: GmPeer, worker: EdgePeer, server: Server
) -> None:
    url, beside = server.url_of("/new/m.tflite"), "/new/model.json"
    server.files[beside] = card("first")
    async with lab.controller():
        await gm.desire(document({SERVICE_UID: with_model(url, digest=sha256(NEW))}))
        await worker.until(lambda: worker.tasks)
        first = told(worker)
        assert Path(first.model.path).with_name("model.json").read_bytes() == card("first")
        server.files[beside] = card("mended")
        worker.models = [ModelOutput(name="little", url=url, status="failed", reason="CardMismatch")]
        await worker.say("running", task_hash=first.hash)
        await worker.until(lambda: told(worker).hash != first.hash)
        assert Path(told(worker).model.path).with_name("model.json").read_bytes() == card("mended")
        assert server.paths.count("/new/m.tflite") == 1


async def test_a_cut_download_goes_on_after_a_restart_and_the_former_model_meanwhile(
    lab: Lab, gm: GmPeer, worker: EdgePeer, server: Server
) -> None:
    async with lab.controller():
        await gm.desire(document({SERVICE_UID: with_model(server.url_of("/old/m.tflite"))}))
        await worker.until(lambda: worker.tasks)
        server.stalls, server.cut_after = 1, 100_000
        changed = document({SERVICE_UID: with_model(server.url_of("/new/m.tflite"), generation=2)}, rev=2)
        await gm.desire(changed)
        await gm.applied(changed)
        await asyncio.to_thread(server.stalled.wait, 20)
    old = told(worker)
    lab.edge.kill()  # what it remembered is gone with it
    lab.edge.start()
    worker.tasks.clear()
    server.stalls, server.cut_after = 1, 10_000
    async with lab.controller():
        await worker.until(lambda: worker.tasks)
        assert worker.tasks == [old]
        server.go_on.set()
        await worker.until(lambda: told(worker) != old)
        assert Path(told(worker).model.path).read_bytes() == NEW
    assert (
        "Range"
        in [asked for path, asked in zip(server.paths, server.requests, strict=True) if path == "/new/m.tflite"][-1]
    )


async def test_a_restart_needs_neither_cloud_nor_server(lab: Lab, gm: GmPeer, worker: EdgePeer, server: Server) -> None:
    async with lab.controller():
        await gm.desire(document({SERVICE_UID: with_model(server.url_of("/old/m.tflite"), digest=sha256(OLD))}))
        await worker.until(lambda: worker.tasks)
    task, asked = told(worker), len(server.requests)
    (lab.state / "served.json").unlink()
    lab.cloud.kill()
    lab.edge.kill()
    lab.edge.start()
    worker.tasks.clear()
    async with lab.controller():
        await worker.until(lambda: worker.tasks)
    assert worker.tasks[0] == task
    assert len(server.requests) == asked


async def test_what_the_broker_has_stays_while_a_model_is_awaited(
    lab: Lab, gm: GmPeer, worker: EdgePeer, server: Server
) -> None:
    """As after an upgrade from a version that wrote nothing down."""
    server.stalls, server.cut_after = 1, 100_000
    async with lab.controller():
        await gm.desire(document({SERVICE_UID: service_row()}))
        await worker.until(lambda: worker.tasks)
    (lab.state / "served.json").unlink()
    changed = document({SERVICE_UID: with_model(server.url_of("/new/m.tflite"))}, rev=2)
    DesiredStore(lab.state / "desired.db").apply(changed)
    async with lab.controller():
        # What the broker has comes to the LC before the sample does.
        await worker.send(1)
        await worker.send_until_accepted(1)
        server.go_on.set()
        await worker.until(lambda: worker.tasks[-1] is None or told(worker).model.path)
    assert None not in worker.tasks


async def test_a_worker_that_tries_its_new_model_is_not_called_starting(
    lab: Lab, gm: GmPeer, worker: EdgePeer, server: Server
) -> None:
    async with lab.controller():
        await gm.desire(document({SERVICE_UID: with_model(server.url_of("/old/m.tflite"))}))
        await worker.until(lambda: worker.tasks)
        old = told(worker)
        await worker.say("running", task_hash=old.hash)
        await gm.until(lambda: gm.status(SERVICE_UID).status == "running")
        heard = len(gm.statuses)
        await gm.desire(document({SERVICE_UID: with_model(server.url_of("/new/m.tflite"), generation=2)}, rev=2))
        await gm.until(lambda: gm.status(SERVICE_UID).reason == "ModelSwapping")
        await worker.say("running", task_hash=told(worker).hash)
        await gm.until(lambda: gm.status(SERVICE_UID).reason == "")
        assert {one.status for one in gm.statuses[heard:]} == {"running"}


@pytest.mark.parametrize("serves", [None, 1])
async def test_eviction_keeps_what_is_wanted_the_models_before_it_and_what_the_worker_serves(
    lab: Lab, gm: GmPeer, worker: EdgePeer, server: Server, serves: int | None
) -> None:
    left = {3, 4, 5} if serves is None else {3, 4, 5, serves}
    contents = {number: bytes([number]) * 100_000 for number in range(6)}
    server.files |= {f"/{number}/m.tflite": content for number, content in contents.items()}
    seen: list[str] = []
    async with lab.controller(cache_max_bytes=1):
        for number in contents:
            if number - 1 == serves:
                worker.models = [ModelOutput(name="little", digest=sha256(contents[serves]), status="ready")]
                await worker.say("running", task_hash=told(worker).hash)
                await gm.until(lambda: [one.digest for one in models(gm)][:1] == [sha256(contents[1])])
            url = server.url_of(f"/{number}/m.tflite")
            await gm.desire(document({SERVICE_UID: with_model(url, generation=number + 1)}, rev=number + 1))
            await worker.until(lambda url=url: worker.tasks and told(worker).model.url == url)  # type: ignore[misc]
            seen.append(told(worker).model.path)
        sets = lab.state.parent / "cache" / "sets"
        async with asyncio.timeout(20):
            while len(list(sets.iterdir())) > len(left):
                await asyncio.sleep(0.01)
    assert {number for number, path in enumerate(seen) if Path(path).exists()} == left


async def test_one_file_is_fetched_once_for_all_that_want_it(tmp_path: Path, server: Server) -> None:
    changed = asyncio.Event()
    preparing = Preparing(tmp_path, max_bytes=10**9, on_change=changed.set)
    artefact = Artefact(server.url_of("/old/m.tflite"), sha256(OLD))
    preparing.want([artefact, artefact])
    preparing.want([artefact])
    async with asyncio.timeout(20):
        while preparing.of(artefact).status != "ready":
            changed.clear()
            await changed.wait()
    preparing.want([])
    assert preparing.of(artefact).status == "fetching"
    preparing.close()
    assert len(server.requests) == 1


async def test_closing_ends_a_download_that_hangs(tmp_path: Path, server: Server) -> None:
    server.stalls, server.cut_after = 1, 0
    preparing = Preparing(tmp_path, max_bytes=10**9, on_change=lambda: None)
    preparing.want([Artefact(server.url_of("/old/m.tflite"))])
    assert await asyncio.to_thread(server.stalled.wait, 20)
    preparing.close()
    async with asyncio.timeout(20):  # the download's own patience is 30 s
        await asyncio.to_thread(preparing._threads.shutdown, wait=True)
