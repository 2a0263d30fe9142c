# SPDX-License-Identifier: Apache-2.0
"""One dataset in every format, read alike; and what is broken in it."""

import json
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet
import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.coco import COCO
from tests.shared.datasets import scenes
from tests.shared.datasets.scenes import BOXES, PICTURES
from tfrecord.reader import tfrecord_loader

from nereid_shared.datasets import (
    Box,
    Dataset,
    Known,
    Reading,
    Sample,
    coco,
    csv_rows,
    folder,
    formats,
    jsonl,
    parquet,
    read,
    tfrecord,
    txt,
    voc,
    yolo,
)
from nereid_shared.datasets.example import features
from nereid_shared.datasets.sample import Found, Listed
from nereid_shared.errors import UserError
from nereid_shared.messages import DatasetStatistics

# Each module is what its protocol says, as mypy sees it.
LISTED: list[Listed] = [csv_rows, txt, jsonl, coco, parquet, tfrecord]
FOUND: list[Found] = [voc, yolo, folder]

WITH_BOXES: list[tuple[str, Callable[[Path], Path]]] = [
    ("coco", scenes.coco), ("yolo", scenes.yolo), ("xml", scenes.voc), ("jsonl", scenes.jsonl),
    ("tfrecord", scenes.tfrecord),
]  # fmt: skip


def boxes_of(sample: Sample) -> list[tuple[str, int, int, int, int]]:
    return [(b.label, round(b.left), round(b.top), round(b.width), round(b.height)) for b in sample.boxes]


@pytest.mark.parametrize(("name", "write"), WITH_BOXES)
def test_every_format_gives_the_same_boxes(name: str, write: Callable[[Path], Path], tmp_path: Path) -> None:
    dataset = Dataset(str(write(tmp_path / "d")), name)
    found = {Path(sample.name).name: boxes_of(sample) for sample in dataset.samples(whole=True)}
    assert found == BOXES
    assert dataset.count() == len(BOXES)


@pytest.mark.parametrize(("name", "write"), WITH_BOXES)
def test_every_format_gives_the_same_sums(name: str, write: Callable[[Path], Path], tmp_path: Path) -> None:
    found = read(Dataset(str(write(tmp_path / "d")), name))
    said = found.statistics
    assert (found.samples, said.labelled, said.boxes, said.malformed, said.problems) == (3, 2, 3, 0, [])
    assert said.classes == {"cat": 2, "dog": 1}
    looked = 0 if name == "tfrecord" else 3
    assert (said.looked, said.missing, said.corrupt) == (looked, 0, 0)
    if looked:
        assert (said.min_width, said.max_width, said.min_height, said.max_height) == (8, 40, 8, 60)


@pytest.mark.parametrize(("name", "write"), WITH_BOXES)
def test_every_format_is_known_by_its_looks(name: str, write: Callable[[Path], Path], tmp_path: Path) -> None:
    assert formats.guess(write(tmp_path / "d")) == name


def test_a_coco_file_holds_what_pycocotools_finds_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder_ = scenes.coco(tmp_path / "d")
    oracle = COCO(str(folder_ / "annotations" / "instances_val2017.json"))
    capsys.readouterr()
    names = {number: one["name"] for number, one in oracle.cats.items()}
    wanted = {
        one["file_name"]: [
            (names[found["category_id"]], *map(round, found["bbox"])) for found in oracle.imgToAnns[one["id"]]
        ]
        for one in oracle.imgs.values()
    }
    dataset = Dataset(str(folder_), "coco")
    assert {Path(s.name).name: boxes_of(s) for s in dataset.samples(whole=True)} == wanted
    assert read(dataset).statistics.boxes == len(oracle.anns)


def test_a_parquet_file_holds_what_pyarrow_finds_in_it(tmp_path: Path) -> None:
    file = scenes.parquet(tmp_path)
    table = pyarrow.parquet.read_table(file)
    dataset = Dataset(str(file), "parquet")
    assert dataset.count() == table.num_rows
    assert [sample.name for sample in dataset.samples()] == table["path"].to_pylist()
    assert [sample.label for sample in dataset.samples()] == ["cat", "dog", ""]
    said = read(dataset).statistics
    assert (said.classes, said.labelled) == ({"cat": 1, "dog": 1}, 2)


def test_a_tfrecord_file_holds_what_another_reader_finds_in_it(tmp_path: Path) -> None:
    file = scenes.tfrecord(tmp_path)
    rows = list(tfrecord_loader(str(file), None, {"image/filename": "byte", "image/width": "int"}))
    samples = list(Dataset(str(file), "tfrecord").samples())
    assert [sample.name.encode() for sample in samples] == [bytes(row["image/filename"]) for row in rows]


def test_a_folders_classes_are_the_folders_that_pictures_lie_in(tmp_path: Path) -> None:
    for name in ("cat/1.png", "cat/2.JPG", "train/dog/3.png", "4.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(scenes.picture(4, 4))
    found = read(Dataset(str(tmp_path), "folder"))
    assert (found.samples, found.statistics.labelled, found.statistics.files) == (4, 3, 4)
    assert found.statistics.classes == {"cat": 2, "dog": 1}


@pytest.mark.parametrize(("form", "name"), [("folder", b"1.png"), ("xml", b"1.xml"), ("yolo", b"1.png")])
def test_names_on_a_disk_may_be_of_any_bytes(tmp_path: Path, form: str, name: bytes) -> None:
    folder_ = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder_.mkdir()
    annotation = b"<annotation><filename>\xc3\xa9.png</filename></annotation>"
    (folder_ / os.fsdecode(name)).write_bytes(annotation if form == "xml" else scenes.picture(4, 4))
    known = Known(tmp_path / "known.db")
    said = read(Dataset(str(tmp_path), form), known=known).statistics
    known.close()
    assert (said.files, said.looked, said.missing) == (1, 1, form == "xml")
    assert said.classes == ({"caf\N{REPLACEMENT CHARACTER}": 1} if form == "folder" else {})
    assert DatasetStatistics.decode(said.encode(), max_bytes=10_000) == said


def test_a_txt_has_a_class_behind_the_path(tmp_path: Path) -> None:
    (tmp_path / "d.txt").write_text("\ufeffa.png cat\n\n  b.png\tsmall dog \nc.png\n")
    samples = list(Dataset(str(tmp_path / "d.txt"), "txt").samples())
    assert [(s.name, s.label, s.line) for s in samples] == [
        ("a.png", "cat", 1),
        ("b.png", "small dog", 3),
        ("c.png", "", 4),
    ]


def test_a_txt_of_texts_has_no_classes(tmp_path: Path) -> None:
    (tmp_path / "d.txt").write_text("the first sentence\nand another\n\n")
    found = read(Dataset(str(tmp_path / "d.txt"), "txt"))
    assert (found.samples, found.statistics.classes, found.statistics.looked) == (2, {}, 0)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"path": "a.png"', "it is no JSON"),
        ('["a.png"]', "it is no JSON object"),
        ('{"path": "a.png", "objects": {"bbox": [[1, 2, 3]], "categories": ["x"]}}', "objects: "),
        ('{"path": "a.png", "objects": {"bbox": [[1, 2, 3, -4]], "categories": ["x"]}}', "ends before it begins"),
        ('{"path": "a.png", "objects": {"bbox": [[1, 2, 3, 4]], "categories": []}}', "1 of bbox, 0 of categories"),
        ('{"path": "a.png", "objects": {"bbox": [[1, 2, 3, "4"]], "categories": ["x"]}}', "objects: "),
        ('{"path": "a.png", "objects": {"bbox": [[1, 2, 3, 1' + "0" * 400 + ']], "categories": ["x"]}}', "objects: "),
        ('{"path": "a.png", "objects": {"bbox": [[1, 2, 3, 4]], "categories": [""]}}', "a box without a class"),
        ('{"path": "a.png", "objects": 7}', "is wanted"),
    ],
)
def test_a_broken_line_of_a_jsonl_is_a_sample_that_fails(tmp_path: Path, line: str, problem: str) -> None:
    file = tmp_path / "d.jsonl"
    file.write_text(f'{{"path": "a.png", "label": 3}}\n{line}\n')
    whole, broken = Dataset(str(file), "jsonl").samples()
    assert (whole.name, whole.label, whole.problem) == ("a.png", "3", "")
    assert (broken.line, problem in broken.problem) == (2, True), broken.problem
    said = read(Dataset(str(file), "jsonl")).statistics
    assert said.malformed == 1
    assert said.problems[0].startswith(f"{file}:2: ")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("<annotation><filename>a.png</filename>", "no element found"),
        ("<html></html>", "<html> is no <annotation>"),
        ("<annotation><object><bndbox/></object></annotation>", "without <name>"),
        ("<annotation><object><name>x</name><bndbox><xmin>1</xmin></bndbox></object></annotation>", "needs xmin"),
        ('<!DOCTYPE a [<!ENTITY b "ha">]><annotation><filename>&b;</filename></annotation>', "declares entities"),
        (
            "<annotation><object><name>x</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>nan</xmax><ymax>2</ymax></bndbox>"
            "</object></annotation>",
            "<object> x: the sides of a box are numbers",
        ),
        ("", "no element found"),
    ],
)
def test_a_broken_annotation_is_a_sample_that_fails(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "a.xml").write_text(text)
    found = read(Dataset(str(tmp_path), "xml"))
    assert (found.samples, found.statistics.malformed, found.statistics.looked) == (1, 1, 0)
    assert problem in found.statistics.problems[0]


def test_an_annotation_may_name_a_path_of_another_machine(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text("<annotation><filename>C:\\data\\a.png</filename></annotation>")
    (tmp_path / "a.png").write_bytes(scenes.picture(4, 4))
    assert [sample.name for sample in Dataset(str(tmp_path), "xml").samples()] == ["a.png"]


def test_an_annotation_cannot_name_what_is_outside(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(scenes.picture(4, 4))
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.xml").write_text("<annotation><filename>../secret.png</filename></annotation>")
    assert read(Dataset(str(tmp_path / "d"), "xml")).statistics.missing == 1


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("0 0.5 0.5 0.1", "a line has a class"),
        ("x 0.5 0.5 0.1 0.1", "invalid literal"),
        ("7 0.5 0.5 0.1 0.1", "class 7 has no name"),
        ("0 40 20 10 10", "shares of the picture"),
        ("0 0.1 0.1 0.2 0.2 nan 0.3", "shares of the picture"),
    ],
)
def test_a_broken_line_of_yolo_is_a_sample_that_fails(tmp_path: Path, line: str, problem: str) -> None:
    folder_ = scenes.yolo(tmp_path / "d")
    (folder_ / "labels" / "val" / "c.txt").write_text(f"1 0.5 0.5 1 1\n{line}\n")
    said = read(Dataset(str(folder_), "yolo")).statistics
    assert (said.malformed, said.boxes) == (1, 3)
    assert said.problems[0].startswith("labels/val/c.txt:2: ")
    assert problem in said.problems[0]


def test_a_polygon_is_the_box_around_it(tmp_path: Path) -> None:
    folder_ = scenes.yolo(tmp_path / "d")
    (folder_ / "labels" / "val" / "c.txt").write_text("1 0.25 0.5 0.75 0.5 0.5 1\n")
    (box,) = next(s for s in Dataset(str(folder_), "yolo").samples(whole=True) if s.name.endswith("c.png")).boxes
    assert box == Box(label="dog", left=2, top=4, width=4, height=4)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("data.yaml", "nc: 2\nnames: ['cat', \"dog\"]\n"),
        ("data.yaml", "names: [cat,\n  dog]  # two\ntrain: x\n"),
        ("data.yaml", "names: {0: cat, 1: dog}\n"),
        ("my.yml", "names:\n- cat\n# one more\n- dog\nnc: 2\n"),
        ("classes.txt", "cat\ndog\n\n"),
    ],
)
def test_the_names_of_classes_may_stand_in_many_ways(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).write_text(text)
    assert yolo.class_names(tmp_path) == {0: "cat", 1: "dog"}


def coco_of(file: Path, **changes: object) -> Reading:
    text = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [], "categories": [], **changes}
    file.write_text(json.dumps(text))
    return read(Dataset(str(file), "coco"))


def test_a_coco_image_without_a_name_is_a_sample_that_fails(tmp_path: Path) -> None:
    found = coco_of(tmp_path / "d.json", images=[{"id": 1}, {"file_name": "a.png"}, {"id": 2, "file_name": "a.png"}])
    assert (found.samples, found.statistics.malformed) == (3, 2)
    assert len([s for s in Dataset(str(tmp_path / "d.json"), "coco").samples() if s.problem]) == 2


def test_a_coco_file_that_is_cut_short_says_where(tmp_path: Path) -> None:
    file = tmp_path / "d.json"
    coco_of(file)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"d\.json: no whole JSON at byte \d+: it ends too early"):
        read(Dataset(str(file), "coco"))


def tampered(file: Path, place: int) -> Reading:
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)
    return read(Dataset(str(file), "tfrecord"))


def test_a_record_that_fails_its_check_is_a_sample_that_fails(tmp_path: Path) -> None:
    found = tampered(scenes.tfrecord(tmp_path), 20)
    assert (found.samples, found.statistics.malformed) == (3, 1)
    assert found.statistics.problems[0].endswith("val.tfrecord:1: it fails its check")


@given(data=st.binary(max_size=60))
def test_no_bytes_are_an_example_that_cannot_be_read(data: bytes) -> None:
    with suppress(ValueError):
        assert all(isinstance(name, str) for name in features(data))


def test_nothing_is_read_behind_a_broken_length(tmp_path: Path) -> None:
    found = tampered(scenes.tfrecord(tmp_path), 0)
    assert (found.samples, found.statistics.malformed) == (1, 1)


def test_a_tfrecord_file_that_was_cut_ends_in_a_sample_that_fails(tmp_path: Path) -> None:
    file = scenes.tfrecord(tmp_path)
    file.write_bytes(file.read_bytes()[:-3])
    assert read(Dataset(str(file), "tfrecord")).statistics.problems == [f"{file}:3: cut short"]


def test_a_record_that_is_no_example_is_a_sample_that_fails(tmp_path: Path) -> None:
    def check(data: bytes) -> bytes:
        crc = crc32c(data)
        return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    length = struct.pack("<Q", 2)
    (tmp_path / "d.tfrecord").write_bytes(length + check(length) + b"\x0a\x7f" + check(b"\x0a\x7f"))
    said = read(Dataset(str(tmp_path / "d.tfrecord"), "tfrecord")).statistics
    assert (said.malformed, "cut short" in said.problems[0]) == (1, True)


def test_a_parquet_file_that_is_none_says_so(tmp_path: Path) -> None:
    (tmp_path / "d.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(UserError, match=r"d\.parquet"):
        read(Dataset(str(tmp_path / "d.parquet"), "parquet"))


@pytest.mark.parametrize("name", list(PICTURES))
def test_a_picture_that_is_cut_is_corrupt_and_one_that_is_gone_is_missing(tmp_path: Path, name: str) -> None:
    folder_ = scenes.jsonl(tmp_path / "d")
    file = folder_ / name
    file.write_bytes(file.read_bytes()[:-5])
    said = read(Dataset(str(folder_), "jsonl")).statistics
    assert (said.looked, said.missing, said.corrupt) == (3, 0, 1)
    file.unlink()
    said = read(Dataset(str(folder_), "jsonl")).statistics
    assert (said.looked, said.missing, said.corrupt) == (3, 1, 0)
    assert said.problems == [f"{name}: missing: No such file or directory"]


def test_a_folder_without_an_index_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no \.jsonl or \.ndjson in it") as caught:
        read(Dataset(str(tmp_path), "jsonl"))
    assert caught.value.reason == "NoIndex"


@pytest.mark.parametrize("url", ["s3://bucket/d.csv", "http://host/d.csv", "data/d.csv"])
def test_a_url_that_is_no_path_of_this_machine_is_refused(url: str) -> None:
    with pytest.raises(UserError) as caught:
        Dataset(url, "csv")
    assert caught.value.reason == "DatasetUrlUnsupported"


def test_a_format_that_there_is_not_is_refused() -> None:
    with pytest.raises(UserError, match="csv, txt, xml, coco, yolo, jsonl, folder, parquet or tfrecord") as caught:
        Dataset("/d", "avro")
    assert caught.value.reason == "DatasetFormatUnknown"
