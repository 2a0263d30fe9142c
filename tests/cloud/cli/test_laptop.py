# SPDX-License-Identifier: Apache-2.0
"""``nereid top`` and ``link``, on the folders and links of a system."""

import asyncio
import json
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from tests.cloud.cli.conftest import TIMEOUT_S, Nereid, command
from tests.cloud.cli.objects import service

from nereid_cloud.cli.top import SAMPLE_S
from nereid_cloud.cluster.local import LocalCluster
from nereid_cloud.laptop import links
from nereid_cloud.laptop.system import Ports, System
from nereid_shared.topics import service_id

pytestmark = pytest.mark.slow  # each test starts processes


@pytest.fixture
def system(state: Path) -> System:
    made = System(state=state, nodes=["edge-0"], ports=Ports.choose(["edge-0"], 0))
    made.save()
    return made


def line(number: int) -> str:
    fields = {"is_hard": False, "degraded": False, "latency_ms": 1.0, "cloud_label": None}
    return json.dumps({"event": "edge", "key": str(number), "label": "1", **fields}) + "\n"


async def test_a_table_that_is_printed_once_has_measured_its_rates(system: System, cluster: LocalCluster) -> None:
    uid = service(cluster)["metadata"]["uid"]
    log = system.node_state("edge-0") / "workers" / service_id("digits", uid) / "answers.jsonl"
    log.parent.mkdir(parents=True)
    link = links.CuttableLink(node="edge-0", port=system.ports.links["edge-0"], target=("127.0.0.1", 1))
    serving = asyncio.create_task(links.run({"edge-0": link}, system.control))
    number, rate = 0, 0.0
    while not rate:  # a machine that halts for as long as the table looks writes no line meanwhile
        top = asyncio.create_task(asyncio.to_thread(run, system, "top", "--once"))
        before = number
        while not top.done():
            number += 1
            with log.open("a") as file:
                file.write(line(number))
            await asyncio.wait({top}, timeout=0.01)
        (row,) = [text for text in top.result().stdout.splitlines() if "edge-0" in text]
        _, node, mode, measured, *_ = (cell.strip() for cell in row.split("│"))
        assert (node, mode) == ("edge-0", "up")
        rate = float(measured)
    assert rate <= (number - before) / SAMPLE_S
    serving.cancel()
    with suppress(asyncio.CancelledError):
        await serving


def run(system: System, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = command("--state", str(system.state), *arguments)
    return subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


@pytest.mark.parametrize("action", ["cut", "slow", "heal"])
def test_a_link_without_a_node_asks_for_one_of_those_there_are(nereid: Nereid, system: System, action: str) -> None:
    assert system.nodes == ["edge-0"]
    done = nereid("link", action)
    assert done.returncode == 2
    assert done.stderr == "error: NODE: name the node. The nodes are: edge-0\n"
