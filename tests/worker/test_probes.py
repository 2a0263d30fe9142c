# SPDX-License-Identifier: Apache-2.0
"""What a kubelet hears of real worker processes: alive without broker, task and model, ready with all of them."""

import urllib.error
import urllib.request
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.flow.patience import until
from tests.mosquitto import Mosquitto, free_port
from tests.worker.lc_peer import SERVICE, LcPeer
from tests.worker.scenes import EASY, Worker, dataset_of, make_task, running, write_dataset, write_model

from nereid_shared.messages import Task

pytestmark = pytest.mark.slow  # each test starts processes


class Kubelet:
    """Probes one worker."""

    def __init__(self) -> None:
        self.address = f"127.0.0.1:{free_port()}"

    def hears(self, path: str) -> tuple[int, str]:
        """Return status and text of an answer; 0 where there is none."""
        try:
            with urllib.request.urlopen(f"http://{self.address}{path}", timeout=30) as answer:
                return answer.status, answer.read().decode().strip()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode().strip()
        except urllib.error.URLError:
            return 0, ""

    def until(self, status: int, word: str = "") -> None:
        """Wait for a readiness."""
        until(lambda: (said := self.hears("/readyz"))[0] == status and word in said[1], f"{status} {word}")
        assert self.hears("/livez") == (200, "ok")


def test_an_edge_worker_is_alive_while_it_lacks_something_and_ready_with_its_model(
    tmp_path: Path, broker: Mosquitto
) -> None:
    kubelet, model = Kubelet(), tmp_path / "model"
    index = write_dataset(tmp_path / "data", [EASY] * 3)
    task = make_task(model / "little.tflite", dataset=dataset_of(index))
    broker.stop()
    with running(Worker(broker.url, tmp_path / "state", env={"NEREID_HEALTH": kubelet.address})):
        kubelet.until(503, "starting: WaitingForTask")
        broker.start()
        with LcPeer(broker.url, task=replace(task, model=replace(task.model, url=str(model / "none.tflite")))) as peer:
            kubelet.until(503, "failed: ")
            peer.give(replace(task, model=replace(task.model, url=str(write_model(model))), hash="h2"))
            kubelet.until(200)


def test_a_cloud_worker_is_alive_while_it_lacks_something_and_ready_where_it_gets_samples(
    tmp_path: Path, broker: Mosquitto
) -> None:
    kubelet, model = Kubelet(), tmp_path / "model"
    task: Task = replace(make_task(model / "little.tflite"), role="cloud", service=SERVICE, nodes=["edge-0"], group="g")
    env = {"NEREID_ROLE": "cloud", "NEREID_TASK": task.encode().decode(), "NEREID_HEALTH": kubelet.address}
    broker.stop()
    with running(Worker(broker.url, tmp_path / "state", env=env, log=tmp_path / "worker.log")):
        kubelet.until(503, "failed: ")
        broker.start()
        write_model(model)
        kubelet.until(200)
        broker.stop()
        kubelet.until(503, "no broker")
