# SPDX-License-Identifier: Apache-2.0
"""A model as a service on a laptop, at the edge and in the cloud: applied, asked, changed, broken, scaled, deleted."""

import base64
import json
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.flow import patience, processes
from tests.flow.test_up import User
from tests.mosquitto import free_port

from nereid_cloud import data

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
EDGE, CLOUD = "digits-edge", "digits-cloud"
DIGIT = data.path("examples") / "digits" / "models" / "little" / "golden" / "0.png"


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    someone = User(tmp_path)
    yield someone
    someone.types("down")
    processes.assert_none_left(someone.state)


class Client:
    """Asks a model again and again, on a connection of its own each time, until the context ends.

    Attributes:
        answered: how often each version answered.
        failed: what went wrong.
    """

    def __init__(self, url: str) -> None:
        self._url, self._stop = url, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answered: Counter[str] = Counter()
        self.failed: list[str] = []

    def __enter__(self) -> "Client":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.answered[version_of(ask(self._url))] += 1
            except OSError as error:
                self.failed.append(repr(error))


def ask(url: str, version: str = "") -> dict[str, Any]:
    where = f"{url}/v2/models/digits{version and f'/versions/{version}'}/infer"
    text = base64.b64encode(DIGIT.read_bytes()).decode()
    body = json.dumps({"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [text]}]}).encode()
    with urllib.request.urlopen(urllib.request.Request(where, data=body), timeout=10) as answer:  # noqa: S310
        found: dict[str, Any] = json.loads(answer.read())
    return found


def version_of(answer: dict[str, Any]) -> str:
    return str(answer["model_version"])


def status(user: User, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(user.does("get", "infm", name, "-o", "json")).get("status") or {}
    return found


def until_ready(user: User, name: str, *, ready: str, reason: str, version: str) -> dict[str, Any]:
    """Wait until a model's status says so, and return it."""

    def says() -> dict[str, Any] | None:
        found = status(user, name)
        condition: dict[str, str] = next(iter(found.get("conditions") or ()), {})
        said = condition.get("status"), condition.get("reason"), found.get("servingVersion")
        return found if said == (ready, reason, version) else None

    found = patience.until(says, f"{name} to be {ready}, {reason}, serving {version!r}")
    assert found is not None
    return found


def patch(user: User, name: str, **spec: Any) -> None:
    user.does("patch", "infm", name, "-p", json.dumps({"spec": spec}))


def apply_sample(user: User) -> dict[str, list[dict[str, str]]]:
    """Apply the sample that `nereid up` wrote, on ports of one's own; returns the manifests' versions."""
    user.does("up", "-d", "--base-port", "0")
    models = list(yaml.safe_load_all((user.state / "samples" / "inferencemodels.yaml").read_text()))
    for model in models:
        model["spec"]["servingPort"] = free_port()
    (user.folder / "models.yaml").write_text(yaml.safe_dump_all(models))
    user.does("apply", "-f", "models.yaml")
    return {model["metadata"]["name"]: model["spec"]["manifest"] for model in models}


def test_a_model_is_served_changed_broken_and_deleted(user: User) -> None:
    manifests = apply_sample(user)
    at_edge = until_ready(user, EDGE, ready="True", reason="Serving", version="1")
    in_cloud = until_ready(user, CLOUD, ready="True", reason="Serving", version="2")
    assert version_of(ask(at_edge["url"])) == "1"
    assert version_of(ask(in_cloud["url"])) == "2"
    assert ask(at_edge["url"])["outputs"] != ask(at_edge["url"], "2")["outputs"]

    with Client(at_edge["url"]) as edge, Client(in_cloud["url"]) as cloud:
        patch(user, EDGE, targetVersion="2")
        patch(user, CLOUD, targetVersion="1", replicas=2)
        until_ready(user, EDGE, ready="True", reason="Serving", version="2")
        scaled = until_ready(user, CLOUD, ready="True", reason="Serving", version="1")
    assert (scaled["replicas"], scaled["readyReplicas"]) == (2, 2)
    assert (edge.failed, cloud.failed) == ([], [])
    assert edge.answered.keys() == {"1", "2"} == cloud.answered.keys()

    wrong = {"version": "3", "downloadURL": manifests[EDGE][0]["downloadURL"], "sha256sum": "0" * 64}
    for name, serves in ((EDGE, "2"), (CLOUD, "1")):
        patch(user, name, manifest=[*manifests[name], wrong], targetVersion="3")
        broken = until_ready(user, name, ready="False", reason="DigestMismatch", version=serves)
        assert (broken["lastFailure"]["version"], broken["lastFailure"]["reason"]) == ("3", "DigestMismatch")
        assert version_of(ask(broken["url"])) == serves
        patch(user, name, targetVersion="9")
        until_ready(user, name, ready="False", reason="VersionNotFound", version=serves)
        patch(user, name, targetVersion=serves)
        until_ready(user, name, ready="True", reason="Serving", version=serves)

    assert "digits-edge" in user.does("get", "nereid")
    assert "Serving" in user.does("describe", f"infm/{EDGE}")
    user.does("delete", "-f", "models.yaml")
    patience.until(lambda: "digits" not in user.types("get", "pods,svc,deploy").stdout, "the Pods to be gone")
    for url in (at_edge["url"], in_cloud["url"]):
        with pytest.raises(urllib.error.URLError):
            ask(url)
    patience.until(lambda: not list(user.state.glob("nodes/*/var/lib/nereid/workers/digits-*")), "the folders to go")


def test_a_model_that_cannot_be_had_says_why_and_heals(user: User) -> None:
    apply_sample(user)
    until_ready(user, EDGE, ready="True", reason="Serving", version="1")
    patch(user, EDGE, nodeName="edge-9")
    until_ready(user, EDGE, ready="False", reason="NodeNotFound", version="")
    patch(user, EDGE, nodeName="edge-0")
    until_ready(user, EDGE, ready="True", reason="Serving", version="1")
    cloud = status(user, CLOUD)
    patch(user, CLOUD, servingPort=int(status(user, EDGE)["url"].rpartition(":")[2]))
    until_ready(user, CLOUD, ready="False", reason="PortTaken", version="2")
    patch(user, CLOUD, servingPort=int(cloud["url"].rpartition(":")[2]))
    until_ready(user, CLOUD, ready="True", reason="Serving", version="2")


def test_a_version_whose_folder_is_missing_takes_none_of_the_others_with_it(user: User) -> None:
    manifest = apply_sample(user)[EDGE]
    url = until_ready(user, EDGE, ready="True", reason="Serving", version="1")["url"]
    absent = {"version": "3", "downloadURL": f"{user.folder}/nope/a.tflite", "sha256sum": "0" * 64}
    patch(user, EDGE, manifest=[*manifest, absent], targetVersion="3")
    broken = until_ready(user, EDGE, ready="False", reason="ModelMissing", version="1")
    assert broken["lastFailure"]["version"] == "3"
    assert version_of(ask(url)) == "1"
    patch(user, EDGE, targetVersion="2")
    until_ready(user, EDGE, ready="True", reason="Serving", version="2")
