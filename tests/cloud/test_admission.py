# SPDX-License-Identifier: Apache-2.0
"""A LocalCluster admits and refuses what the resources say, by the same fields."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.shared.resources.cases import CASES, Case

from nereid_cloud.cluster.local import LocalCluster
from nereid_shared.errors import Invalid


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    opened = LocalCluster(Path(tmp_path_factory.mktemp("admission")) / "cluster.db")
    yield opened
    opened.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_manifest_is_admitted_or_refused_by_its_field(cluster: LocalCluster, case: Case) -> None:
    if not case.refused:
        cluster.create(case.manifest(), dry_run=True)
        return
    with pytest.raises(Invalid) as refusal:
        cluster.create(case.manifest(), dry_run=True)
    assert [cause.field for cause in refusal.value.causes] == [case.refused]
