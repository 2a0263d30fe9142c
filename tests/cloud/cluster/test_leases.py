# SPDX-License-Identifier: Apache-2.0
"""The contract of Leases: of several that take one at the same version, one succeeds."""

import threading
from typing import Any

import pytest

from nereid_cloud.cluster.kinds import ref_of
from nereid_cloud.cluster.port import Cluster, Object
from nereid_shared.errors import Conflict


@pytest.fixture
def lease(cluster: Cluster, namespace: str) -> Object:
    return cluster.create(
        {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": "gm", "namespace": namespace},
            "spec": {
                "holderIdentity": "first",
                "leaseDurationSeconds": 15,
                "renewTime": "2026-01-02T03:04:05.000000Z",
                "leaseTransitions": 0,
            },
        }
    )


def test_a_lease_keeps_its_times_to_the_microsecond(cluster: Cluster, lease: Object) -> None:
    assert cluster.get(ref_of(lease))["spec"]["renewTime"] == "2026-01-02T03:04:05.000000Z"


def test_one_of_many_takes_a_lease(cluster: Cluster, lease: Object) -> None:
    taken: list[str] = []

    def take(holder: str) -> None:
        wanted: dict[str, Any] = {**lease, "spec": {**lease["spec"], "holderIdentity": holder}}
        try:
            cluster.replace(wanted)
        except Conflict:
            return
        taken.append(holder)

    threads = [threading.Thread(target=take, args=(f"holder-{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(taken) == 1
    assert cluster.get(ref_of(lease))["spec"]["holderIdentity"] == taken[0]
