# SPDX-License-Identifier: Apache-2.0
"""Which programs a system has, and what they are told."""

import contextlib
import socket
from pathlib import Path

import pytest
from tests.mosquitto import free_port

from nereid_cloud.gm.settings import Settings
from nereid_cloud.laptop.supervisor import Program
from nereid_cloud.laptop.system import BASE_PORT, Ports, System
from nereid_shared.errors import UserError


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


def test_a_taken_usual_port_makes_way_for_free_ones_where_none_was_asked_for() -> None:
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # where it is taken already, that is as good
            stack.enter_context(socket.create_server(("127.0.0.1", BASE_PORT + 1)))
        ports = Ports.choose(["edge-0"], None)
        assert BASE_PORT + 1 not in {ports.cloud, *ports.brokers.values(), *ports.links.values()}
        with pytest.raises(UserError, match="--base-port"):
            Ports.choose(["edge-0"], BASE_PORT)


def test_the_usual_ports_are_taken_where_they_are_free() -> None:
    try:
        held = [socket.create_server(("127.0.0.1", port)) for port in (BASE_PORT, BASE_PORT + 1)]
    except OSError:
        pytest.skip("another system holds the usual ports: end it with nereid down")
    for one in held:
        one.close()
    assert Ports.choose(["edge-0"], None).cloud == BASE_PORT
