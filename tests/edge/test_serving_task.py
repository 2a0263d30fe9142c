# SPDX-License-Identifier: Apache-2.0
"""A LocalController and a serving worker: the task when its files are here, the version that answers in the status."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.edge.peers import GmPeer, Heard, Lab
from tests.edge.rows import document
from tests.edge.test_serving import served_row
from tests.shared.storage.file_server import serving

from nereid_shared import topics
from nereid_shared.link import Link, LinkSettings, Message
from nereid_shared.messages import ServingTask, TaskStatus, WorkerInfo

UID = "uid-of-the-model"
WORKER = "digits-serving-1"


class ServingPeer(Heard):
    """A serving worker: hears its tasks, says what it serves."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self.link, self.tasks, self.cleared, self._number = link, list[ServingTask](), False, 0

    def take(self, message: Message) -> None:
        self.cleared = not message.payload
        if message.payload:
            self.tasks.append(ServingTask.decode(message.payload, max_bytes=topics.TASK.max_bytes))
        self.ring()

    async def serves(self, version: str) -> None:
        self._number += 1
        info = WorkerInfo(
            name=WORKER, namespace="default", owner_name="digits", owner_kind="inferencemodel", kind="serving",
            status="running", boot="b", number=self._number, task_hash=self.tasks[-1].hash, serving_version=version,
        )  # fmt: skip
        await self.link.publish(topics.WORKER_INFO.of(worker=WORKER), info.encode(), retain=True)


@asynccontextmanager
async def serving_worker(lab: Lab) -> AsyncIterator[ServingPeer]:
    link = Link(LinkSettings.from_url(lab.edge.url, client_id=WORKER))
    peer = ServingPeer(link)
    async with link:
        await link.wait_connected()
        await link.subscribe(topics.TASK.of(worker=WORKER), peer.take)
        yield peer


def told(gm: GmPeer) -> TaskStatus | None:
    return next((one for one in reversed(gm.statuses) if one.uid == UID), None)


def says(gm: GmPeer, version: str, reason: str = "") -> bool:
    found = told(gm)
    return found is not None and (found.serving_version, found.reason) == (version, reason)


async def test_a_worker_is_told_of_a_version_when_it_is_here_and_serves_the_former_until_then(
    lab: Lab, gm: GmPeer, tmp_path: Path
) -> None:
    local = {"version": "4", "downloadURL": str(tmp_path / "4.tflite")}
    with serving() as server:
        server.files = {"/other": b""}
        away = {"version": "3", "downloadURL": server.url_of("/3.tflite")}
        manifest = [local, away]
        async with lab.controller(), serving_worker(lab) as worker:
            await gm.desire(document({UID: served_row(manifest=manifest, targetVersion="4")}))
            await worker.until(lambda: worker.tasks)
            assert (worker.tasks[-1].target, [one.version for one in worker.tasks[-1].versions]) == ("4", ["4"])
            await worker.serves("4")
            await gm.until(lambda: says(gm, "4"))

            await gm.desire(document({UID: served_row(manifest=manifest, targetVersion="3")}, rev=2))
            await gm.until(lambda: says(gm, "4", "ModelMissing"))
            assert [task.target for task in worker.tasks] == ["4"]

            server.files = {"/3.tflite": b"model"}
            await worker.until(lambda: worker.tasks[-1].target == "3")
            (path,) = [one.path for one in worker.tasks[-1].versions if one.version == "3"]
            assert Path(path).read_bytes() == b"model"
            await worker.serves("3")
            await gm.until(lambda: says(gm, "3"))


async def test_a_model_that_goes_takes_its_task_along(lab: Lab, gm: GmPeer, tmp_path: Path) -> None:
    manifest = [{"version": "4", "downloadURL": str(tmp_path / "4.tflite")}]
    async with lab.controller(), serving_worker(lab) as worker:
        await gm.desire(document({UID: served_row(manifest=manifest, targetVersion="4")}))
        await worker.until(lambda: worker.tasks)
        desired = document({}, rev=2)
        await gm.desire(desired)
        await gm.applied(desired)
        await worker.until(lambda: worker.cleared)


async def test_a_spec_that_cannot_be_served_is_told(lab: Lab, gm: GmPeer) -> None:
    async with lab.controller():
        await gm.desire(document({UID: served_row(manifest=[{"version": "3"}])}))
        await gm.until(lambda: says(gm, "", "SpecInvalid"))
    found = told(gm)
    assert found is not None
    assert (found.phase, found.status) == ("serving", "failed")
