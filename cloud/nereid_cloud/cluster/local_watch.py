# SPDX-License-Identifier: Apache-2.0
"""How the LocalCluster's watches learn that some process has written."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from nereid_cloud.cluster.local_store import Change, Store
from nereid_cloud.cluster.port import WatchEvent
from nereid_cloud.cluster.selectors import Predicate

# SQLite tells another process's commit only to who asks: 5 µs a question, and up to 200 µs to wake up for it.
POLL_S: Final = 0.02  # within a second of a commit, as they come in chains: a service, its Pods, their status
IDLE_POLL_S: Final = 0.05


class Pulse:
    """Counts the commits of all processes, while anybody watches."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._beat = threading.Condition()
        self._count = 0
        self._stops: list[threading.Event] = []
        self._closed = threading.Event()

    @property
    def closed(self) -> bool:
        """Whether the cluster was closed."""
        return self._closed.is_set()

    def beat(self) -> None:
        """Wake the watches: this process has committed."""
        with self._beat:
            self._count += 1
            self._beat.notify_all()

    def wait(self, seen: int, stop: threading.Event, timeout_s: float) -> int:
        """Return the count of commits once it is no longer `seen`, or `stop` is set, or after the time-out."""
        with self._beat:
            self._beat.wait_for(lambda: self._count != seen or stop.is_set() or self.closed, timeout_s)
            return self._count

    @contextmanager
    def watching(self, stop: threading.Event) -> Iterator[None]:
        """Keep the file polled within, and `stop` noticed."""
        with self._beat:
            self._stops.append(stop)
            if len(self._stops) == 1:
                threading.Thread(target=self._poll, name="local-cluster-pulse", daemon=True).start()
        try:
            yield
        finally:
            with self._beat:
                self._stops.remove(stop)

    def _poll(self) -> None:
        # One thread asks for all watches, the file and their stops: eight watches with time-outs of their own
        # cost three times as much.
        with self._store.connection() as connection:
            before, committed_at = None, time.monotonic()
            while not self._closed.wait(POLL_S if time.monotonic() - committed_at < 1 else IDLE_POLL_S):
                with self._beat:
                    if not self._stops:
                        return
                    if any(stop.is_set() for stop in self._stops):
                        self._beat.notify_all()
                (version,) = connection.execute("PRAGMA data_version").fetchone()
                if version != before:
                    before, committed_at = version, time.monotonic()
                    self.beat()

    def close(self) -> None:
        """Stop polling, and wake the watches for the last time."""
        self._closed.set()
        self.beat()


def seen_through(matches: Predicate, change: Change) -> WatchEvent | None:
    """Return a change as a watch with a selector has it: what begins to match is added, what ceases is deleted."""
    if change.type == "MODIFIED" and change.before is not None:
        was, matching = matches(change.before), matches(change.object)
        if was and not matching:
            metadata = change.before["metadata"] | {"resourceVersion": change.object["metadata"]["resourceVersion"]}
            return WatchEvent(type="DELETED", object=change.before | {"metadata": metadata})
        if not matching:
            return None
        return WatchEvent(type="MODIFIED" if was else "ADDED", object=change.object)
    if not matches(change.object):
        return None
    return WatchEvent(type="ADDED" if change.type == "ADDED" else "DELETED", object=change.object)
