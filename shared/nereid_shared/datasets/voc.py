# SPDX-License-Identifier: Apache-2.0
"""``xml``: an annotation of Pascal VOC a file, each a sample.

The picture is looked for beside the annotation, then in ``JPEGImages`` and ``images`` beside the annotation's folder.
Boxes are taken as they stand: ``width = xmax - xmin``, in pixels.
"""

import os
from pathlib import Path
from typing import Final
from xml.parsers import expat

from nereid_shared.datasets.pictures import SUFFIXES
from nereid_shared.datasets.sample import Box, Sample, box

MAX_FILE_BYTES: Final = 4 * 1024 * 1024
_MAX_TEXT: Final = 4096
_BESIDE: Final = ("JPEGImages", "images")
_OBJECT: Final = ("annotation", "object")
_CORNERS: Final = ("xmin", "ymin", "xmax", "ymax")


def is_sample(name: str) -> bool:
    """Whether a file is an annotation."""
    return name.lower().endswith(".xml")


def annotation(root: Path, name: str) -> str:
    """Return the sample's own file."""
    del root
    return name


def shared(root: Path) -> str:
    """Each annotation stands for itself."""
    del root
    return ""


def sample(root: Path, name: str, *, whole: bool = False) -> Sample:
    """Return an annotation's sample; one that is broken has no picture.

    Raises:
        OSError: it cannot be read.
    """
    del whole
    said = _read(root / name)
    if said.problem:
        return Sample(line=said.line, problem=said.problem)
    return Sample(name=_found(root, name, said.filename), boxes=tuple(said.boxes))


def picture(root: Path, name: str) -> str:
    """Return the annotated picture's path; "" where the annotation is broken.

    Raises:
        OSError: the annotation cannot be read.
    """
    return sample(root, name).name


def _found(root: Path, name: str, picture_name: str) -> str:
    folder = os.path.dirname(name)  # noqa: PTH120 - names are relative to the dataset's folder, and stay texts
    stem = os.path.splitext(os.path.basename(name))[0]  # noqa: PTH119, PTH122
    # Some tools write the whole path of the machine that they ran on.
    bare = os.path.basename(picture_name.replace("\\", "/"))  # noqa: PTH119
    names = [picture_name, bare] if picture_name else []
    if not any(one.lower().endswith(tuple(SUFFIXES)) for one in names):
        names += [f"{stem}{suffix}" for suffix in sorted(SUFFIXES)]
    folders = [folder, *(os.path.normpath(os.path.join(folder, "..", beside)) for beside in _BESIDE)]  # noqa: PTH118
    tried = [os.path.join(where, one) for where in folders for one in dict.fromkeys(names)]  # noqa: PTH118
    return next((path for path in tried if (root / path).is_file()), tried[0])


class _Said:
    """What was read of an annotation so far."""

    def __init__(self) -> None:
        self.filename = ""
        self.boxes: list[Box] = []
        self.problem, self.line = "", 0
        self._path: list[str] = []
        self._text: list[str] = []
        self._box: dict[str, str] = {}

    def start(self, tag: str, _: dict[str, str]) -> None:
        self._path.append(tag)
        self._text.clear()
        if len(self._path) == 1 and tag != "annotation":
            raise ValueError(f"<{tag}> is no <annotation>")

    def data(self, text: str) -> None:
        self._text.append(text)
        if len(self._text) > _MAX_TEXT:
            raise ValueError("a text without end")

    def end(self, tag: str) -> None:
        text, path = "".join(self._text).strip(), tuple(self._path)
        self._text.clear()
        self._path.pop()
        if path == _OBJECT:
            self.boxes.append(_box(self._box))
            self._box = {}
        elif path[:2] == _OBJECT and path[2:] == ("name",):
            self._box["name"] = text
        elif path[:3] == (*_OBJECT, "bndbox") and len(path) == 4:
            self._box[tag] = text
        elif path == ("annotation", "filename"):
            self.filename = text


def _read(path: Path) -> _Said:
    said = _Said()
    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = said.start, said.end
    parser.CharacterDataHandler = said.data
    # An annotation needs no entities of its own, and a few lines of them can stand for gigabytes.
    parser.EntityDeclHandler = _refuse
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise ValueError(f"an annotation of more than {MAX_FILE_BYTES} bytes")
        parser.Parse(data, True)
    except (ValueError, expat.ExpatError) as error:
        said.problem, said.line = str(error), parser.CurrentLineNumber
    return said


def _refuse(*_: object) -> None:
    raise ValueError("it declares entities")


def _box(said: dict[str, str]) -> Box:
    label = said.get("name", "")
    if not label:
        raise ValueError("an <object> without <name>")
    if not all(corner in said for corner in _CORNERS):
        raise ValueError(f"<object> {label}: <bndbox> needs {', '.join(_CORNERS)}")
    left, top, right, bottom = (float(said[corner]) for corner in _CORNERS)
    try:
        return box(label, left, top, right - left, bottom - top)
    except ValueError as error:
        raise ValueError(f"<object> {label}: {error}") from error
