# SPDX-License-Identifier: Apache-2.0
"""A GlobalManager that has stopped leaves its last words standing: who reads them is told how old they may be."""

import json
import subprocess
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.cloud.cli.conftest import TIMEOUT_S, Nereid, command
from tests.cloud.cli.objects import service
from tests.cluster.control_plane import ApiServer
from tests.cluster.faults import FaultProxy
from tests.cluster.kubectl import Kubectl
from tests.shared.resources.cases import SERVICE, changed

from nereid_cloud.cluster.local import LocalCluster
from nereid_cloud.cluster.opening import DATABASE
from nereid_cloud.cluster.port import Object

LEASE_S = 600
OLD = "what follows may be old"

pytestmark = pytest.mark.slow  # each test starts processes


def lease(ago_s: float, namespace: str = "default") -> Object:
    """A GlobalManager's Lease that was renewed so long ago."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "nereid-gm", "namespace": namespace},
        "spec": {
            "holderIdentity": "gm",
            "leaseDurationSeconds": LEASE_S,
            "renewTime": (datetime.now(UTC) - timedelta(seconds=ago_s)).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        },
    }


def test_get_and_describe_say_since_when_nobody_speaks(nereid: Nereid, cluster: LocalCluster) -> None:
    service(cluster)
    made = cluster.create(lease(3600))
    moment = made["spec"]["renewTime"][:19] + "Z"
    for words in (("get", "jis"), ("get", "nereid"), ("get", "jis/digits", "-o", "name"), ("describe", "jis/digits")):
        said = nereid(*words)
        assert said.returncode == 0
        assert said.stdout
        assert said.stderr == f"Warning: no GlobalManager has spoken since {moment} (60m ago): {OLD}\n"


def test_what_is_not_the_global_managers_is_never_old(nereid: Nereid, cluster: LocalCluster) -> None:
    service(cluster)
    cluster.create(lease(3600))
    assert nereid("get", "pods").stderr == "No resources found in default namespace.\n"


@pytest.mark.parametrize("ago_s", [0, LEASE_S + 1])
def test_a_lease_that_is_kept_or_may_change_hands_is_no_silence(
    nereid: Nereid, cluster: LocalCluster, ago_s: float
) -> None:
    service(cluster)
    cluster.create(lease(ago_s))
    assert nereid("get", "jis").stderr == ""


def test_without_a_lease_nobody_ever_spoke(nereid: Nereid, cluster: LocalCluster) -> None:
    service(cluster)
    assert nereid("get", "jis").stderr == ""


def test_one_lease_that_is_kept_is_enough(nereid: Nereid, cluster: LocalCluster) -> None:
    service(cluster)
    for made in (lease(3600), lease(0, "kube-system")):
        cluster.create(made)
    assert nereid("get", "jis").stderr == ""


@pytest.mark.cluster
def test_a_real_server_says_the_same_to_who_may_read_leases(
    own_server: ApiServer, kubectl: Kubectl, tmp_path: Path
) -> None:
    kubectl("delete", "leases", "--all-namespaces", "--field-selector=metadata.name=nereid-gm")
    kubectl("apply", "-f", "-", stdin=json.dumps(changed(SERVICE, {"metadata.namespace": None})))
    kubectl("create", "-f", "-", stdin=json.dumps(lease(3600, kubectl.namespace)))
    words = ("get", "jis", "-n", kubectl.namespace, "--kubeconfig")
    assert OLD in run(*words, str(own_server.kubeconfig)).stderr
    with FaultProxy(own_server.kubeconfig) as proxy:
        proxy.refuse(403, "Forbidden", when=lambda request: "/leases" in request.path, times=9)
        said = run(*words, str(proxy.kubeconfig(tmp_path)))
    assert (said.returncode, said.stderr) == (0, "")
    assert "digits" in said.stdout


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def test_of_a_system_that_is_down_the_user_is_told_once(state: Path) -> None:
    with closing(LocalCluster(state / DATABASE)) as cluster:
        service(cluster)
        cluster.create(lease(3600))
    (line,) = run("get", "jis", "--state", str(state)).stderr.splitlines()
    assert "the system is not up" in line
