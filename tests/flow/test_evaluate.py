# SPDX-License-Identifier: Apache-2.0
"""Models measured on a laptop as a user does it: on the node that has the data, with the figures in the status."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.flow import processes
from tests.flow.test_up import User

from nereid_cloud import data

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    someone = User(tmp_path)
    yield someone
    someone.types("down")
    processes.assert_none_left(someone.state)


def write_manifests(folder: Path) -> None:
    shutil.copytree(data.path("examples") / "digits" / "models", folder / "models")
    golden = folder / "models" / "little" / "golden"
    (golden / "index.csv").write_text("path,label\n0.png,8\n1.png,2\n2.png,6\n3.png,1\n")
    (golden / "bare.csv").write_text("path\n0.png\n")

    def resource(kind: str, name: str, **spec: Any) -> dict[str, Any]:
        return {"apiVersion": "edgeai.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}

    found = [
        *(resource("Model", name, modelUrl=str(folder / "models" / name / f"{name}.tflite"), format="tflite",
                   task="classification", labels=["1", "2"]) for name in ("little", "big")),
        resource("Model", "absent", modelUrl=str(folder / "models" / "absent" / "a.tflite"), task="other"),
        *(resource("Dataset", name, dataUrl=str(golden / f"{name}.csv"), format="csv", nodeName="edge-0")
          for name in ("index", "bare")),
    ]  # fmt: skip
    (folder / "all.yaml").write_text(yaml.safe_dump_all(found))


def test_models_are_measured_and_the_best_is_found(user: User) -> None:
    write_manifests(user.folder)
    user.does("up", "-d", "--base-port", "0")
    user.does("apply", "-f", "all.yaml")
    assert user.types("models", "select").returncode == 1
    for name in ("little", "big"):
        found = json.loads(user.does("evaluate", name, "--dataset", "index", "-o", "json"))
        assert (found["samples"], found["failed"]) == (4, {})
        model = json.loads(user.does("get", "model", name, "-o", "json"))
        figures = {one["key"]: one["value"] for one in model["status"]["metrics"]}
        assert figures.items() >= found["metrics"].items()
        assert (figures["dataset"], figures["evaluatedDigest"]) == ("index", found["digest"])
    smallest = user.types("models", "select", "--best", "sizeBytes", "-o", "name")
    assert (smallest.returncode, smallest.stdout.split()) == (0, ["little", "big"])
    assert "1 more fit and have no figure 'sizeBytes'" in smallest.stderr
    assert user.does("models", "select", "--task", "classification", "--class", "2").startswith("NAME")
    assert user.types("models", "select", "--class", "9").returncode == 1

    bare = user.types("evaluate", "little", "--dataset", "bare")
    assert bare.returncode == 2
    assert "1 have no class" in bare.stderr
    absent = user.types("evaluate", "absent", "--dataset", "index", "--timeout", "60s")
    assert absent.returncode == 1
    assert "FailedMount" in absent.stderr
    assert user.types("evaluate", "none", "--dataset", "index").returncode == 1
    assert "evaluate" not in user.types("get", "pods").stdout
