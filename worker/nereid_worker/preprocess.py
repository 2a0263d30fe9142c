# SPDX-License-Identifier: Apache-2.0
"""From a picture to one row of a model's input tensor, as the model's card says.

Decode with EXIF, colour, resize, then one table look-up per pixel that normalises, quantises, rounds and clips at
once: a pixel has 256 values, so everything after the resize is known before the first frame comes.
"""

from types import ModuleType
from typing import Final

import numpy as np

from nereid_shared.card import Card
from nereid_shared.errors import BadSample, UserError
from nereid_shared.samples import UNDECODABLE
from nereid_worker.image_header import read_header
from nereid_worker.litert import TensorSpec

MAX_PIXELS: Final = 1 << 26
"""64 Mpx, 8192 x 8192: above every camera that an edge device has; 200 MB once decoded."""

Picture = bytes | np.ndarray


def load_opencv() -> ModuleType:
    """Return cv2.

    Raises:
        UserError: it is not installed; names the extra.
    """
    try:
        import cv2  # noqa: PLC0415 - optional; a worker that is fed ready tensors needs none
    except ImportError as error:
        raise UserError("OpenCV is not installed", mend="pip install 'nereid-ai[vision]'") from error
    assert isinstance(cv2, ModuleType)  # noqa: S101 - cv2 is untyped
    return cv2


class Preprocessor:
    """Makes rows for one model. Not for several threads at once.

    Attributes:
        height, width, channels: the size that the model takes, read from the tensor.
    """

    def __init__(self, card: Card, tensor: TensorSpec, *, max_pixels: int = MAX_PIXELS) -> None:
        """Prepare for one model; the card must agree with the tensor (`Classifier` checks that)."""
        self._card, self._max_pixels, self._cv2 = card.input, max_pixels, load_opencv()
        planes_first = card.input.layout == "NCHW"
        _, *size = tensor.shape
        self.channels, self.height, self.width = size if planes_first else (size[2], size[0], size[1])
        self._planes_first = planes_first
        table = _table(card, tensor)
        self._table = np.ascontiguousarray(table[None] if self.channels > 1 else table[None, :, 0])
        self._interpolation = getattr(self._cv2, f"INTER_{card.input.interpolation.upper()}")
        self._read = self._cv2.IMREAD_GRAYSCALE if self.channels == 1 else self._cv2.IMREAD_COLOR
        if not card.input.exif:
            self._read |= self._cv2.IMREAD_IGNORE_ORIENTATION
        shape = (self.height, self.width) if self.channels == 1 else (self.height, self.width, self.channels)
        self._resized = np.empty(shape, np.uint8)
        self._row = np.empty(shape, tensor.dtype)
        self._batch = np.empty(tensor.shape, tensor.dtype)
        self._decoded_last: np.ndarray | None = None

    def one(self, frame: Picture) -> np.ndarray:
        """Return the tensor (1, …) for one frame; it is valid until the next call.

        Args:
            frame: a JPEG or PNG file's bytes, or uint8 pixels: (height, width), (height, width, 1), BGR (…, 3) or
                BGRA (…, 4) as OpenCV's cameras give them. Transparency is not looked at; 16-bit PNG loses its low byte.

        Raises:
            BadSample: ``undecodable``.
        """
        self.into(frame, self._batch[0])
        return self._batch

    def into(self, frame: Picture, row: np.ndarray) -> None:
        """Write one frame into a row of a batch.

        Raises:
            BadSample: ``undecodable``; the row is then undefined.
        """
        pixels = self._pixels(frame) if isinstance(frame, np.ndarray) else self._decoded(frame)
        fitted = self._fitted(pixels)
        if self._card.color_order == "RGB":
            fitted = self._cv2.cvtColor(fitted, self._cv2.COLOR_BGR2RGB)
        normalised = self._cv2.LUT(fitted, self._table, self._row)
        if self.channels == 1:
            row[...] = normalised[None] if self._planes_first else normalised[..., None]
        else:
            row[...] = normalised.transpose(2, 0, 1) if self._planes_first else normalised

    def _decoded(self, data: bytes) -> np.ndarray:
        header = read_header(data)
        if header.width * header.height > self._max_pixels:
            raise _bad(f"{header.width}x{header.height} pixels exceed the limit of {self._max_pixels}")
        try:
            pixels = self._cv2.imdecode(np.frombuffer(data, np.uint8), self._read)
        except self._cv2.error as error:
            raise _bad(f"OpenCV: {error}") from error
        if pixels is None:
            raise _bad(f"the {header.kind} file is broken")
        assert isinstance(pixels, np.ndarray)  # noqa: S101 - cv2 is untyped
        # Freeing a frame before the next is made can hand its pages back each time: 558/s against 1,130/s at 640x480.
        self._decoded_last = pixels
        return pixels

    def _pixels(self, frame: np.ndarray) -> np.ndarray:
        if frame.dtype != np.uint8:
            raise _bad(f"pixels are {frame.dtype}; uint8 is understood")
        if frame.ndim == 2:
            frame = frame[..., None]
        if frame.ndim != 3 or frame.shape[2] not in {1, 3, 4} or not frame.size:
            raise _bad(f"pixels have the shape {frame.shape}; (height, width[, 1, 3 or 4]) is understood")
        if frame.shape[0] * frame.shape[1] > self._max_pixels:
            raise _bad(f"{frame.shape[1]}x{frame.shape[0]} pixels exceed the limit of {self._max_pixels}")
        conversion = _CONVERSIONS[frame.shape[2], self.channels]
        frame = np.ascontiguousarray(frame)
        if conversion is None:
            return frame if self.channels > 1 else frame[..., 0]
        converted = self._cv2.cvtColor(frame, getattr(self._cv2, conversion))
        assert isinstance(converted, np.ndarray)  # noqa: S101 - cv2 is untyped
        return converted

    def _fitted(self, pixels: np.ndarray) -> np.ndarray:
        height, width = pixels.shape[:2]
        if (height, width) == (self.height, self.width):
            return pixels
        if self._card.resize == "stretch":
            return self._resize(pixels, self._resized)
        ratio = min(self.height / height, self.width / width)
        inner_h, inner_w = max(1, round(height * ratio)), max(1, round(width * ratio))
        top, left = (self.height - inner_h) // 2, (self.width - inner_w) // 2
        self._resized[...] = self._card.letterbox_value
        self._resized[top : top + inner_h, left : left + inner_w] = self._resize(
            pixels, np.empty((inner_h, inner_w, *pixels.shape[2:]), np.uint8)
        )
        return self._resized

    def _resize(self, pixels: np.ndarray, into: np.ndarray) -> np.ndarray:
        size = into.shape[1], into.shape[0]
        resized = self._cv2.resize(pixels, size, dst=into, interpolation=self._interpolation)
        assert isinstance(resized, np.ndarray)  # noqa: S101 - cv2 is untyped
        return resized


# From (channels of the frame, channels of the model) to OpenCV's conversion; None where nothing has to happen.
_CONVERSIONS: Final[dict[tuple[int, int], str | None]] = {
    (1, 1): None,
    (1, 3): "COLOR_GRAY2BGR",
    (3, 1): "COLOR_BGR2GRAY",
    (3, 3): None,
    (4, 1): "COLOR_BGRA2GRAY",
    (4, 3): "COLOR_BGRA2BGR",
}


def _table(card: Card, tensor: TensorSpec) -> np.ndarray:
    """Return (256, channels): what each pixel value becomes in the tensor."""
    norm = card.input.normalization
    pixels = np.arange(256, dtype=np.float64)[:, None] / (255.0 if norm.unit == "unit" else 1.0)
    real = np.broadcast_to((pixels - norm.mean) / norm.std, (256, card.input.channels))
    if tensor.dtype == "float32":
        return real.astype(np.float32)
    bounds = np.iinfo(np.dtype(tensor.dtype))
    stored = np.rint(real / tensor.scale) + tensor.zero_point
    clipped: np.ndarray = np.clip(stored, bounds.min, bounds.max).astype(tensor.dtype)
    return clipped


def _bad(why: str) -> BadSample:
    return BadSample(f"not a picture: {why}", reason=UNDECODABLE)
