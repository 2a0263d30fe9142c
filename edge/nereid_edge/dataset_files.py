# SPDX-License-Identifier: Apache-2.0
"""What the node's datasets hold: read when their files change, told when it is another than before.

One thread of its own waits for changes (`FolderWatch`) and, since nobody tells of all of them, looks at the times and
sizes of indices and folders now and then; a slow disk or a dead network share holds up nothing else. What is read, and
what of it is known from before, is `nereid_shared.datasets`'.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from nereid_edge.folder_watch import FolderWatch
from nereid_edge.reading_apart import APART, read_apart
from nereid_shared.datasets import Dataset, Known, Reading, read
from nereid_shared.datasets.known import TICK_NS
from nereid_shared.errors import UserError
from nereid_shared.messages import DatasetStatistics

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 2.0
WATCHED_LOOK_EVERY_S: Final = 15.0
"""Where each folder is watched: for what no watch tells, such as another machine's writing to a share."""
MOST_LOOKS: Final = 10_000
"""Pictures of a dataset that are looked at."""
MOST_FOLDERS: Final = 2000
"""Of a dataset, whose times are looked at."""
# Files that never stop changing are read twice a second, and for at most a tenth of the time; but what took an hour
# once may be short by now, and nobody waits ten for that.
_REST: Final = 9.0
_LEAST_REST_S: Final = 0.5
_MOST_REST_S: Final = 300.0
# All files' times, though no folder has changed: every minute, or for a 200th of the time.
_WHOLE_LOOK_EVERY_S: Final = 60.0
_WHOLE_LOOK_REST: Final = 200.0

Signature = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSource:
    """A dataset to watch."""

    url: str
    format: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetCount:
    """What is known of a dataset: its samples, or why there is no number.

    Attributes:
        changed_at: when its files last changed, seconds since the epoch.
        reason: one CamelCase word, "" where `samples` is a number.
    """

    samples: int | None = None
    statistics: DatasetStatistics | None = None
    changed_at: float | None = None
    reason: str = ""
    message: str = ""


class _Ended(Exception):
    """Nobody wants what is being read any more."""


@dataclass(slots=True)
class _Watched:
    """A dataset with what was seen of it.

    Attributes:
        signature: the state of its files and folders when they were read; None where they could not be.
        again: it is to be read again at once, whatever the signature says.
        whole_at: when all files are looked at, though no folder has changed.
    """

    source: DatasetSource
    signature: Signature | None = None
    folders: frozenset[str] = field(default_factory=frozenset)
    count: DatasetCount | None = None
    again: bool = False
    not_before: float = 0.0
    whole_at: float = 0.0


class DatasetMonitor:
    """The thread; it starts with the first dataset.

    Args:
        on_count: called in the thread with the uid and the count whenever that has changed.
        known: file that keeps what was read, so that only changed files are read again; None for none.
        look_every_s: rhythm in which files are looked at that nobody watches.
        watched_look_every_s: rhythm for those in folders that are watched.
        folder_watch: what watches them; it is closed with the thread.
    """

    def __init__(
        self,
        on_count: Callable[[str, DatasetCount], None],
        *,
        known: Path | None = None,
        look_every_s: float = LOOK_EVERY_S,
        watched_look_every_s: float = WATCHED_LOOK_EVERY_S,
        folder_watch: FolderWatch | None = None,
    ) -> None:
        self._on_count = on_count
        self._look_every_s, self._watched_look_every_s = look_every_s, watched_look_every_s
        self._least_rest_s = min(_LEAST_REST_S, look_every_s)
        self._known = None if known is None else Known(known)
        self._sources: Mapping[str, DatasetSource] = {}
        self._reads: Mapping[str, DatasetSource] = self._sources
        self._watch = folder_watch or FolderWatch()
        self._stop = False
        self._thread: threading.Thread | None = None

    def watch(self, sources: Mapping[str, DatasetSource]) -> None:
        """Watch these datasets, by uid, and no others."""
        self._sources = dict(sources)
        if self._thread is None and sources:
            self._thread = threading.Thread(target=self._run, name="datasets", daemon=True)
            self._thread.start()
        self._watch.call()

    def stop(self) -> None:
        """End the thread without waiting for a file that it reads."""
        self._stop = True
        self._watch.call()
        if self._thread is None:
            self._watch.close()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread's end, after `stop`."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        watched: dict[str, _Watched] = {}
        while not self._stop:
            if self._reads is not self._sources:
                self._reads = self._sources
                watched = {
                    uid: watched[uid] if uid in watched and watched[uid].source == source else _Watched(source)
                    for uid, source in self._reads.items()
                }
                if self._known is not None:
                    self._known.keep(_identities(self._reads.values()))
            for uid, one in watched.items():
                if not self._is_wanted():
                    break
                self._look(uid, one)
            changed = self._rest(watched)
            for one in watched.values():
                one.again = one.again or bool(changed & one.folders)
        if self._known is not None:
            self._known.close()
        self._watch.close()

    def _is_wanted(self) -> bool:
        return not self._stop and self._sources is self._reads

    def _rest(self, watched: Mapping[str, _Watched]) -> frozenset[str]:
        """Wait until a look is due; return the folders in which something has changed meanwhile."""
        if not watched:
            self._watch.follow(frozenset())
            return self._watch.wait(None)
        everywhere, new = self._watch.follow(frozenset[str]().union(*(one.folders for one in watched.values())))
        for one in watched.values():
            # What was written in place since it was read, and before the watch, shows in no folder's time.
            one.again = one.again or bool(new & one.folders)
        followed = everywhere and all(one.folders for one in watched.values())
        now = time.monotonic()
        due = now + (self._watched_look_every_s if followed else self._look_every_s)
        due = min([due, *(one.not_before for one in watched.values() if one.again)])
        return self._watch.wait(due - now, gather_s=self._least_rest_s)

    def _look(self, uid: str, one: _Watched) -> None:
        began = time.monotonic()
        try:
            count = self._count(one)
        except _Ended:
            return
        except Exception as error:
            # One dataset that nobody thought of keeps none of the others from being read.
            count = DatasetCount(reason="DatasetUnreadable", message=f"{type(error).__name__}: {error}")
            if count != one.count:
                logger.exception("dataset not read", extra={"dataset": one.source.url})
        if count is None:
            return
        ended = time.monotonic()
        one.not_before = ended + rest_s(ended - began, least_s=self._least_rest_s)
        one.whole_at = ended + max(_WHOLE_LOOK_EVERY_S, _WHOLE_LOOK_REST * (ended - began))
        if count != one.count:
            one.count = count
            self._on_count(uid, count)

    def _count(self, one: _Watched) -> DatasetCount | None:
        """Return the count where the files have changed, None where they have not."""
        began_ns = time.time_ns()
        try:
            dataset = Dataset(one.source.url, one.source.format)
            signature = _signature(dataset, one.folders)
            now = time.monotonic()
            one.again = one.again or signature != one.signature or now >= one.whole_at
            if not one.again or now < one.not_before:
                return None
            one.again = False
            # Also what cannot be read is read again only when it has changed.
            one.signature = signature
            reading = self._read(dataset)
            one.folders = frozenset(sorted(reading.folders)[:MOST_FOLDERS])
            one.signature = _signature(dataset, one.folders)
            one.again = _is_fresh(one.signature, began_ns)
        except UserError as error:
            one.again = _is_fresh(one.signature, began_ns)
            return DatasetCount(reason=error.reason or "DatasetInvalid", message=str(error))
        except OSError as error:
            one.signature, one.folders, one.again = None, frozenset(), False
            return DatasetCount(reason=_reason(error), message=f"{one.source.url}: {error.strerror}")
        return DatasetCount(samples=reading.samples, statistics=reading.statistics, changed_at=reading.changed_at)

    def _read(self, dataset: Dataset) -> Reading:
        if dataset.format in APART:
            return read_apart(dataset, is_wanted=self._is_wanted)
        return read(dataset, known=self._known, most_looks=MOST_LOOKS, progress=self._check)

    def _check(self, _: int) -> None:
        if not self._is_wanted():
            raise _Ended


def _identities(sources: Iterable[DatasetSource]) -> set[str]:
    found = set()
    for source in sources:
        with suppress(UserError):
            found.add(Dataset(source.url, source.format).identity)
    return found


def rest_s(took_s: float, *, least_s: float = _LEAST_REST_S) -> float:
    """Return how long a dataset that was read in `took_s` is left alone, though it changes."""
    return min(_MOST_REST_S, max(least_s, _REST * took_s))


def _signature(dataset: Dataset, folders: frozenset[str]) -> Signature:
    """Return what differs where an index or a folder has changed.

    Raises:
        UserError: there is no index.
        OSError: the path is not there.
    """
    state = [_state(dataset.path), *map(_state, dataset.indices())]
    for folder in sorted(folders):
        with suppress(OSError):  # one that is gone is a change, too
            state.append(_state(Path(folder)))
    return tuple(state)


def _is_fresh(signature: Signature | None, began_ns: int) -> bool:
    """Whether something was written while it was read, or just before: a second change may look like the first."""
    now_ns = time.time_ns()
    return any(began_ns - TICK_NS <= changed_ns <= now_ns for _, changed_ns, _ in signature or ())


def _state(path: Path) -> tuple[str, int, int]:
    stat = path.stat()
    return str(path), stat.st_mtime_ns, stat.st_size


def _reason(error: OSError) -> str:
    return "DatasetNotFound" if isinstance(error, FileNotFoundError | NotADirectoryError) else "DatasetUnreadable"
