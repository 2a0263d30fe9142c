# SPDX-License-Identifier: Apache-2.0
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nereid_cloud.cluster.kinds import NODE, POD
from nereid_cloud.cluster.local import DATABASE, LocalCluster
from nereid_cloud.cluster.port import Kind, WatchEvent
from nereid_cloud.laptop.reconciling import reconcile_on_changes


class BrokenWatcher(LocalCluster):
    """A cluster in which the watch of Pods ends with an error that nobody foresaw."""

    def watch(self, kind: Kind, **options: Any) -> Iterator[WatchEvent]:
        if kind is POD:
            raise RuntimeError("unforeseen")
        return super().watch(kind, **options)


def test_an_unforeseen_error_of_a_watch_ends_the_loop_and_its_threads(tmp_path: Path) -> None:
    cluster, stop = BrokenWatcher(tmp_path / DATABASE), threading.Event()
    failsafe = threading.Timer(15, stop.set)
    failsafe.start()
    with pytest.raises(RuntimeError, match="unforeseen"):
        reconcile_on_changes(cluster, (NODE, POD), lambda: None, stop=stop, every_s=60)
    failsafe.cancel()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("watch-")]
    cluster.close()


def test_an_unforeseen_error_of_the_work_ends_the_loop_and_its_threads(tmp_path: Path) -> None:
    cluster, stop = LocalCluster(tmp_path / DATABASE), threading.Event()

    def work() -> None:
        raise RuntimeError("unforeseen")

    with pytest.raises(RuntimeError, match="unforeseen"):
        reconcile_on_changes(cluster, (NODE, POD), work, stop=stop, every_s=60)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("watch-")]
    cluster.close()
