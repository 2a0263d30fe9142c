# SPDX-License-Identifier: Apache-2.0
"""What an encoded picture says of itself before anything is decoded: its kind, its size, and whether it is whole.

A few hundred bytes can claim to be a picture of gigabytes, and decoders fill the missing half of a cut file with grey:
both are refused here, in microseconds.
"""

import struct
from dataclasses import dataclass
from typing import Final, Literal

from nereid_shared.errors import BadSample
from nereid_shared.samples import UNDECODABLE

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_SOS, _EOI = 0xDA, b"\xff\xd9"
# Start-of-frame markers hold the size; C4, C8 and CC of the same range are tables.
_SOF: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Markers that stand alone, without a length: TEM and RST0..7.
_BARE: Final = frozenset({0x01, *range(0xD0, 0xD8)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A picture's kind and size in pixels, before any EXIF turn."""

    kind: Literal["jpeg", "png"]
    width: int
    height: int


def read_header(data: bytes) -> Header:
    """Return the header of a whole JPEG or PNG file.

    Raises:
        BadSample: ``undecodable``: empty, neither, cut short, or without a size.
    """
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data)
    if data.startswith(_PNG):
        return _png(data)
    raise _bad("neither a JPEG nor a PNG file" if data else "empty")


def _png(data: bytes) -> Header:
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise _bad("a PNG file that is cut short")
    width, height = struct.unpack_from(">II", data, 16)
    if b"IEND" not in data[-64:] and data.rfind(b"IEND") < 0:
        raise _bad("a PNG file that is cut short")
    return _sized("png", width, height)


def _jpeg(data: bytes) -> Header:
    at, size = 2, None
    while at + 4 <= len(data):
        marker = data[at + 1]
        if data[at] != 0xFF:
            break
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in _BARE:
            at += 2
        elif marker == _SOS:
            # Entropy-coded bytes never hold FF D9; an EXIF thumbnail before this point does.
            if size is None or data.rfind(_EOI, at) < 0:
                break
            return _sized("jpeg", *size)
        else:
            if marker in _SOF and at + 9 <= len(data):
                height, width = struct.unpack_from(">HH", data, at + 5)
                size = width, height
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    raise _bad("a JPEG file that is cut short or broken")


def _sized(kind: Literal["jpeg", "png"], width: int, height: int) -> Header:
    if not (width and height):
        raise _bad(f"a {kind} file of {width}x{height} pixels")
    return Header(kind=kind, width=width, height=height)


def _bad(what: str) -> BadSample:
    return BadSample(f"not a picture: {what}", reason=UNDECODABLE)
