# SPDX-License-Identifier: Apache-2.0
"""How each format is written, so that its reader (`nereid_shared.datasets`) reads the same again."""

import csv
import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Protocol
from xml.sax.saxutils import escape

from nereid_shared.datasets import Box, Sample


class Writer(Protocol):
    """One format.

    Attributes:
        takes_boxes: whether boxes have a place in it.
        takes_labels: whether the class of a whole picture has.
    """

    takes_boxes: bool
    takes_labels: bool

    def place(self, sample: Sample) -> str:
        """Return where the sample's picture goes, relative to the dataset's folder."""
        ...

    def add(self, sample: Sample, name: str, size: tuple[int, int]) -> None:
        """Write a sample.

        Args:
            sample: with its boxes in pixels.
            name: its picture, as `place` said.
            size: the picture's width and height.
        """
        ...

    def close(self) -> None:
        """Write what can only be written at the end."""
        ...


class _Csv:
    takes_boxes, takes_labels = False, True

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        file = stack.enter_context((folder / "index.csv").open("w", newline="", encoding="utf-8"))
        self._rows = csv.writer(file, lineterminator="\n")
        self._rows.writerow(["path", "label"])

    def place(self, sample: Sample) -> str:
        return sample.name

    def add(self, sample: Sample, name: str, size: tuple[int, int]) -> None:
        del size
        self._rows.writerow([name, sample.label])

    def close(self) -> None:
        pass


class _Txt:
    takes_boxes, takes_labels = False, True

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._file = stack.enter_context((folder / "index.txt").open("w", encoding="utf-8", newline="\n"))

    def place(self, sample: Sample) -> str:
        # White space would end the name.
        return "_".join(sample.name.split())

    def add(self, sample: Sample, name: str, size: tuple[int, int]) -> None:
        del size
        self._file.write(f"{name} {sample.label}".rstrip() + "\n")

    def close(self) -> None:
        pass


class _Jsonl:
    takes_boxes, takes_labels = True, True

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._file = stack.enter_context((folder / "metadata.jsonl").open("w", encoding="utf-8", newline="\n"))

    def place(self, sample: Sample) -> str:
        return sample.name

    def add(self, sample: Sample, name: str, size: tuple[int, int]) -> None:
        del size
        row: dict[str, Any] = {"file_name": name}
        if sample.label:
            row["label"] = sample.label
        if sample.boxes:
            row["objects"] = {
                "bbox": [_place(box) for box in sample.boxes],
                "categories": [box.label for box in sample.boxes],
            }
        self._file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def close(self) -> None:
        pass


class _Coco:
    takes_boxes, takes_labels = True, False

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._images = stack.enter_context((folder / "annotations.json").open("w", encoding="utf-8"))
        self._images.write('{"images": [')
        self._annotations: list[dict[str, Any]] = []
        self._number, self._classes = 0, _Classes(first=1)

    def place(self, sample: Sample) -> str:
        return f"images/{sample.name.removeprefix('images/')}"

    def add(self, sample: Sample, name: str, size: tuple[int, int]) -> None:
        self._number += 1
        image = {"id": self._number, "file_name": name, "width": size[0], "height": size[1]}
        self._images.write(("," if self._number > 1 else "") + f"\n{json.dumps(image, ensure_ascii=False)}")
        for box in sample.boxes:
            self._annotations.append({
                "id": len(self._annotations) + 1, "image_id": self._number, "iscrowd": 0, "bbox": _place(box),
                "category_id": self._classes.number(box.label), "area": round(box.width * box.height, 4),
                "segmentation": [],
            })  # fmt: skip

    def close(self) -> None:
        categories = [{"id": number, "name": name} for name, number in self._classes.numbers.items()]
        rest = {"annotations": self._annotations, "categories": categories}
        self._images.write(f"\n], {json.dumps(rest, ensure_ascii=False)[1:]}\n")


class _Yolo:
    takes_boxes, takes_labels = True, False

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        del stack
        self._folder, self._classes = folder, _Classes(first=0)

    def place(self, sample: Sample) -> str:
        return f"images/{sample.name.removeprefix('images/')}"

    def add(self, sample: Sample, name: str, size: tuple[int, int]) -> None:
        if not sample.boxes:
            return
        across, down = size
        file = (self._folder / "labels" / name.removeprefix("images/")).with_suffix(".txt")
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = (
            f"{self._classes.number(box.label)} {(box.left + box.width / 2) / across:.6f}"
            f" {(box.top + box.height / 2) / down:.6f} {box.width / across:.6f} {box.height / down:.6f}\n"
            for box in sample.boxes
        )
        file.write_text("".join(lines))

    def close(self) -> None:
        names = "".join(f"  {number}: {json.dumps(name)}\n" for name, number in self._classes.numbers.items())
        (self._folder / "data.yaml").write_text(f"path: .\ntrain: images\nval: images\nnames:\n{names}", "utf-8")


class _Voc:
    takes_boxes, takes_labels = True, False

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        del stack
        self._annotations = folder / "Annotations"
        self._annotations.mkdir()

    def place(self, sample: Sample) -> str:
        # All pictures lie in one folder.
        return f"JPEGImages/{sample.name.replace('/', '_')}"

    def add(self, sample: Sample, name: str, size: tuple[int, int]) -> None:
        file = Path(name).name
        objects = "".join(
            f"  <object><name>{escape(box.label)}</name><bndbox><xmin>{_number(box.left)}</xmin>"
            f"<ymin>{_number(box.top)}</ymin><xmax>{_number(box.left + box.width)}</xmax>"
            f"<ymax>{_number(box.top + box.height)}</ymax></bndbox></object>\n"
            for box in sample.boxes
        )
        text = (
            f"<annotation>\n  <folder>JPEGImages</folder><filename>{escape(file)}</filename>\n"
            f"  <size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>\n{objects}"
            "</annotation>\n"
        )
        (self._annotations / file).with_suffix(".xml").write_text(text, "utf-8")

    def close(self) -> None:
        pass


class _Folder:
    takes_boxes, takes_labels = False, True

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        del folder, stack

    def place(self, sample: Sample) -> str:
        name = Path(sample.name).name
        return f"{sample.label.replace('/', '_')}/{name}" if sample.label else name

    def add(self, sample: Sample, name: str, size: tuple[int, int]) -> None:
        pass

    def close(self) -> None:
        pass


WRITERS: Final[Mapping[str, Callable[[Path, ExitStack], Writer]]] = {
    "csv": _Csv, "txt": _Txt, "xml": _Voc, "coco": _Coco, "yolo": _Yolo, "jsonl": _Jsonl, "folder": _Folder,
}  # fmt: skip


class _Classes:
    """Numbers for classes, in the order in which they come."""

    def __init__(self, *, first: int) -> None:
        self._first = first
        self.numbers: dict[str, int] = {}

    def number(self, name: str) -> int:
        return self.numbers.setdefault(name, self._first + len(self.numbers))


def _place(box: Box) -> list[float]:
    return [float(_number(side)) for side in (box.left, box.top, box.width, box.height)]


def _number(value: float) -> str:
    return f"{round(value, 4):g}" if abs(value) < 1e5 else str(round(value, 4))
