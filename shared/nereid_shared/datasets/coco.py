# SPDX-License-Identifier: Apache-2.0
"""``coco``: one JSON file with ``images``, ``annotations`` and ``categories``; a sample is an image.

In a folder, its ``.json`` files are read, else those in ``annotations``; where some are ``instances_….json``, these
alone, since the others describe the same images. Pictures are looked for in the dataset's folder, in ``images``, and in
the folder that the file is called after (``instances_val2017.json``: ``val2017``).
"""

from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from nereid_shared.datasets.json_arrays import elements
from nereid_shared.datasets.sample import Box, Sample, box
from nereid_shared.datasets.source import Source
from nereid_shared.datasets.tally import Part
from nereid_shared.errors import UserError

names_pictures: Final = True
max_line: Final = None
_IMAGES, _ANNOTATIONS, _CATEGORIES = "images", "annotations", "categories"
_FOLDER: Final = "annotations"
_INSTANCES: Final = "instances_"
_BITS: Final = 1 << 27
"""Image numbers below it are told apart in a bitmap of at most 16 MiB."""


class _Image(Struct):
    id: int | str
    file_name: str = ""


class _Annotation(Struct):
    image_id: int | str
    category_id: int | str | None = None
    bbox: list[float] | None = None


class _Category(Struct):
    id: int | str
    name: str = ""


_Row = _Image | _Annotation | _Category

_KINDS: Final[dict[str, type[_Row]]] = {_IMAGES: _Image, _ANNOTATIONS: _Annotation, _CATEGORIES: _Category}


def files(folder: Path) -> list[Path]:
    """Return a folder's annotation files."""
    for place in (folder, folder / _FOLDER):
        found = [path for path in sorted(place.glob("*.json")) if path.is_file()]
        if found:
            return [path for path in found if path.name.startswith(_INSTANCES)] or found
    return []


def samples(source: Source, root: Path, *, whole: bool = False) -> Iterator[Sample]:
    """Yield the images in their order; with boxes only where they are wanted `whole`, which takes memory for all.

    Raises:
        UserError: it is no such file; of the `whole`, a box is none, or is of an image that is not there.
    """
    boxes = _boxes(source) if whole else {}
    folder: str | None = None
    for key, image in _rows(source, (_IMAGES,)):
        if isinstance(image, _Image) and image.file_name:
            if folder is None:
                folder = _folder(root, source.path, image.file_name)
            yield Sample(name=folder + image.file_name, boxes=tuple(boxes.pop(image.id, ())))
        else:
            yield Sample(problem=f"{key}: {image if isinstance(image, str) else 'an image without file_name'}")
    if boxes:
        raise UserError(
            f"there are boxes of {len(boxes)} images that are not there, such as {next(iter(boxes))}",
            where=source.where, reason="DatasetInvalid", mend="Take these annotations out.",
        )  # fmt: skip


def count(source: Source) -> int:
    """Return the number of images."""
    return sum(1 for _ in elements(source.stream, (_IMAGES,), where=source.where))


def part(source: Source, root: Path) -> Part:
    """Return the sums, without joining annotations and images."""
    del root
    sums, numbers, names, annotated = Part(), Counter[int | str](), dict[int | str, str](), _Numbers()
    for key, row in _rows(source, _KINDS):
        if key == _IMAGES:
            sums.samples += 1
        if isinstance(row, str):
            sums.complain(f"{source.where}: {key}: {row}")
        elif isinstance(row, _Category):
            names[row.id] = row.name
        elif isinstance(row, _Annotation):
            annotated.add(row.image_id)
            sums.boxes += row.bbox is not None
            if row.category_id is not None:
                numbers[row.category_id] += 1
        elif isinstance(row, _Image) and not row.file_name:
            sums.complain(f"{source.where}: {key}: image {row.id} has no file_name")
    for number, times in numbers.items():
        sums.count(names.get(number) or str(number), times)
    sums.labelled = annotated.count
    return sums


def _rows(source: Source, keys: Collection[str]) -> Iterator[tuple[str, _Row | str]]:
    """Yield each element with its array's name; as a text that says why it is none, where it is none."""
    decoders = {key: msgspec.json.Decoder(_KINDS[key]) for key in keys}
    for key, text in elements(source.stream, keys, where=source.where):
        try:
            yield key, decoders[key].decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            yield key, str(error)


def _boxes(source: Source) -> dict[int | str, list[Box]]:
    """Return all boxes by image."""
    found: dict[int | str, list[tuple[int | str | None, list[float]]]] = {}
    names: dict[int | str | None, str] = {}
    with Source(source.path, where=source.where, max_line=None) as ahead:
        for _, row in _rows(ahead, (_ANNOTATIONS, _CATEGORIES)):
            if isinstance(row, _Category):
                names[row.id] = row.name
            elif isinstance(row, _Annotation) and row.bbox is not None:
                found.setdefault(row.image_id, []).append((row.category_id, row.bbox))
    return {
        image: [_box(image, place, names.get(number) or number, source.where) for number, place in boxes]
        for image, boxes in found.items()
    }


def _box(image: int | str, place: list[float], label: object, where: str) -> Box:
    try:
        left, top, width, height = place
        return box(label, left, top, width, height)
    except ValueError as error:
        raise UserError(
            f"bbox {place} of image {image}: {error}", where=where, mend="Mend the annotation.",
            reason="DatasetInvalid",
        ) from error  # fmt: skip


def _folder(root: Path, file: Path, name: str) -> str:
    """Return the folder in which the first picture is, as a prefix of names; "" where it is nowhere."""
    split = file.stem.rpartition("_")[2]
    tried = ("", f"{_IMAGES}/", f"{split}/", f"{_IMAGES}/{split}/")
    return next((prefix for prefix in tried if (root / prefix / name).is_file()), "")


class _Numbers:
    """How many different numbers, or names, were added."""

    def __init__(self) -> None:
        self.count = 0
        self._bits = bytearray()
        self._others: set[int | str] = set()

    def add(self, number: int | str) -> None:
        if not isinstance(number, int) or not 0 <= number < _BITS:
            self.count += number not in self._others
            self._others.add(number)
            return
        place, bit = number >> 3, 1 << (number & 7)
        if place >= len(self._bits):
            self._bits.extend(bytes(place + 1 + 4096 - len(self._bits)))
        if not self._bits[place] & bit:
            self._bits[place] |= bit
            self.count += 1
