# SPDX-License-Identifier: Apache-2.0
"""A LocalCluster, and PodRunners that are real processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cloud.laptop.podrunner.runners import Runner, Runners

from nereid_cloud.cluster.local import DATABASE, LocalCluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    cluster = LocalCluster(tmp_path / DATABASE)
    yield cluster
    cluster.close()


@pytest.fixture
def runners(tmp_path: Path) -> Iterator[Runners]:
    """A factory of PodRunners; what they ran ends with the test, too."""
    runners = Runners(tmp_path)
    yield runners
    runners.close()


@pytest.fixture
def runner(runners: Runners) -> Runner:
    return runners()
