# SPDX-License-Identifier: Apache-2.0
"""A part that does not come up is named, with what it said last."""

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.mosquitto import free_port

from nereid_cloud.cluster.local import LocalCluster
from nereid_cloud.cluster.opening import DATABASE
from nereid_cloud.laptop.readiness import Signs, until_up
from nereid_cloud.laptop.supervisor import Program, Supervisor
from nereid_cloud.laptop.system import Ports, System
from nereid_shared.errors import UserError


@pytest.fixture
def system(tmp_path: Path) -> System:
    ports = Ports(cloud=free_port(), brokers={"edge-0": free_port()}, links={"edge-0": free_port()})
    return System(state=tmp_path, nodes=["edge-0"], ports=ports)


@pytest.fixture
def cluster(system: System) -> Iterator[LocalCluster]:
    with closing(LocalCluster(system.state / DATABASE)) as opened:
        yield opened


async def problem_of(system: System, cluster: LocalCluster, name: str, script: str, *, limit_s: float) -> str:
    """Return what `until_up` says where one part runs a script in place of what it should."""
    signs = Signs(system, cluster)
    async with Supervisor() as supervisor:
        supervisor.add(
            Program(name=name, argv=(sys.executable, "-c", script), env={}, log=system.state / f"{name}.log")
        )
        with pytest.raises(UserError) as caught:
            await until_up(system, supervisor, signs, lambda _: None, limit_s=limit_s)
    return str(caught.value)


async def test_a_part_that_refuses_to_start_is_not_waited_for(system: System, cluster: LocalCluster) -> None:
    said = await problem_of(system, cluster, "lc-edge-0", "import sys; print('my disk'); sys.exit(2)", limit_s=60)
    assert "lc-edge-0 did not start" in said
    assert "my disk" in said


async def test_a_part_that_ends_again_and_again_is_not_waited_for(system: System, cluster: LocalCluster) -> None:
    said = await problem_of(system, cluster, "gm", "import os; os._exit(3)", limit_s=60)
    assert "gm did not start; gm.log is empty" in said


@pytest.mark.parametrize("name", ["gm", "lc-edge-0", "links", "controllers", "podrunner-edge-0", "broker-edge-0"])
async def test_a_part_that_runs_and_says_nothing_is_not_up(system: System, cluster: LocalCluster, name: str) -> None:
    script = "import time; print('I run', flush=True); time.sleep(60)"
    said = await problem_of(system, cluster, name, script, limit_s=0.5)
    assert f"{name} was not up" in said


async def test_what_a_former_run_left_is_no_sign(system: System, cluster: LocalCluster) -> None:
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": {"holderIdentity": "1"}}
    cluster.create({**lease, "metadata": {"name": "nereid-controllers", "namespace": "kube-system"}})
    said = await problem_of(system, cluster, "controllers", "import time; time.sleep(60)", limit_s=0.3)
    assert "controllers was not up" in said
