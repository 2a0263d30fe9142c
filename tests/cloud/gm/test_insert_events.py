# SPDX-License-Identifier: Apache-2.0
import asyncio

from tests.mosquitto import Mosquitto

from nereid_cloud.cluster.port import Object
from nereid_cloud.gm.downstream import Callbacks, Downstream
from nereid_shared import topics
from nereid_shared.digests import task_hash
from nereid_shared.link import Link, LinkSettings, Message
from nereid_shared.messages import TaskEvent, TaskRow

SPEC = {"a": 1}
ROW = TaskRow(kind="Dataset", namespace="n", name="d", generation=1, hash=task_hash(SPEC, {}), spec=SPEC)


async def raise_epoch(above: int) -> int:
    return above + 1


async def test_an_insert_event_shows_the_resource_without_its_managers_and_without_all_other_nodes(
    broker: Mosquitto,
) -> None:
    came: asyncio.Future[TaskEvent] = asyncio.get_running_loop().create_future()

    def take(message: Message) -> None:
        came.set_result(TaskEvent.decode(message.payload, max_bytes=topics.INSERT.max_bytes))

    metadata = {"name": "d", "namespace": "n", "uid": "u", "labels": {"a": "b"}}
    obj: Object = {
        "kind": "Dataset",
        "metadata": {**metadata, "managedFields": [{"manager": "kubectl"}]},
        "spec": SPEC,
        "status": {"heldBy": ["edge-0", "edge-1"], "numberOfSamples": 7},
    }
    callbacks = Callbacks(node_exists=lambda _: True, raise_epoch=raise_epoch, on_report=lambda _node, _report: None)
    down = Downstream(cluster="c", identity="gm", epoch=1, callbacks=callbacks)
    watcher = Link(LinkSettings.from_url(broker.url, client_id="eyes"), subscriptions={topics.INSERT.filter(): take})
    gm = Link(LinkSettings.from_url(broker.url, client_id="gm"), on_connect=down.connected)
    async with asyncio.timeout(20), watcher, gm, down:
        await watcher.wait_connected()
        down.assign("u", {"edge-0": ROW}, obj)
        down.release()
        shown = (await came).object
    assert shown == {"kind": "Dataset", "metadata": metadata, "spec": SPEC, "status": {"numberOfSamples": 7}}
