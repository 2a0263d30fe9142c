# SPDX-License-Identifier: Apache-2.0
"""A deleted service leaves no folder on the simulated nodes; nobody else's goes."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.shared.resources.cases import SERVICE

from nereid_cloud.cluster.kinds import ref_of
from nereid_cloud.cluster.local import DATABASE, LocalCluster
from nereid_cloud.cluster.port import Object
from nereid_cloud.laptop.leftovers import Leftovers
from nereid_shared.topics import service_id


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    with closing(LocalCluster(tmp_path / DATABASE)) as opened:
        yield opened


def folder_of(state: Path, service: Object, node: str = "edge-0") -> Path:
    name = service_id(service["metadata"]["name"], service["metadata"]["uid"])
    folder = state / "nodes" / node / "var/lib/nereid/workers" / name
    folder.mkdir(parents=True)
    (folder / "answers.jsonl").write_text("{}\n")
    return folder


def test_a_folder_goes_with_its_service_on_every_node(tmp_path: Path, cluster: LocalCluster) -> None:
    leftovers = Leftovers(cluster, state=tmp_path)
    service = cluster.create(SERVICE)
    folders = [folder_of(tmp_path, service, node) for node in ("edge-0", "edge-1")]
    leftovers.reconcile()
    assert all(folder.exists() for folder in folders)
    cluster.delete(ref_of(service))
    leftovers.reconcile()
    assert not any(folder.exists() for folder in folders)


def test_a_folder_stays_while_a_pod_mounts_it(tmp_path: Path, cluster: LocalCluster) -> None:
    leftovers = Leftovers(cluster, state=tmp_path)
    service = cluster.create(SERVICE)
    folder = folder_of(tmp_path, service)
    pod = cluster.create({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "worker"},
        "spec": {
            "nodeName": "edge-0", "containers": [{"name": "worker", "image": "i"}],
            "volumes": [{"name": "state", "hostPath": {"path": f"/var/lib/nereid/workers/{folder.name}"}}],
        },
    })  # fmt: skip
    leftovers.reconcile()
    cluster.delete(ref_of(service))
    leftovers.reconcile()
    assert folder.exists()
    cluster.delete(ref_of(pod), grace_s=0)
    leftovers.reconcile()
    assert not folder.exists()


def test_what_was_never_seen_to_go_stays(tmp_path: Path, cluster: LocalCluster) -> None:
    """A cluster whose file was lost knows nobody: that is no reason to clear the nodes."""
    leftovers = Leftovers(cluster, state=tmp_path)
    foreign = folder_of(tmp_path, {"metadata": {"name": "digits", "uid": "12345678-of-another-cluster"}})
    former = cluster.create(SERVICE)
    leftovers.reconcile()
    cluster.delete(ref_of(former))
    again = cluster.create(SERVICE)
    own = folder_of(tmp_path, again)
    leftovers.reconcile()
    assert foreign.exists()
    assert own.exists(), "a service of the same name is another service"
