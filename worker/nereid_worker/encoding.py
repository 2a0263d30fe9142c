# SPDX-License-Identifier: Apache-2.0
"""How a frame travels: a file's bytes as they came, an array as JPEG, or raw where it is small or OpenCV is absent."""

from typing import Any, Final

from nereid_shared.samples import JPEG, PNG, RAW

JPEG_QUALITY: Final = 90
RAW_BELOW_BYTES: Final = 4096
"""Arrays below this travel raw: a JPEG's tables alone take some 600 bytes, and raw keeps every bit."""

Encoded = tuple[str, bytes, tuple[int, ...], str]


def is_frame(data: Any) -> bool:
    """Whether this can be a picture at all: a file's bytes, or an array of uint8 with two or three dimensions."""
    return isinstance(data, bytes) or (hasattr(data, "dtype") and data.dtype.name == "uint8" and data.ndim in {2, 3})


def encode_frame(data: Any) -> Encoded:
    """Return (encoding, payload, shape, dtype) of a frame.

    Args:
        data: encoded image bytes, or an array (height, width[, channels]) of uint8 in OpenCV's order.
    """
    if isinstance(data, bytes):
        return (PNG if data.startswith(b"\x89PNG") else JPEG), data, (), ""
    if data.nbytes >= RAW_BELOW_BYTES:
        try:
            import cv2  # noqa: PLC0415 - optional: the extra [vision]
        except ImportError:
            pass
        else:
            taken, encoded = cv2.imencode(".jpg", data, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            if taken:
                return JPEG, encoded.tobytes(), (), ""
    shape = data.shape if data.ndim == 3 else (*data.shape, 1)
    return RAW, data.tobytes(), tuple(int(n) for n in shape), "uint8"
