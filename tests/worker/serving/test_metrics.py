# SPDX-License-Identifier: Apache-2.0
"""What Prometheus scrapes, read by Prometheus' own parser."""

from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from tests.worker.serving.http import post
from tests.worker.serving.served import MODEL, model_in, serving, task_of, url, version_of

from nereid_worker.serving.process import ServingProcess

GOOD = {"inputs": [{"name": "t0", "shape": [3, 8, 8, 1], "datatype": "FP32", "data": [0.0] * 192}]}


async def scraped(process: ServingProcess) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    async with aiohttp.ClientSession() as session, session.get(url(process, "/metrics")) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        text = await answer.text()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def labels(**given: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(given.items()))


async def test_requests_batches_and_queues_are_counted_by_version(tmp_path: Path) -> None:
    async with serving(task_of(version_of(model_in(tmp_path), "4"))) as process:
        for _ in range(2):
            assert (await post(url(process, f"/v2/models/{MODEL}/infer"), GOOD))[0] == 200
        assert (await post(url(process, f"/v1/models/{MODEL}:predict"), {"instances": [[[[0.0]] * 8] * 8]}))[0] == 200
        for path, body in ((f"/v2/models/{MODEL}/infer", b"{"), ("/v2/models/stranger/infer", GOOD)):
            await post(url(process, path), body)
        seen = await scraped(process)
    ours = {"model": MODEL, "version": "4"}
    requests = "nereid_serving_requests_total"
    assert seen[requests, labels(**ours, protocol="v2", code="200")] == 2
    assert seen[requests, labels(**ours, protocol="tensorflow", code="200")] == 1
    assert seen["nereid_serving_request_seconds_count", labels(**ours, protocol="v2")] == 2
    assert seen["nereid_serving_batch_rows_sum", labels(**ours)] == 7
    assert seen["nereid_serving_batch_rows_count", labels(**ours)] == 3
    assert seen["nereid_serving_queue_rows", labels(**ours)] == 0
    # A stranger's names are never labels.
    assert seen[requests, labels(model="", version="", protocol="v2", code="400")] == 1
    assert seen[requests, labels(model="", version="", protocol="v2", code="404")] == 1
    assert not any("stranger" in dict(given).values() for _, given in seen)
