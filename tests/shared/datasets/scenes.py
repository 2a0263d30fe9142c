# SPDX-License-Identifier: Apache-2.0
"""One small dataset in every format: three pictures, two classes, three boxes."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet
from tfrecord.writer import TFRecordWriter

PICTURES = {"a.png": (40, 20), "b.jpg": (30, 60), "c.png": (8, 8)}
"""Width and height by name."""
BOXES = {"a.png": [("cat", 4, 2, 10, 12), ("dog", 20, 5, 16, 10)], "b.jpg": [("cat", 3, 6, 9, 30)], "c.png": []}
"""Class, left, top, width, height by name."""
CLASSES = ["cat", "dog"]


def picture(width: int, height: int, *, suffix: str = ".png") -> bytes:
    """Return a grey picture."""
    taken, data = cv2.imencode(suffix, np.full((height, width, 3), 128, np.uint8))
    assert taken
    return bytes(data.tobytes())


def write_pictures(folder: Path) -> None:
    """Write the three pictures into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (width, height) in PICTURES.items():
        (folder / name).write_bytes(picture(width, height, suffix=Path(name).suffix))


def coco(folder: Path) -> Path:
    """Write the dataset as COCO; return the folder."""
    write_pictures(folder / "val2017")
    numbers = {name: number for number, name in enumerate(PICTURES, 7)}
    annotations: list[dict[str, Any]] = [
        {
            "id": number, "image_id": numbers[name], "category_id": CLASSES.index(label) + 3, "bbox": place,
            "area": place[2] * place[3], "iscrowd": 0, "segmentation": [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]],
        }
        for number, (name, label, place) in enumerate(
            [(name, label, place) for name, boxes in BOXES.items() for label, *place in boxes], 1
        )
    ]  # fmt: skip
    (folder / "annotations").mkdir()
    (folder / "annotations" / "captions_val2017.json").write_text(
        json.dumps({"images": [{"id": 1}], "annotations": []})
    )
    (folder / "annotations" / "instances_val2017.json").write_text(
        json.dumps(
            {
                "info": {"description": 'braces } and "quotes"', "year": 2026},
                "annotations": annotations,
                "images": [
                    {"id": numbers[name], "file_name": name, "width": width, "height": height}
                    for name, (width, height) in PICTURES.items()
                ],
                "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES, 3)],
            }
        )
    )
    return folder


def yolo(folder: Path) -> Path:
    """Write the dataset for YOLO; return the folder."""
    write_pictures(folder / "images" / "val")
    (folder / "labels" / "val").mkdir(parents=True)
    for name, boxes in BOXES.items():
        across, down = PICTURES[name]
        lines = [
            f"{CLASSES.index(label)} {(x + w / 2) / across} {(y + h / 2) / down} {w / across} {h / down}\n"
            for label, x, y, w, h in boxes
        ]
        if lines:
            (folder / "labels" / "val" / Path(name).with_suffix(".txt")).write_text("".join(lines))
    (folder / "data.yaml").write_text("path: .\nval: images/val\nnames:\n  0: cat  # the first\n  1: 'dog'\n")
    return folder


def voc(folder: Path) -> Path:
    """Write the dataset as Pascal VOC; return the folder."""
    write_pictures(folder / "JPEGImages")
    (folder / "Annotations").mkdir()
    for name, boxes in BOXES.items():
        objects = "".join(
            f"<object><name>{label}</name><part><name>head</name><bndbox><xmin>1</xmin></bndbox></part><bndbox>"
            f"<xmin>{x}</xmin><ymin>{y}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
            for label, x, y, w, h in boxes
        )
        text = f"<annotation><folder>x</folder><filename>{name}</filename>{objects}</annotation>"
        (folder / "Annotations" / Path(name).with_suffix(".xml")).write_text(text)
    return folder


def jsonl(folder: Path) -> Path:
    """Write the dataset as Hugging Face's image folder; return the folder."""
    write_pictures(folder)
    with (folder / "metadata.jsonl").open("w") as file:
        for name, boxes in BOXES.items():
            objects = {"bbox": [place for _, *place in boxes], "categories": [label for label, *_ in boxes]}
            file.write(json.dumps({"file_name": name, "objects": objects}) + "\n")
    return folder


def tfrecord(folder: Path) -> Path:
    """Write the dataset as TFRecord, by a writer of others; return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "val.tfrecord"
    writer = TFRecordWriter(str(file))
    for name, (across, down) in PICTURES.items():
        boxes = BOXES[name]
        example: dict[str, Any] = {
            "image/filename": (name.encode(), "byte"),
            "image/width": (across, "int"),
            "image/height": (down, "int"),
            "image/object/class/text": ([label.encode() for label, *_ in boxes], "byte"),
            "image/object/bbox/xmin": ([x / across for _, x, _, _, _ in boxes], "float"),
            "image/object/bbox/ymin": ([y / down for _, _, y, _, _ in boxes], "float"),
            "image/object/bbox/xmax": ([(x + w) / across for _, x, _, w, _ in boxes], "float"),
            "image/object/bbox/ymax": ([(y + h) / down for _, _, y, _, h in boxes], "float"),
        }
        writer.write(example)
    writer.close()
    writer.file.close()
    return file


def parquet(folder: Path) -> Path:
    """Write the names and a class each as Parquet, with Hugging Face's metadata; return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table({"path": list(PICTURES), "label": pa.array([0, 1, None], pa.int64()), "w": [40, 30, 8]})
    metadata = {"info": {"features": {"label": {"names": CLASSES, "_type": "ClassLabel"}}}}
    file = folder / "val.parquet"
    pyarrow.parquet.write_table(table.replace_schema_metadata({"huggingface": json.dumps(metadata)}), file)
    return file
