# SPDX-License-Identifier: Apache-2.0
"""``tfrecord``: a ``tf.train.Example`` a record. Needs crc32c (the extra ``datasets``); TensorFlow it does not need.

Read are the features of TensorFlow's object detection and image classification examples: ``image/filename``,
``image/class/text`` or ``image/class/label`` (else ``label``), ``image/object/class/text`` or ``…/label``,
``image/object/bbox/xmin`` and so on as shares of the picture, ``image/width``, ``image/height``.

A record is its length (8 bytes), a check of that (4), the data, a check of the data (4); the checks are CRC-32C,
masked. A file that was cut short ends in a sample that fails; behind a broken length nothing can be read.
"""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from nereid_shared.datasets.example import Feature, features
from nereid_shared.datasets.sample import Box, Sample, box
from nereid_shared.datasets.source import Source
from nereid_shared.datasets.tally import Part, part_of
from nereid_shared.errors import UserError

names_pictures: Final = False
max_line: Final = None
MAX_RECORD: Final = 64 * 1024 * 1024
_HEAD: Final = struct.Struct("<QI")
_LENGTH: Final = struct.Struct("<Q")
_CHECK: Final = struct.Struct("<I")
_CORNERS: Final = ("xmin", "ymin", "xmax", "ymax")


def files(folder: Path) -> list[Path]:
    """Return a folder's files in their order: ``.tfrecord`` and, as TensorFlow Datasets names them, ``.tfrecord-…``."""
    return [path for path in sorted(folder.glob("*.tfrecord*")) if path.is_file()]


def samples(source: Source, root: Path, *, whole: bool = False) -> Iterator[Sample]:
    """Yield the records; a broken one is a sample that fails."""
    del root, whole
    for number, (data, problem) in enumerate(_records(source, _checksum(source.where)), 1):
        if data is None:
            yield Sample(line=number, problem=problem)
            continue
        try:
            yield _sample(features(data), number)
        except ValueError as error:
            yield Sample(line=number, problem=f"no tf.train.Example: {error}")


def count(source: Source) -> int:
    """Return the number of records."""
    return sum(1 for _ in _records(source, _checksum(source.where)))


def part(source: Source, root: Path) -> Part:
    """Return the sums."""
    return part_of(samples(source, root), where=source.where)


def _checksum(where: str) -> Callable[[bytes], int]:
    try:
        from crc32c import crc32c  # noqa: PLC0415 - optional: the extra [datasets]
    except ImportError as error:
        raise UserError(
            "TFRecord needs crc32c", where=where, mend="pip install 'nereid-ai[datasets]'", reason="ExtraMissing"
        ) from error

    def masked(data: bytes) -> int:
        crc = crc32c(data)
        return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF

    return masked


def _records(source: Source, checksum: Callable[[bytes], int]) -> Iterator[tuple[bytes | None, str]]:
    stream = source.stream
    while head := stream.read(_HEAD.size):
        if len(head) < _HEAD.size:
            yield None, "cut short"
            return
        length, check = _HEAD.unpack(head)
        if checksum(head[: _LENGTH.size]) != check:
            yield None, "its length fails its check; what is behind it cannot be read"
            return
        if length > MAX_RECORD:
            yield None, f"a record of more than {MAX_RECORD} bytes; what is behind it is not read"
            return
        data, end = stream.read(length), stream.read(_CHECK.size)
        if len(data) < length or len(end) < _CHECK.size:
            yield None, "cut short"
            return
        if checksum(data) == _CHECK.unpack(end)[0]:
            yield data, ""
        else:
            yield None, "it fails its check"


def _sample(said: dict[str, Feature], number: int) -> Sample:
    label = _first(said, "image/class/text") or _first(said, "image/class/label") or _first(said, "label")
    return Sample(name=_first(said, "image/filename"), label=label, boxes=_boxes(said), line=number)


def _boxes(said: dict[str, Feature]) -> tuple[Box, ...]:
    corners = [said.get(f"image/object/bbox/{corner}", []) for corner in _CORNERS]
    count = len(corners[0])
    if not count:
        return ()
    labels = said.get("image/object/class/text") or said.get("image/object/class/label") or [""] * count
    if any(len(values) != count for values in (*corners, labels)):
        raise ValueError("as many labels as boxes, and four corners each, are wanted")
    width, height = (_number(said, f"image/{side}") for side in ("width", "height"))
    boxes = []
    for label, *places in zip(labels, *corners, strict=True):
        left, top, right, bottom = (float(place) for place in places)
        boxes.append(box(_shown(label), left * width, top * height, (right - left) * width, (bottom - top) * height))
    return tuple(boxes)


def _first(said: dict[str, Feature], key: str) -> str:
    values = said.get(key)
    return _shown(values[0]) if values else ""


def _number(said: dict[str, Feature], key: str) -> float:
    values = said.get(key)
    return float(values[0]) if values else 1.0


def _shown(value: bytes | float) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
