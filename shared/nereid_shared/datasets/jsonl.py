# SPDX-License-Identifier: Apache-2.0
"""``jsonl``: a JSON object a line. Of several names for one thing the first that is there counts.

The picture is ``path``, ``file_name``, ``image`` or ``filename``, the class ``label``, ``class`` or ``category``. Boxes
are ``objects: {"bbox": [[x, y, width, height]], "categories": […]}`` in pixels, as in Hugging Face's image folders.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from nereid_shared.datasets.sample import Box, Sample, box
from nereid_shared.datasets.source import MAX_LINE, Source
from nereid_shared.datasets.tally import Part, part_of

names_pictures: Final = True
max_line: Final = MAX_LINE
NAMES: Final = ("path", "file_name", "image", "filename")
LABELS: Final = ("label", "class", "category")
CATEGORIES: Final = ("categories", "category", "labels")


def files(folder: Path) -> list[Path]:
    """Return a folder's index files in their order."""
    return [path for path in sorted([*folder.glob("*.jsonl"), *folder.glob("*.ndjson")]) if path.is_file()]


def samples(source: Source, root: Path, *, whole: bool = False) -> Iterator[Sample]:
    """Yield the lines that are not blank; one that is no JSON object is a sample that fails."""
    del root, whole
    source.skip_bom()
    for number, line in enumerate(source.stream, 1):
        if text := line.strip():
            yield _sample(text, number)


def count(source: Source) -> int:
    """Return the number of lines that are not blank."""
    source.skip_bom()
    return sum(1 for line in source.stream if line.strip())


def part(source: Source, root: Path) -> Part:
    """Return the sums."""
    return part_of(samples(source, root), where=source.where)


def _sample(line: bytes, number: int) -> Sample:
    try:
        row = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Sample(line=number, problem=f"it is no JSON: {error}")
    if not isinstance(row, dict):
        return Sample(line=number, problem="it is no JSON object")
    name = next((row[key] for key in NAMES if isinstance(row.get(key), str)), "")
    label = next((row[key] for key in LABELS if isinstance(row.get(key), str | int)), "")
    try:
        boxes = _boxes(row.get("objects"))
    except (TypeError, ValueError, OverflowError) as error:
        return Sample(name=name, label=str(label), line=number, problem=f"objects: {error}")
    return Sample(name=name, label=str(label), boxes=boxes, line=number)


def _boxes(objects: Any) -> tuple[Box, ...]:
    if not objects:
        return ()
    if not isinstance(objects, dict):
        raise TypeError('{"bbox": […], "categories": […]} is wanted')
    places = objects.get("bbox") or []
    labels: list[Any] = next((objects[key] for key in CATEGORIES if key in objects), [])
    if len(labels) != len(places):
        raise ValueError(f"{len(places)} of bbox, {len(labels)} of categories")
    return tuple(_box(place, label) for place, label in zip(places, labels, strict=True))


def _box(place: Any, label: Any) -> Box:
    left, top, width, height = place
    return box(label, left, top, width, height)
