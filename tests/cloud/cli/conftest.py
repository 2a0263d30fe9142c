# SPDX-License-Identifier: Apache-2.0
"""The real nereid command, as a process of its own, on a LocalCluster in a state folder."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from nereid_cloud.cluster.local import LocalCluster
from nereid_cloud.cluster.opening import DATABASE
from nereid_cloud.laptop import statelock

TIMEOUT_S = 60


class Nereid(Protocol):
    """Runs the command and returns when it has ended."""

    def __call__(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]: ...


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "nereid_cloud.cli", *arguments]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


@pytest.fixture
def cluster(state: Path) -> Iterator[LocalCluster]:
    opened = LocalCluster(state / DATABASE)
    with statelock.held(state):  # as by a system that is up
        yield opened
    opened.close()


@pytest.fixture
def nereid(cluster: LocalCluster, state: Path) -> Nereid:
    del cluster  # the command wants one to be there

    def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        argv = command("--state", str(state), *arguments)
        return subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)

    return run


@pytest.fixture
def started(state: Path, cluster: LocalCluster) -> Iterator["Start"]:
    """Starts the command and leaves it running; it is killed with the test."""
    del cluster
    running: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        argv = command("--state", str(state), *arguments)
        running.append(subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.communicate()


class Start(Protocol):
    """Starts the command."""

    def __call__(self, *arguments: str) -> subprocess.Popen[str]: ...
