# SPDX-License-Identifier: Apache-2.0
"""A LocalCluster, a broker and a GlobalManager that leads quickly."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from tests.cloud.gm.peers import Eyes, Kubelet, add_node, model
from tests.mosquitto import Mosquitto

from nereid_cloud.cluster.local import DATABASE, LocalCluster
from nereid_cloud.gm.manager import run
from nereid_cloud.gm.settings import Settings

GmFactory = Callable[..., contextlib.AbstractAsyncContextManager[asyncio.Task[None]]]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    local = LocalCluster(tmp_path / DATABASE)
    yield local
    local.close()


@pytest.fixture
async def eyes(cluster: LocalCluster) -> AsyncIterator[Eyes]:
    async with Eyes(cluster) as looking:
        yield looking


@pytest.fixture
async def kubelet(cluster: LocalCluster, broker: Mosquitto) -> AsyncIterator[Kubelet]:
    async with Kubelet(broker.url, cluster).running() as running:
        yield running


@pytest.fixture
def ready_cluster(cluster: LocalCluster) -> LocalCluster:
    """Two nodes and both models."""
    add_node(cluster, "cloud")
    add_node(cluster, "edge-0", zone="a")
    cluster.create(model("little"))
    cluster.create(model("big"))
    return cluster


@pytest.fixture
def gm(cluster: LocalCluster, broker: Mosquitto, tmp_path: Path) -> GmFactory:
    """A factory of GlobalManagers in this process; leaving one stops it in order."""

    @contextlib.asynccontextmanager
    async def leading(
        *more: str, identity: str = "gm", cluster: LocalCluster = cluster, settle_s: float = 10.0
    ) -> AsyncIterator[asyncio.Task[None]]:
        arguments = ["--state", str(tmp_path), "--broker", broker.url, "--identity", identity]
        settings = Settings.from_args(
            [*arguments, "--lease-seconds", "15", "--metrics-interval", "200ms", "--delete-timeout", "2s", *more]
        )
        settings = dataclasses.replace(settings, settle_s=settle_s)
        stop = asyncio.Event()
        task = asyncio.create_task(run(settings, cluster, stop=stop))
        try:
            yield task
        finally:
            stop.set()
            await task

    return leading
