# SPDX-License-Identifier: Apache-2.0
"""Each sample can be applied by itself, and the parts together are the whole."""

import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.k8s.conftest import K8S

from nereid_cloud.cluster.local import LocalCluster
from nereid_cloud.cluster.opening import DATABASE

SAMPLES = sorted((K8S / "samples").glob("*.yaml"))


def objects(file: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(file.read_text()))


@pytest.mark.parametrize("file", SAMPLES, ids=lambda file: file.name)
def test_a_sample_can_be_applied(file: Path, tmp_path: Path) -> None:
    with closing(LocalCluster(tmp_path / DATABASE)):
        argv = [sys.executable, "-m", "nereid_cloud.cli", "--state", str(tmp_path), "apply", "-f", str(file)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout.count(" created")) == (0, len(objects(file))), done.stderr


def test_the_parts_are_the_whole() -> None:
    parts = [obj for name in ("models", "dataset", "service") for obj in objects(K8S / "samples" / f"{name}.yaml")]
    assert parts == objects(K8S / "samples" / "digits.yaml")
