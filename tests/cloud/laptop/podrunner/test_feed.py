# SPDX-License-Identifier: Apache-2.0
import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nereid_cloud.cluster.local import DATABASE, LocalCluster
from nereid_cloud.cluster.port import WatchEvent
from nereid_cloud.laptop.podrunner.feed import Listed, PodFeed


class BrokenWatcher(LocalCluster):
    """A cluster whose watches end with an error that nobody foresaw."""

    def watch(self, *_args: Any, **_options: Any) -> Iterator[WatchEvent]:
        raise RuntimeError("unforeseen")


async def test_an_unforeseen_error_reaches_the_reader_of_the_news(tmp_path: Path) -> None:
    cluster = BrokenWatcher(tmp_path / DATABASE)
    async with PodFeed(cluster, node="edge-0") as feed, asyncio.timeout(10):
        news = feed.news()
        assert await anext(news) == Listed([])
        with pytest.raises(RuntimeError, match="unforeseen"):
            await anext(news)
    cluster.close()
