# SPDX-License-Identifier: Apache-2.0
"""A LocalCluster and a real API server admit and refuse what the resources say, by the same fields."""

from collections.abc import Iterator

import pytest
from tests.shared.resources.cases import CASES, DATASET, Case, changed

from nereid_cloud.cluster.kubernetes import KubernetesCluster
from nereid_cloud.cluster.local import LocalCluster
from nereid_cloud.cluster.port import Cluster
from nereid_shared.errors import Invalid


@pytest.fixture(scope="module", params=["local", pytest.param("kubernetes", marks=pytest.mark.cluster)])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if request.param == "local":
        opened: Cluster = LocalCluster(tmp_path_factory.mktemp("admission") / "cluster.db")
    else:
        opened = KubernetesCluster(kubeconfig=request.getfixturevalue("api_server").kubeconfig)
    yield opened
    opened.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_manifest_is_admitted_or_refused_by_its_field(cluster: Cluster, case: Case) -> None:
    if not case.refused:
        cluster.create(case.manifest(), dry_run=True)
        return
    with pytest.raises(Invalid) as refusal:
        cluster.create(case.manifest(), dry_run=True)
    # "<nil>" is the API server's remark that it checked no rules, since the schema was broken already.
    assert [cause.field for cause in refusal.value.causes if cause.field != "<nil>"] == [case.refused]


def test_a_dataset_stays_on_its_node(cluster: Cluster) -> None:
    named = changed(DATASET, {"metadata.name": "immutable"})
    cluster.apply(named, manager="test")
    with pytest.raises(Invalid) as refusal:
        cluster.apply(changed(named, {"spec.nodeName": "edge-1"}), manager="test")
    assert [cause.field for cause in refusal.value.causes] == ["spec.nodeName"]
