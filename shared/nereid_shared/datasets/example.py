# SPDX-License-Identifier: Apache-2.0
"""``tf.train.Example`` in Protocol Buffers' wire format: a map from names to lists of bytes, floats or integers.

    message Example   { Features features = 1; }
    message Features  { map<string, Feature> feature = 1; }          // entries: key = 1, value = 2
    message Feature   { oneof { BytesList = 1; FloatList = 2; Int64List = 3; } }
    message XList     { repeated X value = 1; }                      // numbers packed or one by one

No more than that is read; fields that are not known are gone over, as the format wants it.
"""

import struct
from collections.abc import Iterator

Feature = list[bytes] | list[float] | list[int]

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_BYTES, _FLOATS, _INTEGERS = 1, 2, 3


def features(data: bytes) -> dict[str, Feature]:
    """Return an Example's features by name.

    Raises:
        ValueError: it is none.
    """
    found: dict[str, Feature] = {}
    for entry in _messages(data, 1, 1):
        key, value = b"", b""
        for number, part in _fields(entry):
            if isinstance(part, bytes) and number == 1:
                key = part
            elif isinstance(part, bytes) and number == 2:
                value = part
        found[key.decode(errors="replace")] = _feature(value)
    return found


def _messages(data: bytes, *path: int) -> Iterator[bytes]:
    """Yield the messages in the fields of these numbers, one within the other."""
    first, *rest = path
    for number, part in _fields(data):
        if number == first and isinstance(part, bytes):
            if rest:
                yield from _messages(part, *rest)
            else:
                yield part


def _feature(data: bytes) -> Feature:
    for number, part in _fields(data):
        if not isinstance(part, bytes):
            continue
        if number == _BYTES:
            return [value for one, value in _fields(part) if one == 1 and isinstance(value, bytes)]
        if number == _FLOATS:
            return _floats(part)
        if number == _INTEGERS:
            return _integers(part)
    return []


def _floats(data: bytes) -> list[float]:
    values: list[float] = []
    for number, part in _fields(data):
        if number == 1 and isinstance(part, bytes):
            if len(part) % 4:
                raise ValueError("a list of floats that is cut short")
            values += [value for (value,) in struct.iter_unpack("<f", part)]
        elif number == 1 and isinstance(part, float):
            values.append(part)
    return values


def _integers(data: bytes) -> list[int]:
    values: list[int] = []
    for number, part in _fields(data):
        if number == 1 and isinstance(part, bytes):
            at = 0
            while at < len(part):
                value, at = _varint(part, at)
                values.append(value)
        elif number == 1 and isinstance(part, int):
            values.append(part)
    return [value - (1 << 64) if value >> 63 else value for value in values]


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int | float]]:
    """Yield each field's number and value; of 64 bits nothing is wanted, so that these are bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        value: bytes | int | float
        if kind == _VARINT:
            value, at = _varint(data, at)
        elif kind in {_FIXED64, _FIXED32, _LENGTH}:
            length, at = _varint(data, at) if kind == _LENGTH else (8 if kind == _FIXED64 else 4, at)
            if at + length > len(data):
                raise ValueError("a field that is cut short")
            value = struct.unpack_from("<f", data, at)[0] if kind == _FIXED32 else data[at : at + length]
            at += length
        else:
            raise ValueError(f"wire type {kind}")
        yield tag >> 3, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("a number that is cut short")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
    raise ValueError("a number of more than 64 bits")
