# SPDX-License-Identifier: Apache-2.0
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.conftest import MosquittoFactory
from tests.edge.peers import CloudPeer, EdgePeer, GmPeer, Lab


@pytest.fixture
def lab(mosquitto: MosquittoFactory, tmp_path: Path) -> Lab:
    return Lab(mosquitto(), mosquitto(), tmp_path / "lc")


@pytest.fixture
async def gm(lab: Lab) -> AsyncIterator[GmPeer]:
    peer = GmPeer(lab.cloud)
    async with peer.link:
        await peer.link.wait_connected()
        yield peer


@pytest.fixture
async def cloud(lab: Lab) -> AsyncIterator[CloudPeer]:
    peer = CloudPeer(lab.cloud)
    async with peer.link:
        await peer.link.wait_connected()
        yield peer


@pytest.fixture
async def worker(lab: Lab) -> AsyncIterator[EdgePeer]:
    peer = EdgePeer(lab.edge)
    async with peer.link:
        await peer.link.wait_connected()
        yield peer
