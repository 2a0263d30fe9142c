# SPDX-License-Identifier: Apache-2.0
"""A Model that is changed while its service runs, from a server that cuts and lies: what serves, what is told."""

import csv
import hashlib
import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from tests.flow import patience, processes
from tests.flow.test_up import User, new_service
from tests.flow.test_up import user as user  # noqa: PLC0414 - a fixture
from tests.shared.storage.file_server import Server, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
LITTLE = "mine-little"
PART = 20


@pytest.fixture
def server(user: User) -> Iterator[Server]:
    """Serves the little model, a better one, and one whose card promises other outputs."""
    with serving() as running:
        for version, name in (("v1", "little"), ("v2", "big")):
            folder = user.folder / name
            for file in folder.rglob("*"):
                if file.is_file():
                    running.files[f"/{version}/{file.relative_to(folder)}"] = file.read_bytes()
        running.files |= {path.replace("v1", "v3"): content for path, content in running.files.items() if "v1" in path}
        running.files["/v3/little.tflite"] = running.files["/v2/big.tflite"]
        card = json.loads(running.files["/v3/model.json"])
        running.files["/v3/model.json"] = json.dumps({**card, "file": None}).encode()
        yield running


class Service:
    """A service whose pictures come in parts."""

    def __init__(self, user: User, server: Server) -> None:
        self.user, self.server = user, server
        new_service(user)
        self._index = user.folder / "mine" / "data" / "index.csv"
        with self._index.open(newline="") as file:
            self._head, *self._rows = csv.reader(file)
        self.given = 0
        self.give()
        manifest = user.folder / "mine" / "mine.yaml"
        documents = list(yaml.safe_load_all(manifest.read_text()))
        documents[0]["spec"] = self.model("/v1/little.tflite")
        manifest.write_text(yaml.safe_dump_all(documents))
        user.does("up", "-d", "--base-port", "0")
        user.does("apply", "-f", "mine/mine.yaml")

    def model(self, path: str, *, sha256: str = "") -> dict[str, str]:
        return {"modelUrl": self.server.url_of(path), "sha256": sha256 or self.digest(path), "format": "tflite"}

    def digest(self, path: str) -> str:
        return hashlib.sha256(self.server.files[path]).hexdigest()

    def change_model(self, path: str, *, sha256: str = "") -> None:
        self.user.does("patch", f"model/{LITTLE}", "-p", json.dumps({"spec": self.model(path, sha256=sha256)}))

    def give(self) -> None:
        """Add some pictures."""
        self.given += PART
        with self._index.open("w", newline="") as file:
            csv.writer(file).writerows([self._head, *self._rows[: self.given]])

    def goes_on(self) -> None:
        """Add pictures and return when they are answered."""
        self.give()
        self.wait_answered()

    def wait_answered(self) -> None:
        patience.until(lambda: len(self.answers()) >= self.given, f"{self.given} answers", within_s=60)

    def answers(self) -> list[dict[str, Any]]:
        logs = self.user.state.glob("nodes/edge-0/var/lib/nereid/workers/mine-*/answers.jsonl")
        events = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
        return [event for event in events if event["event"] == "edge"]

    def ready(self, what: str) -> tuple[str, str, str]:
        """Return status, reason and message of a Ready condition."""
        done = self.user.types("get", what, "-o", "json")
        conditions = (json.loads(done.stdout).get("status") or {}).get("conditions") or [{}] if done.stdout else [{}]
        return tuple(conditions[0].get(key, "") for key in ("status", "reason", "message"))

    def wait_ready(self, what: str, *wanted: str) -> str:
        """Return the message of a Ready condition once its status and reason are these."""
        patience.until(lambda: self.ready(what)[:2] == wanted, f"{what} to be {wanted}", within_s=60)
        return self.ready(what)[2]


@pytest.fixture
def service(user: User, server: Server) -> Service:
    made = Service(user, server)
    made.wait_ready(f"model/{LITTLE}", "True", "Ready")
    made.wait_answered()
    return made


def test_the_former_model_serves_until_the_new_one_is_there_and_then_no_picture_is_lost(service: Service) -> None:
    v1, v2, worker = "/v1/little.tflite", "/v2/big.tflite", processes.part(service.user.state, "worker-edge")
    server = service.server
    server.cuts, server.stalls, server.cut_after = 2, 1, len(server.files[v2]) // 4
    service.change_model(v2)
    patience.until(server.stalled.is_set, "three quarters of the model")
    message = service.wait_ready("jis/mine", "True", "ModelFetching")
    assert "edge-0" in message
    patience.until(lambda: "75 %" in service.ready(f"model/{LITTLE}")[2], "the share that is here")
    service.goes_on()
    assert {one["model"] for one in service.answers()} == {service.digest(v1)}
    server.go_on.set()
    service.wait_ready(f"model/{LITTLE}", "True", "Ready")
    service.wait_ready("jis/mine", "True", "SourceFinished")
    service.goes_on()
    assert [one["model"] for one in service.answers()] == (
        [service.digest(v1)] * 2 * PART + [service.digest(v2)] * PART
    )  # fmt: skip
    assert len({one["key"] for one in service.answers()}) == 3 * PART
    assert processes.part(service.user.state, "worker-edge") == worker
    # Counts follow their answers within the interval.
    patience.until(lambda: service.user.metric("mine", "seen") == 3 * PART, "the counts")
    status = json.loads(service.user.does("get", f"model/{LITTLE}", "-o", "json"))["status"]
    assert (status["digest"], status["size"]) == (service.digest(v2), len(server.files[v2]))
    assert status["nodes"] == {"ready": 1, "total": 1}


def test_a_worker_that_ends_soon_after_goes_back_by_itself(service: Service) -> None:
    service.wait_ready("model/mine-big", "True", "Ready")  # the cloud's, of which the cloud worker tells
    service.change_model("/v2/big.tflite")
    service.wait_ready(f"model/{LITTLE}", "True", "Ready")
    service.goes_on()
    os.kill(processes.part(service.user.state, "worker-edge"), signal.SIGKILL)
    for what, status in (("jis/mine", "True"), (f"model/{LITTLE}", "False")):
        assert "on probation" in service.wait_ready(what, status, "RolledBack")
    service.goes_on()
    v1, v2 = service.digest("/v1/little.tflite"), service.digest("/v2/big.tflite")
    assert [one["model"] for one in service.answers()] == [v1] * PART + [v2] * PART + [v1] * PART
    assert "RolledBack" in service.user.does("events")


def test_what_is_not_as_promised_never_serves_and_is_told(service: Service) -> None:
    v1 = service.digest("/v1/little.tflite")
    service.change_model("/v2/big.tflite", sha256="0" * 64)
    for what, status in (("jis/mine", "True"), (f"model/{LITTLE}", "False")):
        assert "sha256" in service.wait_ready(what, status, "DigestMismatch")
    service.goes_on()
    service.change_model("/v3/little.tflite")
    for what, status in (("jis/mine", "True"), (f"model/{LITTLE}", "False")):
        service.wait_ready(what, status, "GoldenMismatch")
    service.goes_on()
    assert {one["model"] for one in service.answers()} == {v1}
    failure = json.loads(service.user.does("get", f"model/{LITTLE}", "-o", "json"))["status"]["lastFailure"]
    assert (failure["node"], failure["reason"]) == ("edge-0", "GoldenMismatch")
    service.change_model("/v1/little.tflite")
    service.wait_ready("jis/mine", "True", "SourceFinished")
    told = service.user.does("events")
    assert "DigestMismatch" in told
    assert "GoldenMismatch" in told
