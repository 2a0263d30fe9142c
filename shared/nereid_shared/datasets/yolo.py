# SPDX-License-Identifier: Apache-2.0
"""``yolo``: pictures, each with a text file of boxes; a picture without one is a sample without boxes.

For ``…/images/….jpg`` the text file is ``…/labels/….txt``, else it lies beside the picture. A line is ``class x y width
height``, centre and size as shares of the picture, or a polygon, which stands for the box around it. The names of the
classes are in ``data.yaml`` (or another YAML file of the dataset's folder), ``classes.txt`` or ``obj.names``.
"""

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Final

from nereid_shared.datasets.pictures import is_picture, measured
from nereid_shared.datasets.sample import Box, Sample, box

MAX_FILE_BYTES: Final = 4 * 1024 * 1024
_IMAGES, _LABELS = "images", "labels"
_NAMES_KEY: Final = re.compile(r"^names[ \t]*:[ \t]*(.*)$", re.MULTILINE)
_ITEM: Final = re.compile(r"[ \t]*(?:-|['\"]?(\d+)['\"]?[ \t]*:)[ \t]+(.*)$")
_FLOW: Final = re.compile(r"\s*(?:['\"]?(\d+)['\"]?[ \t]*:[ \t]*)?('(?:[^']|'')*'|\"[^\"]*\"|[^,'\"]+)\s*(?:,|$)")


def is_sample(name: str) -> bool:
    """Whether a file is a picture."""
    return is_picture(name)


def annotation(root: Path, name: str) -> str:
    """Return the picture's text file, which may not be there."""
    del root
    stem = os.path.splitext(name)[0]  # noqa: PTH122 - names are relative to the dataset's folder, and stay texts
    parts = stem.split("/")
    # The last one: the folders above may be called anything.
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == _IMAGES:
            parts[place] = _LABELS
            break
    return "/".join(parts) + ".txt"


def sample(root: Path, name: str, *, whole: bool = False) -> Sample:
    """Return a picture with its boxes; in pixels where it is wanted `whole`, else as shares of the picture.

    Raises:
        OSError: the text file cannot be read.
    """
    path = root / annotation(root, name)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return Sample(name=name)
    if len(data) > MAX_FILE_BYTES:
        return Sample(name=name, problem=f"more than {MAX_FILE_BYTES} bytes")
    size = _size(root / name) if whole else (1, 1)
    names = class_names(root)
    boxes = []
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            boxes.append(_box(line, names, size))
        except ValueError as error:
            return Sample(name=name, line=number, problem=str(error))
    return Sample(name=name, boxes=tuple(boxes))


def picture(root: Path, name: str) -> str:
    """Return the sample's own file."""
    del root
    return name


def _size(path: Path) -> tuple[int, int]:
    """Return a picture's size; of one that is missing or broken, which who looks at it will see, shares stay shares."""
    try:
        return measured(path) or (1, 1)
    except OSError:
        return 1, 1


def shared(root: Path) -> str:
    """Return the file that names the classes."""
    try:
        changed_ns = root.stat().st_mtime_ns
    except OSError:
        return ""
    return _named_by(root, changed_ns)


def class_names(root: Path) -> dict[int, str]:
    """Return the classes by number; none where no file names them."""
    file = shared(root)
    try:
        stat = (root / file).stat()
    except OSError:
        return {}
    return _names(root / file, stat.st_mtime_ns, stat.st_size) if file else {}


@lru_cache(maxsize=16)
def _named_by(root: Path, changed_ns: int) -> str:
    """Return the file in which names stand, looked for once for each state of the folder, in the best place first."""
    del changed_ns
    first = [root / name for name in ("data.yaml", "data.yml", "dataset.yaml")]
    others = sorted({*root.glob("*.yaml"), *root.glob("*.yml")} - set(first))
    places = (*first, *others, root / "classes.txt", root / "obj.names", root / _LABELS / "classes.txt")
    return next((path.relative_to(root).as_posix() for path in places if path.is_file()), "")


@lru_cache(maxsize=16)
def _names(path: Path, changed_ns: int, size: int) -> dict[int, str]:
    del changed_ns, size  # they are there to tell one state of the file from another
    with path.open(encoding="utf-8", errors="replace") as file:
        text = file.read(MAX_FILE_BYTES)
    if path.suffix in {".yaml", ".yml"}:
        return _yaml_names(text)
    return dict(enumerate(line.strip() for line in text.splitlines() if line.strip()))


def _yaml_names(text: str) -> dict[int, str]:
    """Return the list or map under ``names:``, on one line or on several; of YAML no more is read."""
    found = _NAMES_KEY.search(text)
    if found is None:
        return {}
    inline, rest = found[1].strip(), text[found.end() :]
    if inline[:1] in {"[", "{"}:
        whole = inline + rest
        flow = whole[1 : whole.find("]" if inline[0] == "[" else "}")]
        items = [(one[1], one[2]) for one in _FLOW.finditer(re.sub(r"(?m)\s+#.*$", "", flow).strip())]
    else:
        items = []
        for line in rest.splitlines():
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            item = _ITEM.match(line)
            if item is None:
                break
            items.append((item[1], item[2]))
    return {int(number) if number else place: _plain(name) for place, (number, name) in enumerate(items)}


def _plain(text: str) -> str:
    text = text.strip()
    if text[:1] in {"'", '"'} and (end := text.find(text[0], 1)) > 0:
        return text[1:end]
    return re.sub(r"\s+#.*$", "", text).strip()


def _box(line: bytes, names: dict[int, str], size: tuple[int, int]) -> Box:
    first, *others = line.split()
    shares = [float(value) for value in others]
    if len(shares) < 4 or (len(shares) > 5 and len(shares) % 2):
        raise ValueError("a line has a class, x, y, width and height, or a polygon's corners")
    number = int(first)
    if number < 0 or (names and number not in names):
        raise ValueError(f"class {number} has no name")
    if any(not -0.01 <= share <= 1.01 for share in shares):
        raise ValueError("x, y, width and height are shares of the picture, from 0 to 1")
    if len(shares) <= 5:  # the fifth is a score
        x, y, width, height = shares[:4]
        left, top = x - width / 2, y - height / 2
    else:
        left, top = min(shares[::2]), min(shares[1::2])
        width, height = max(shares[::2]) - left, max(shares[1::2]) - top
    across, down = size
    return box(names.get(number) or number, left * across, top * down, width * across, height * down)
