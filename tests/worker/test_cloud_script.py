# SPDX-License-Identifier: Apache-2.0
"""The shipped cloud script in a real cloud worker process."""

import asyncio
from pathlib import Path

from tests.mosquitto import Mosquitto
from tests.worker.lc_peer import NODE, SERVICE
from tests.worker.scenes import EASY, HARD, Worker, make_task, picture, running, write_model

from nereid_shared import topics
from nereid_shared.link import Link, LinkSettings, Message
from nereid_shared.samples import PNG, Counts, Result, Sample, digest_of

SCRIPTS = Path(__file__).parents[2] / "examples" / "scripts"


async def test_the_shipped_cloud_script_answers_samples(tmp_path: Path, broker: Mosquitto) -> None:
    task = make_task(
        write_model(tmp_path / "model"), role="cloud", rule=None, group="g", nodes=[NODE], script_dir=str(SCRIPTS),
        script_boot_file="cloud.py", parameters={"floor": "0.6"},
    )  # fmt: skip
    results: asyncio.Queue[Result] = asyncio.Queue()

    def take(message: Message) -> None:
        results.put_nowait(Result.decode(message.payload, max_bytes=topics.RESULTS.max_bytes))

    env = {"NEREID_ROLE": "cloud", "NEREID_TASK": task.encode().decode()}
    settings = LinkSettings.from_url(broker.url, client_id="lc")
    with running(Worker(broker.url, tmp_path / "state", env=env)) as worker:
        async with Link(settings, subscriptions={topics.RESULTS.of(service=SERVICE, node=NODE): take}) as link:
            await link.wait_connected()
            said = []
            for seq, grey in enumerate((EASY, HARD), 1):
                payload = picture(grey)
                sample = Sample(
                    stream="s", seq=seq, digest=digest_of(payload), key=str(seq), captured_at=0.0, remaining_ms=1000,
                    label="", score=0.0, counts=Counts(seen=1, easy=0, hard=1, failed=0), encoding=PNG, payload=payload,
                )  # fmt: skip
                async with asyncio.timeout(60):
                    while await link.publish(topics.SAMPLES.of(service=SERVICE, node=NODE), sample.encode()):
                        await asyncio.sleep(0.05)
                    said.append((await results.get()).label)
        assert said == ["dark", "unsure"]
        assert await asyncio.to_thread(worker.stop) == 0
