# SPDX-License-Identifier: Apache-2.0
"""Where samples come from: live streams, lists; folders and indices are in `nereid_worker.files`.

A source yields `Frame`s from a given index on. Files wait for the worker (and resume from its cursor); live sources do
not wait, so that of several unread frames only the newest is kept.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from msgspec import Struct

from nereid_shared.errors import UserError


class Frame(Struct, frozen=True, kw_only=True):
    """One sample as it was captured.

    Attributes:
        index: its place in the source.
        key: the source's name for it.
        data: encoded image bytes, an array (height, width[, channels]) of uint8, or None where it could not be read.
        captured_s: monotonic time of capture; the deadline counts from here.
        captured_at: seconds since the epoch.
    """

    index: int
    key: str
    data: Any
    captured_s: float
    captured_at: float


class Source(Protocol):
    """A stream of frames.

    Attributes:
        identity: what a cursor belongs to; "" where the source cannot resume.
        live: frames cannot be asked for again, and do not wait for the worker.
        blocking: the next frame may take its time, so that a thread of its own has to wait for it.
        interval_s: the least time between two frames that the worker asks for.
    """

    identity: str
    live: bool
    blocking: bool
    interval_s: float

    def frames(self, start: int) -> Iterator[Frame]:
        """Yield frames from the index `start` on."""
        ...

    def version(self) -> object:
        """Return something that changes when there may be more frames."""
        ...


def frame(data: Any, *, index: int, key: str = "") -> Frame:
    """Return a frame captured now."""
    if type(data) is not bytes and isinstance(data, (bytearray, memoryview)):
        data = bytes(data)
    return Frame(index=index, key=key or str(index), data=data, captured_s=time.monotonic(), captured_at=time.time())


class Live:
    """A camera or any other iterable of frames that cannot wait."""

    identity = ""
    live = True
    blocking = True
    interval_s = 0.0

    def __init__(self, frames: Iterable[Any]) -> None:
        self._frames = frames

    def frames(self, start: int) -> Iterator[Frame]:
        """Yield what comes, numbered from `start` on."""
        for index, data in enumerate(self._frames, start):
            yield data if isinstance(data, Frame) else frame(data, index=index)

    def version(self) -> None:
        """There is no second look at what is live."""


class Iterated:
    """Frames that the caller has or makes. A list is read in the caller's thread, a generator in one of its own."""

    identity = ""
    live = False
    interval_s = 0.0

    def __init__(self, frames: Iterable[Any]) -> None:
        self._frames = frames
        self.blocking = not isinstance(frames, Sequence)

    def frames(self, start: int) -> Iterator[Frame]:
        """Yield them, numbered from 0 on, without those before `start`."""
        for index, data in enumerate(self._frames):
            if index >= start:
                yield data if isinstance(data, Frame) else frame(data, index=index)

    def version(self) -> None:
        """What the caller passed does not change."""


def camera(device: int | str = 0) -> Live:
    """Return a live source over OpenCV's ``VideoCapture``: a device number, or a stream's URL.

    Raises:
        UserError: the device cannot be opened, or OpenCV is not installed.
    """
    try:
        import cv2  # noqa: PLC0415 - optional: the extra [vision]
    except ImportError as error:
        raise UserError("OpenCV is not installed", mend="pip install 'nereid-ai[vision]'") from error
    capture = cv2.VideoCapture(device)
    if not capture.isOpened():
        raise UserError(
            "it cannot be opened", where=f"camera {device}", mend="Check the device or URL", reason="CameraUnavailable"
        )

    def pictures() -> Iterator[Any]:
        try:
            while True:
                taken, picture = capture.read()
                if not taken:
                    return
                yield picture
        finally:
            capture.release()

    return Live(pictures())
