# SPDX-License-Identifier: Apache-2.0
"""From an InferenceModel's spec to what is served."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from nereid_shared.serving import port_of, serving_task, target_of, versions_of

SEED = Path(__file__).parents[1] / "seeds" / "inferencemodel.yaml"
IDENTITY: dict[str, Any] = {"uid": "u", "namespace": "default", "name": "n", "generation": 1}


def test_the_seeds_own_manifest_is_served_as_it_stands() -> None:
    spec = yaml.safe_load(SEED.read_text())["spec"]
    task = serving_task(spec, **IDENTITY)
    assert (task.model_name, task.framework, task.target, task.port) == ("facialexpression", "tensorflow", "4", 8501)
    assert [(one.version, one.url.rpartition("/")[2], len(one.sha256)) for one in task.versions] == [
        ("3", "model_emotion_3.tar.gz", 64), ("4", "model_emotion_4.tar.gz", 64),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "target", "port"),
    [
        ({}, "", 8501),
        ({"manifest": [{"version": "2"}, {"version": "1"}]}, "1", 8501),
        ({"manifest": [{"version": "2"}], "targetVersion": "", "servingPort": 0}, "2", 8501),
        ({"manifest": [{"version": "2"}], "targetVersion": "9", "servingPort": 80}, "9", 80),
    ],
)
def test_what_a_spec_does_not_say_has_a_meaning(spec: dict[str, Any], target: str, port: int) -> None:
    assert (target_of(spec), port_of(spec)) == (target, port)


def test_a_hash_tells_what_a_worker_reads() -> None:
    spec = yaml.safe_load(SEED.read_text())["spec"]
    same = serving_task({**spec, "replicas": 4, "nodeName": "x"}, **{**IDENTITY, "generation": 2})
    other = serving_task({**spec, "batching": {"maxSize": 1}}, **IDENTITY)
    assert serving_task(spec, **IDENTITY).hash == same.hash != other.hash
    assert list(versions_of(spec)) == ["3", "4"]
