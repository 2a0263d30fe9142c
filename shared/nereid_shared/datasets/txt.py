# SPDX-License-Identifier: Apache-2.0
"""``txt``: a sample a line that is not blank: a picture's path and, behind white space, its class.

Where the first line names no picture, the lines are texts: they count, and nothing is looked for in them.
"""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Final

from nereid_shared.datasets.pictures import is_picture
from nereid_shared.datasets.sample import Sample
from nereid_shared.datasets.source import CHUNK, MAX_LINE, Source
from nereid_shared.datasets.tally import Part, part_of

names_pictures: Final = True
max_line: Final = MAX_LINE


def files(folder: Path) -> list[Path]:
    """Return a folder's index files in their order."""
    return [path for path in sorted(folder.glob("*.txt")) if path.is_file()]


def samples(source: Source, root: Path, *, whole: bool = False) -> Iterator[Sample]:
    """Yield the lines that are not blank."""
    del root, whole
    numbered = _lines(source)
    first = next(numbered, None)
    if first is None:
        return
    pictures = is_picture(first[1].split()[0].decode(errors="replace"))
    for number, line in chain([first], numbered):
        # Words of bytes: what is white space only in some script's sense is part of a name.
        name, *label = line.split(None, 1)
        try:
            yield Sample(name=name.decode(), label=label[0].strip().decode() if label and pictures else "", line=number)
        except UnicodeDecodeError:
            yield Sample(line=number, problem="it is not UTF-8")


def part(source: Source, root: Path) -> Part:
    """Return the sums; texts are only counted."""
    with Source(source.path, where=source.where) as ahead:
        first = next(_lines(ahead), (0, b""))[1].split()
    if not first or not is_picture(first[0].decode(errors="replace")):
        return Part(samples=count(source))
    return part_of(samples(source, root), where=source.where)


def _lines(source: Source) -> Iterator[tuple[int, bytes]]:
    source.skip_bom()
    for number, line in enumerate(source.stream, 1):
        if line.split(None, 1):
            yield number, line


def count(source: Source) -> int:
    """Return the number of lines that are not blank."""
    source.skip_bom()
    lines, has_text = 0, False
    while chunk := source.stream.read(CHUNK):
        first, *others = chunk.split(b"\n")
        has_text = has_text or bool(first.strip())
        if others:
            lines += has_text + sum(map(bool, map(bytes.strip, others[:-1])))
            has_text = bool(others[-1].strip())
    return lines + has_text
