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
    """Frames of a source, from a thread of its own: of a live one the newest, else a few ahead.

    Args:
        wake: called in that thread when there is a frame after there was none, and at the end.
    """

    def __init__(self, source: Source, start: int, *, wake: Callable[[], None]) -> None:
        self._source, self._start, self._wake = source, start, wake
        self._box: deque[Frame] = deque()
        self._skipped = 0
        self._changed = threading.Condition()
        self._closed = False
        self._done = False
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._read, name="source", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        # Not joined: a camera's next frame may never come. The thread ends at it, and closes the source.
        with self._changed:
            self._closed = True
            self._changed.notify()

    @property
    def ended(self) -> bool:
        """Whether the last frame was taken; raises what ended the source before its time."""
        with self._changed:
            if self._box or not self._done:
                return False
        if self._failure is not None:
            raise self._failure
        return True

    def take(self) -> Frame | None:
        """Return the next frame, or None where there is none yet."""
        with self._changed:
            if not self._box:
                return None
            self._changed.notify()
            return self._box.popleft()

    def take_skipped(self) -> int:
        """Return how many frames were dropped, because a newer one had come, since the last call."""
        if not self._skipped:
            return 0
        with self._changed:
            skipped, self._skipped = self._skipped, 0
            return skipped

    def _read(self) -> None:
        frames = self._source.frames(self._start)
        try:
            for item in frames:
                if not self._put(item):
                    return
        except Exception as error:  # noqa: BLE001 - raised again in the caller's thread, by `ended`
            self._failure = error
        finally:
            if (close := getattr(frames, "close", None)) is not None:
                close()
            with self._changed:
                self._done = True
            self._wake()

    def _put(self, item: Frame) -> bool:
        """Hand a frame over; False where nobody wants one any more."""
        with self._changed:
            if self._source.live:
                self._skipped += len(self._box)
                self._box.clear()
            else:
                self._changed.wait_for(lambda: self._closed or len(self._box) < READ_AHEAD)
            if self._closed:
                return False
            self._box.append(item)
            first = len(self._box) == 1
        if first:
            self._wake()
        return True
