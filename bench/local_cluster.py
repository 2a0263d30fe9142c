# SPDX-License-Identifier: Apache-2.0
"""What a laptop's cluster in a file costs: its writes against bare SQLite's, its lists against parsing the same JSON.

In one process, in turns: both sides write the same objects, each as a transaction of its own, into a file in WAL mode
without a sync per commit.
"""

import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.figures import Figure
from nereid_cloud.cluster import kinds
from nereid_cloud.cluster.local import LocalCluster
from nereid_cloud.cluster.port import Object

OBJECTS: Final = 500
ROUNDS: Final = 9
QUICK_ROUNDS: Final = 3
# A write is validated, versioned, kept for watches and looked at for owners; a list is parsed and put in order.
WRITE_TARGET: Final = 0.15
LIST_TARGET: Final = 0.5


def run(*, quick: bool) -> list[Figure]:
    """Return the rates of writes and lists, and both as shares of the baselines'."""
    writes, lists, rates, list_s = [], [], [], []
    for number in range(QUICK_ROUNDS if quick else ROUNDS):
        objects = [_object(number, one) for one in range(OBJECTS)]
        with tempfile.TemporaryDirectory() as folder:
            cluster = LocalCluster(Path(folder) / "cluster.db")
            ours = _timed(lambda: [cluster.create(one) for one in objects])  # noqa: B023 - called at once
            listed = _timed(lambda: cluster.list(kinds.CONFIG_MAP))  # noqa: B023
            found = cluster.list(kinds.CONFIG_MAP).items
            cluster.close()
            bodies = [json.dumps(one) for one in found]
            bare = _timed(lambda: _bare_writes(Path(folder) / "bare.db", bodies))  # noqa: B023
            parsed = _timed(lambda: [json.loads(one) for one in bodies])  # noqa: B023
        writes.append(bare / ours)
        lists.append(parsed / listed)
        rates.append(OBJECTS / ours)
        list_s.append(listed)
    return [
        Figure(name="writes: bare SQLite's time / ours", value=statistics.median(writes), unit="", target=WRITE_TARGET),
        Figure(name="writes", value=statistics.median(rates), unit="1/s"),
        Figure(name="list: parsing's time / ours", value=statistics.median(lists), unit="", target=LIST_TARGET),
        Figure(name="list", value=statistics.median(list_s) * 1e3, unit="ms", note=f"{OBJECTS} objects of 700 bytes"),
    ]


def _object(number: int, one: int) -> Object:
    metadata = {"name": f"one-{number}-{one}", "namespace": "default"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"pad": "x" * 500}}


def _bare_writes(path: Path, bodies: list[str]) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("CREATE TABLE objects (name TEXT PRIMARY KEY, body TEXT)")
    for number, body in enumerate(bodies):
        connection.execute("INSERT INTO objects VALUES (?, ?)", (str(number), body))
    connection.close()


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
