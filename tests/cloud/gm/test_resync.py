# SPDX-License-Identifier: Apache-2.0
import asyncio
import math

from tests.cloud.gm.peers import model

from nereid_cloud.cluster.kinds import MODEL
from nereid_cloud.cluster.local import LocalCluster
from nereid_cloud.gm.informer import Informer, Key
from nereid_cloud.gm.resync import resync
from nereid_cloud.gm.workqueue import WorkQueue


async def test_what_nothing_happens_to_is_looked_at_again_and_again(cluster: LocalCluster) -> None:
    for name in ("one", "two"):
        cluster.create(model(name))
    queue: WorkQueue[Key] = WorkQueue()
    async with Informer(cluster, MODEL) as informer:
        await asyncio.wait_for(informer.wait_synced(), 30)
        work = asyncio.create_task(resync([(informer, queue)], every_s=0.01))
        seen: dict[str, int] = {}
        async with asyncio.timeout(30):
            while min(seen.get("one", 0), seen.get("two", 0)) < 3:
                key = await queue.get()
                seen[key.name] = seen.get(key.name, 0) + 1
                queue.done(key)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
    queue.close()


async def test_keys_are_spread_over_the_whole_period(cluster: LocalCluster) -> None:
    names = [f"m{number:02}" for number in range(64)]
    for name in names:
        cluster.create(model(name))
    queue: WorkQueue[Key] = WorkQueue()
    async with Informer(cluster, MODEL) as informer:
        await asyncio.wait_for(informer.wait_synced(), 30)
        work = asyncio.create_task(resync([(informer, queue)], every_s=3600.0))
        await asyncio.sleep(0)
        now = asyncio.get_running_loop().time()
        delays = sorted(queue.due_at(Key("default", name)) - now for name in names)
        # That 64 even chances all fall into the same half has a probability of 1e-19.
        assert delays[0] < 1800.0 < delays[-1] < math.inf
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
    queue.close()
