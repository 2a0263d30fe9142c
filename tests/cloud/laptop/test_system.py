# SPDX-License-Identifier: Apache-2.0
"""Which programs a system has, and what they are told."""

from pathlib import Path

import pytest
from tests.mosquitto import free_port

from nereid_cloud.gm.settings import Settings
from nereid_cloud.laptop.supervisor import Program
from nereid_cloud.laptop.system import Ports, System


@pytest.fixture
def programs(tmp_path: Path) -> dict[str, Program]:
    ports = Ports(cloud=free_port(), brokers={"edge-0": free_port()}, links={"edge-0": free_port()})
    system = System(state=tmp_path, nodes=["edge-0"], ports=ports)
    return {program.name: program for program in system.programs()}


def test_two_global_managers_never_share_an_identity(programs: dict[str, Program]) -> None:
    """The same identity takes its own Lease at once: two of them would both lead."""
    _, _, _, *arguments = programs["gm"].argv
    first, second = Settings.from_args(arguments), Settings.from_args(arguments)
    assert first.lease.identity != second.lease.identity
    assert first.link.client_id != second.link.client_id
