# SPDX-License-Identifier: Apache-2.0
"""What a node's serving worker is told, and when."""

from collections.abc import Mapping
from typing import Any

import pytest
from tests.edge.rows import row

from nereid_edge.preparing import BEGUN, Artefact, Preparation
from nereid_edge.serving import Here, artefacts_of, missing_target, on_its_way, outputs, prepared
from nereid_edge.spec import SpecProblem, served_task
from nereid_shared.messages import ModelOutput, ServingTask, TaskRow

SPEC: dict[str, Any] = {
    "modelName": "digits", "deployToLayer": "edge", "frameworkType": "tflite", "servingPort": 8600,
    "manifest": [
        {"version": "3", "downloadURL": "https://host/3.tar.gz", "sha256sum": "a" * 64},
        {"version": "4", "downloadURL": "/models/4.tflite"},
        {"version": "5", "downloadURL": "https://host/5.tar.gz", "sha256sum": ""},
    ],
    "targetVersion": "3", "batching": {"maxSize": 4, "maxWait": "2ms"},
}  # fmt: skip


def served_row(**spec: Any) -> TaskRow:
    fields = {key: value for key, value in {**SPEC, **spec}.items() if value is not None}
    return row(kind="InferenceModel", spec=fields, refs={"worker": "digits-serving-1", "service": "digits-1"})


def task(**spec: Any) -> ServingTask:
    return served_task("uid", served_row(**spec))


def here(found: Mapping[str, Preparation] | None = None) -> Here:
    """What is here, by version."""
    return lambda artefact: (found or {}).get(artefact.url.rpartition("/")[2].partition(".")[0], BEGUN)


READY = Preparation("ready", path="/cache/sets/3", digest="a" * 64, key="k")
FAILED = Preparation("failed", reason="DigestMismatch", message="its sha256 is another")


def test_a_task_is_what_the_spec_says() -> None:
    made = task()
    assert (made.model_name, made.framework, made.target, made.port) == ("digits", "tflite", "3", 8600)
    assert (made.max_batch, made.max_wait_s) == (4, 0.002)
    assert [(one.version, one.url, one.sha256) for one in made.versions] == [
        ("3", "https://host/3.tar.gz", "a" * 64), ("4", "/models/4.tflite", ""), ("5", "https://host/5.tar.gz", ""),
    ]  # fmt: skip


def test_what_the_worker_does_not_read_is_no_other_task() -> None:
    assert task().hash == task(replicas=9).hash != task(targetVersion="4").hash


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"modelName": None}, "spec.modelName is missing"),
        ({"manifest": [{"version": "3"}]}, "spec.downloadURL is missing"),
        ({"servingPort": "http"}, "spec: "),
        ({"batching": {"maxWait": "soon"}}, "spec: "),
        ({"modelName": 7}, "modelName: "),
    ],
)
def test_a_spec_that_cannot_be_served_says_why(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecProblem, match=says):
        task(**changes)


def test_only_what_is_elsewhere_is_fetched() -> None:
    assert artefacts_of(task()) == {
        "3": Artefact("https://host/3.tar.gz", "a" * 64, companions=True),
        "5": Artefact("https://host/5.tar.gz", "", companions=True),
    }


def test_a_worker_is_told_of_no_target_that_is_not_here() -> None:
    plan = task()
    assert prepared(plan, artefacts_of(plan), here()) is None
    found = missing_target(plan, artefacts_of(plan), here({"3": FAILED}))
    assert found is not None
    assert on_its_way(plan, found) == ("DigestMismatch", "version 3 cannot be had: its sha256 is another")
    assert on_its_way(plan, BEGUN)[1] == "version 3 is fetched: not here yet"


def test_a_worker_is_told_of_the_versions_that_are_here_with_their_files() -> None:
    plan = task()
    told = prepared(plan, artefacts_of(plan), here({"3": READY, "5": FAILED}))
    assert told is not None
    assert [(one.version, one.path) for one in told.versions] == [("3", "/cache/sets/3"), ("4", "")]
    assert told.hash != plan.hash


def test_a_file_of_this_node_waits_for_nothing() -> None:
    plan = task(targetVersion="4")
    told = prepared(plan, artefacts_of(plan), here())
    assert told is not None
    assert [one.version for one in told.versions] == ["4"]


def test_what_is_not_here_is_told_beside_what_the_worker_says() -> None:
    plan = task()
    said = [ModelOutput(name="digits", version="4", url="/models/4.tflite", status="ready")]
    told = outputs(plan, artefacts_of(plan), here({"3": FAILED, "5": READY}), said)
    assert [(one.version, one.status, one.reason) for one in told] == [
        ("4", "ready", ""), ("3", "failed", "DigestMismatch"),
    ]  # fmt: skip


def test_a_version_of_another_digest_at_the_same_url_is_not_told_for() -> None:
    plan = task()
    url = next(one.url for one in plan.versions if one.version == "3")
    said = [ModelOutput(name="digits", version="9", url=url, status="ready")]
    told = outputs(plan, artefacts_of(plan), here({"3": FAILED, "5": READY}), said)
    assert ("3", "DigestMismatch") in [(one.version, one.reason) for one in told]
