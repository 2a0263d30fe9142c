# SPDX-License-Identifier: Apache-2.0
"""A dataset in another format is the same dataset; what has no place in it is not dropped silently."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pycocotools.coco import COCO
from tests.shared.datasets import scenes

from nereid_cloud.datasets.conversion import convert
from nereid_cloud.datasets.writers import WRITERS
from nereid_shared.datasets import Dataset, read
from nereid_shared.errors import UserError

SOURCES: list[tuple[str, Callable[[Path], Path]]] = [
    ("coco", scenes.coco), ("yolo", scenes.yolo), ("xml", scenes.voc), ("jsonl", scenes.jsonl),
]  # fmt: skip
Content = list[tuple[bytes, str, list[tuple[str, int, int, int, int]]]]


def content(dataset: Dataset) -> Content:
    """Return each picture with its class and boxes, whatever it is called."""
    return sorted(
        (
            (dataset.root / one.name).read_bytes(),
            one.label,
            [(b.label, round(b.left), round(b.top), round(b.width), round(b.height)) for b in one.boxes],
        )
        for one in dataset.samples(whole=True)
    )


@pytest.mark.parametrize("to", [form for form in WRITERS if form not in {"csv", "txt", "folder"}])
@pytest.mark.parametrize(("form", "write"), SOURCES)
def test_boxes_are_the_same_in_every_format(form: str, write: Callable[[Path], Path], to: str, tmp_path: Path) -> None:
    source = Dataset(str(write(tmp_path / "d")), form)
    done = convert(source, to, tmp_path / "out")
    made = Dataset(str(tmp_path / "out"), to)
    assert (done.samples, done.left_out) == (3, {})
    assert content(made) == content(source)
    assert read(made).statistics.classes == {"cat": 2, "dog": 1}


@pytest.mark.parametrize("to", ["csv", "txt", "jsonl", "folder"])
def test_classes_of_whole_pictures_are_the_same(to: str, tmp_path: Path) -> None:
    folder = tmp_path / "d"
    for name, label in (("a.png", "cat"), ("b c.png", "dog")):
        (folder / label).mkdir(parents=True)
        (folder / label / name).write_bytes(scenes.picture(4, len(label)))
    source = Dataset(str(folder), "folder")
    convert(source, to, tmp_path / "out")
    assert content(Dataset(str(tmp_path / "out"), to)) == content(source)


def test_a_coco_file_is_one_to_pycocotools(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert(Dataset(str(scenes.voc(tmp_path / "d")), "xml"), "coco", tmp_path / "out")
    found = COCO(str(tmp_path / "out" / "annotations.json"))
    capsys.readouterr()
    assert {one["name"]: len(found.getAnnIds(catIds=[one["id"]])) for one in found.cats.values()} == {
        "cat": 2,
        "dog": 1,
    }
    assert {(one["width"], one["height"]) for one in found.imgs.values()} == set(scenes.PICTURES.values())


@pytest.mark.parametrize("to", ["csv", "txt", "folder"])
def test_boxes_that_have_no_place_end_the_conversion_and_leave_nothing(to: str, tmp_path: Path) -> None:
    source = Dataset(str(scenes.yolo(tmp_path / "d")), "yolo")
    with pytest.raises(UserError, match=r"a\.png: the format has no place for boxes.*--lossy"):
        convert(source, to, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"d"}
    done = convert(source, to, tmp_path / "out", is_lossy=True)
    assert (done.samples, done.left_out) == (3, {"boxes": 3})


@pytest.mark.parametrize("to", ["coco", "yolo", "xml"])
def test_a_class_that_has_no_place_ends_the_conversion(to: str, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.png").write_bytes(scenes.picture(4, 4))
    (tmp_path / "d" / "i.csv").write_text("path,label\na.png,cat\n")
    source = Dataset(str(tmp_path / "d" / "i.csv"), "csv")
    with pytest.raises(UserError, match=r"i\.csv: line 2: the format has no place for the class"):
        convert(source, to, tmp_path / "out")
    assert convert(source, to, tmp_path / "out", is_lossy=True).left_out == {"classes of whole pictures": 1}


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("gone.png", "its picture is missing"),
        ("a\0.png", "name is no text"),
        ("../secret.png", "its picture lies outside"),
        ("cut.png", "no whole JPEG or PNG"),
        (",", "column 1 names no picture"),
    ],
)
def test_a_broken_sample_ends_the_conversion(row: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(scenes.picture(4, 4))
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "a.png").write_bytes(scenes.picture(4, 4))
    (folder / "cut.png").write_bytes(scenes.picture(4, 4)[:-8])
    (folder / "i.csv").write_text(f"path\na.png\n{row}\n")
    source = Dataset(str(folder / "i.csv"), "csv")
    with pytest.raises(UserError, match=problem):
        convert(source, "jsonl", tmp_path / "out")
    done = convert(source, "jsonl", tmp_path / "out", is_lossy=True)
    assert (done.samples, done.left_out) == (1, {"broken samples": 1})


def test_two_pictures_that_would_be_one_end_the_conversion(tmp_path: Path) -> None:
    for name in ("x/a.png", "y/a.png"):
        (tmp_path / "d" / name).parent.mkdir(parents=True)
        (tmp_path / "d" / name).write_bytes(scenes.picture(4, 4))
    (tmp_path / "d" / "i.csv").write_text("path,label\nx/a.png,cat\ny/a.png,cat\n")
    with pytest.raises(UserError, match=r"y/a\.png: it and x/a\.png would both be cat/a\.png"):
        convert(Dataset(str(tmp_path / "d"), "csv"), "folder", tmp_path / "out")


def test_what_is_there_already_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="it is there already"):
        convert(Dataset(str(scenes.jsonl(tmp_path / "d")), "jsonl"), "csv", tmp_path / "out")


def test_boxes_of_images_that_are_not_there_are_not_lost_silently(tmp_path: Path) -> None:
    folder = scenes.coco(tmp_path / "d")
    file = folder / "annotations" / "instances_val2017.json"
    said = json.loads(file.read_text())
    said["annotations"][0]["image_id"] = 99
    file.write_text(json.dumps(said))
    with pytest.raises(UserError, match="boxes of 1 images that are not there, such as 99"):
        convert(Dataset(str(folder), "coco"), "yolo", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_format_that_is_not_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--to: 'parquet' is not written here"):
        convert(Dataset(str(tmp_path), "folder"), "parquet", tmp_path / "out")
