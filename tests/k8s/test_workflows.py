# SPDX-License-Identifier: Apache-2.0
"""The forge's workflow: it runs what is here, its actions are pinned, and its last step pushes one image per name."""

import json
import platform
import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.k8s.conftest import K8S

ROOT = K8S.parent
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
PINNED = re.compile(r"uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")


@pytest.fixture(scope="module")
def jobs() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text())["jobs"]
    return found


def commands(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def test_each_action_is_pinned_to_a_commit_and_says_its_version() -> None:
    used = [line.strip(" -") for line in WORKFLOW.read_text().splitlines() if "uses:" in line]
    assert used
    assert [line for line in used if not PINNED.match(line)] == []


def test_images_are_pushed_only_of_a_tag_that_passed(jobs: dict[str, Any]) -> None:
    assert any(".ci/run" in command for command in commands(jobs["test"]))
    assert jobs["images"]["needs"] == "test"
    pushing = [step for step in jobs["images"]["steps"] if "images/push.sh" in step.get("run", "")]
    assert [step["if"] for step in pushing] == ["startsWith(github.ref, 'refs/tags/v')"]
    writers = [name for name, job in jobs.items() if "write" in job.get("permissions", {}).values()]
    assert writers == ["images"]
    assert yaml.safe_load(WORKFLOW.read_text())["permissions"] == {"contents": "read"}


def test_what_it_runs_and_reads_is_there(jobs: dict[str, Any]) -> None:
    text = "\n".join(command for job in jobs.values() for command in commands(job))
    targets = set(re.findall(r"\bmake (\w+)", text))
    assert targets <= set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    inputs = [value for job in jobs.values() for step in job["steps"] for value in step.get("with", {}).values()]
    named = re.findall(r"(?:images/\S+\.sh|\.ci/\w+)", text) + [v for v in inputs if str(v).startswith("tests/")]
    assert named
    assert [name for name in named if not (ROOT / name).is_file()] == []


@pytest.mark.slow
def test_the_archives_become_one_image_per_name(tmp_path: Path) -> None:
    if shutil.which("buildah") is None:
        pytest.skip("no buildah: apt-get install buildah")
    archives = {"cloud", "edge", "worker", "broker"}
    if not all((ROOT / "dist" / "images" / f"nereid-{part}.tar").exists() for part in archives):
        pytest.skip("no images: make images")
    arch = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    argv = ["sh", str(ROOT / "images" / "push.sh"), f"oci:{tmp_path}", arch]
    subprocess.run(argv, check=True, capture_output=True, timeout=100)
    for part in archives:
        (top,) = json.loads((tmp_path / f"nereid-{part}" / "index.json").read_text())["manifests"]
        assert top["annotations"]["org.opencontainers.image.ref.name"] == version("nereid-ai")
        algorithm, digest = top["digest"].split(":")
        index = json.loads((tmp_path / f"nereid-{part}" / "blobs" / algorithm / digest).read_text())
        assert [entry["platform"]["architecture"] for entry in index["manifests"]] == [arch]
