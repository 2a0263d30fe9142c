# SPDX-License-Identifier: Apache-2.0
"""A LocalCluster and a real API server admit and refuse what the resources say, by the same fields."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.cloud.cli.conftest import TIMEOUT_S, command
from tests.cluster.control_plane import ApiServer
from tests.shared.resources.cases import CASES, DATASET, UNKNOWN_FIELDS, Case, changed

from nereid_cloud.cluster.kinds import ref_of
from nereid_cloud.cluster.kubernetes import KubernetesCluster
from nereid_cloud.cluster.local import DATABASE, LocalCluster
from nereid_cloud.cluster.port import Cluster
from nereid_shared.errors import Invalid

BAD = [case for case in (*CASES, *UNKNOWN_FIELDS) if case.refused]


@pytest.fixture(scope="module", params=["local", pytest.param("kubernetes", marks=pytest.mark.cluster)])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if request.param == "local":
        opened: Cluster = LocalCluster(tmp_path_factory.mktemp("admission") / "cluster.db")
    else:
        opened = KubernetesCluster(kubeconfig=request.getfixturevalue("api_server").kubeconfig)
    yield opened
    opened.close()


@pytest.mark.parametrize("case", [*CASES, *UNKNOWN_FIELDS], ids=lambda case: case.name)
def test_each_manifest_is_admitted_or_refused_by_its_field(cluster: Cluster, case: Case) -> None:
    if not case.refused:
        cluster.create(case.manifest(), dry_run=True)
        return
    with pytest.raises(Invalid) as refusal:
        cluster.create(case.manifest(), dry_run=True)
    # "<nil>" is the API server's remark that it checked no rules, since the schema was broken already; what scales is
    # checked twice, the second time as `.spec.replicas`.
    fields = [cause.field.removeprefix(".") for cause in refusal.value.causes if cause.field != "<nil>"]
    assert list(dict.fromkeys(fields)) == [case.refused]


def test_a_dataset_stays_on_its_node(cluster: Cluster) -> None:
    named = changed(DATASET, {"metadata.name": "immutable"})
    ref = ref_of(cluster.apply(named, manager="test"))
    with pytest.raises(Invalid) as refusal:
        cluster.apply(changed(named, {"spec.nodeName": "edge-1"}), manager="test")
    cluster.delete(ref)
    assert [cause.field for cause in refusal.value.causes] == ["spec.nodeName"]


def refusals(folder: Path, *where: str) -> list[str]:
    """What `nereid apply` says to each bad manifest of one file."""
    file = folder / "bad.yaml"
    file.write_text(yaml.safe_dump_all(case.manifest() for case in BAD))
    argv = command("apply", "-f", str(file), "--dry-run=server", *where)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    return [line for line in done.stderr.splitlines() if line.startswith("error: ")]


def assert_each_is_named(said: list[str]) -> None:
    for number, case in enumerate(BAD, start=1):
        place, field = f": document {number} ({case.kind} ", f": {case.refused}: "
        assert any(place in line and field in line for line in said), case.name


def test_there_are_enough_bad_manifests() -> None:
    assert len(BAD) >= 60


def test_nereid_apply_names_the_field_on_a_laptop(tmp_path: Path) -> None:
    LocalCluster(tmp_path / DATABASE).close()
    assert_each_is_named(refusals(tmp_path, "--state", str(tmp_path)))


@pytest.mark.cluster
def test_nereid_apply_names_the_field_on_an_api_server(api_server: ApiServer, tmp_path: Path) -> None:
    assert_each_is_named(refusals(tmp_path, "--kubeconfig", str(api_server.kubeconfig)))
