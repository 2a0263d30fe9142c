# SPDX-License-Identifier: Apache-2.0
"""How a frame travels: a file's bytes as they came, an array as JPEG, or raw where it is small or OpenCV is absent.

In the spool a sample lies as a short head and the payload: the digest and the body that travels are made by the thread
that sends it, not by the one that runs the model.
"""

import struct
import zlib
from typing import Any, Final

from nereid_shared.samples import JPEG, PNG, RAW, Counts, Sample, digest_of, pack, unpack

JPEG_QUALITY: Final = 90
RAW_BELOW_BYTES: Final = 4096
"""Arrays below this travel raw: a JPEG's tables alone take some 600 bytes, and raw keeps every bit."""

ENVELOPE_BYTES: Final = 128
"""By so much at most a body that travels is longer than the spool's record of it."""

_HEAD: Final = struct.Struct("<II")  # length, check

MAX_REMAINING_MS: Final = 24 * 3600 * 1000
"""A bound for what a reboot, which restarts monotonic time, makes of an old deadline."""

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


def to_spool(
    *, stream: str, seq: int, key: str, captured_at: float, deadline_s: float, label: str, score: float,
    counts: tuple[int, int, int, int], encoded: Encoded,
) -> bytes:  # fmt: skip
    """Return the spool's record of a sample; the arguments are `Sample`'s, `counts` in the order of `Counts`.

    `deadline_s` is monotonic time, which goes on over a restart of the process.
    """
    encoding, payload, shape, dtype = encoded
    head = pack((stream, seq, key, captured_at, deadline_s, label, score, counts, encoding, shape, dtype))
    return b"".join((_HEAD.pack(len(head), zlib.crc32(head)), head, payload))


def from_spool(record: bytes, *, stream: str, seq: int, now_s: float) -> bytes:
    """Return the body that travels at `now_s`.

    A record that a power cut has spoilt, or left from another stream, travels without pixels, to be refused by the
    cloud: numbers have no gaps.
    """
    try:
        length, check = _HEAD.unpack_from(record)
        end = _HEAD.size + length
        if zlib.crc32(record[_HEAD.size : end]) != check:
            raise ValueError("spoilt")
        (
            own_stream, own_seq, key, captured_at, deadline_s, label, score, (seen, easy, hard, failed), encoding,
            shape, dtype,
        ) = unpack(record[_HEAD.size : end])  # fmt: skip
        if (own_stream, own_seq) != (stream, seq):
            raise ValueError("another stream's")
    except (ValueError, TypeError, RecursionError, struct.error):
        return _without_pixels(stream, seq)
    payload = record[end:]
    return Sample(
        stream=stream, seq=seq, digest=digest_of(payload), key=key, captured_at=captured_at,
        remaining_ms=max(0, min(MAX_REMAINING_MS, int((deadline_s - now_s) * 1e3))),
        label=label, score=score, counts=Counts(seen=seen, easy=easy, hard=hard, failed=failed), encoding=encoding,
        payload=payload, shape=shape, dtype=dtype,
    ).encode()  # fmt: skip


def _without_pixels(stream: str, seq: int) -> bytes:
    return Sample(
        stream=stream, seq=seq, digest=digest_of(b""), key="", captured_at=0.0, remaining_ms=0, label="", score=0.0,
        counts=Counts(seen=0, easy=0, hard=0, failed=0), encoding=JPEG, payload=b"",
    ).encode()  # fmt: skip
