# SPDX-License-Identifier: Apache-2.0
"""The broker fixture itself."""

import socket

from tests.mosquitto import Mosquitto


def test_a_broker_accepts_connections_and_comes_back_on_its_port(broker: Mosquitto) -> None:
    port, pid = broker.port, broker.pid
    broker.kill()
    assert not broker.running
    broker.start()
    assert broker.port == port
    assert broker.pid != pid
    socket.create_connection((broker.host, broker.port), timeout=1).close()
