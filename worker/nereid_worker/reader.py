# SPDX-License-Identifier: Apache-2.0
"""A thread that reads a source which may block, so that answers go on while the next frame is awaited."""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, Self

from nereid_worker.sources import Frame, Iterated, Source

READ_AHEAD: Final = 4
"""Frames read before they are asked for, where the source waits."""


def as_source(source: Source | Iterable[Any]) -> Source:
    """Return what `stream` was given as a `Source`."""
    return Iterated(source) if isinstance(source, Iterable) else source


class Reader:
    """Frames of a source, from a thread of its own.

    Args:
        wake: called in that thread after each frame, and at the end.
    """

    def __init__(self, source: Source, start: int, *, wake: Callable[[], None]) -> None:
        self._source, self._start, self._wake = source, start, wake
        self._box: deque[Frame] = deque()
        self._room = threading.Semaphore(READ_AHEAD)
        self._closed = False
        self._done = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name="source", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._closed = True
        self._room.release()

    @property
    def ended(self) -> bool:
        """Whether the last frame was taken; raises what ended the source before its time."""
        if self._box or not self._done:
            return False
        if self._failure is not None:
            raise self._failure
        return True

    def take(self) -> Frame | None:
        """Return the next frame, or None where there is none yet."""
        if not self._box:
            return None
        item = self._box.popleft()
        if not self._source.live:
            self._room.release()
        return item

    def skip_stale(self) -> int:
        """Drop all frames but the newest; returns how many they were."""
        skipped = 0
        while len(self._box) > 1:
            self._box.popleft()
            skipped += 1
        return skipped

    def _read(self) -> None:
        try:
            for item in self._source.frames(self._start):
                if not self._source.live:
                    self._room.acquire()
                if self._closed:
                    return
                self._box.append(item)
                self._wake()
        except Exception as error:  # noqa: BLE001 - raised again in the caller's thread, by `ended`
            self._failure = error
        finally:
            self._done = True
            self._wake()
