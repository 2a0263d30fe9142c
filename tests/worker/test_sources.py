# SPDX-License-Identifier: Apache-2.0
"""Where samples come from: what is read, in which order, and what is refused."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.shared.datasets import scenes
from tests.worker.scenes import picture, write_dataset

from nereid_shared.datasets import Dataset
from nereid_shared.errors import UserError
from nereid_worker.files import Files
from nereid_worker.page import mark_of
from nereid_worker.sources import Iterated, Live, frame


def keys(source: Files, start: int = 0) -> list[str]:
    return [one.key for one in source.frames(start)]


def test_a_csv_names_images_in_its_path_column(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(0))
    (tmp_path / "i.csv").write_text('label,path\n7,a.png\n8,"b, c.png"\n9\n')
    frames = list(Files(str(tmp_path / "i.csv"), "csv").frames(0))
    assert [(one.index, one.key, one.data) for one in frames] == [
        (0, "a.png", picture(0)), (1, "b, c.png", None), (2, "2", None),
    ]  # fmt: skip


def test_lines_before_the_header_that_are_blank_are_no_header(tmp_path: Path) -> None:
    (tmp_path / "i.csv").write_text("\n\r\nlabel,path\n7,a.png\n")
    assert keys(Files(str(tmp_path / "i.csv"), "csv")) == ["a.png"]


def test_a_name_that_no_file_can_have_is_a_sample_that_fails(tmp_path: Path) -> None:
    (tmp_path / "i.csv").write_text("path\na\0.png\n")
    (one,) = Files(str(tmp_path / "i.csv"), "csv").frames(0)
    assert one.data is None


def test_a_txt_has_one_path_a_line(tmp_path: Path) -> None:
    (tmp_path / "i.txt").write_text("a.png 1\n\n  b.png\n")
    assert keys(Files(str(tmp_path / "i.txt"), "txt")) == ["a.png", "b.png"]


def test_a_folder_gives_its_images_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.png", "sub/a.JPG", "a.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert keys(Files(f"file://{tmp_path}", "folder")) == ["a.png", "b.png", "sub/a.JPG"]


def test_frames_before_the_start_are_not_read(tmp_path: Path) -> None:
    index = write_dataset(tmp_path, [0, 1, 2])
    assert [one.index for one in Files(str(index), "csv").frames(2)] == [2]


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname", "link.png"])
def test_an_index_cannot_name_what_is_outside_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "data" / "i.csv").write_text(f"path\n{name}\n")
    (one,) = Files(str(tmp_path / "data" / "i.csv"), "csv").frames(0)
    assert one.data is None


@pytest.mark.parametrize("format_", ["csv", "txt", "folder"])
def test_what_is_not_there_says_so(tmp_path: Path, format_: str) -> None:
    with pytest.raises(UserError, match="no such file") as caught:
        Files(str(tmp_path / "nothing"), format_)
    assert caught.value.reason == "DatasetUnreadable"


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="parquet"):
        Files(str(tmp_path), "parquet")


def test_a_dataset_that_vanishes_while_it_is_read_counts_no_failures(tmp_path: Path) -> None:
    index = write_dataset(tmp_path / "data", [0, 0, 0])
    frames = Files(str(index), "csv").frames(0)
    next(frames)
    (tmp_path / "data").rename(tmp_path / "gone")
    with pytest.raises(UserError, match="no such file"):
        next(frames)


def test_a_name_that_is_no_text_is_a_sample_that_fails(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(0))
    (tmp_path / "i.csv").write_bytes(b"path\n\xff\xfe\na.png\n")
    assert [(one.key, one.data) for one in Files(str(tmp_path / "i.csv"), "csv").frames(0)] == [
        ("0", None), ("a.png", picture(0)),
    ]  # fmt: skip


def test_an_index_that_the_disk_does_not_give_says_so() -> None:
    with pytest.raises(UserError, match=r"index cannot be read: .*Input/output error"):
        list(Files("/proc/self/mem", "csv").frames(0))


WRITERS: list[tuple[str, Callable[[Path], Path]]] = [
    ("coco", scenes.coco), ("yolo", scenes.yolo), ("xml", scenes.voc), ("jsonl", scenes.jsonl),
]  # fmt: skip


@pytest.mark.parametrize(("format_", "write"), WRITERS)
def test_what_is_counted_is_served(format_: str, write: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = write(tmp_path / "d")
    frames = list(Files(str(folder), format_).frames(0))
    assert len(frames) == Dataset(str(folder), format_).count() == 3
    assert [one.data for one in frames] == [next(folder.rglob(name)).read_bytes() for name in scenes.PICTURES]


@pytest.mark.parametrize(("format_", "write"), WRITERS)
def test_every_format_goes_on_where_it_stopped(format_: str, write: Callable[[Path], Path], tmp_path: Path) -> None:
    url = str(write(tmp_path / "d"))
    first = next(Files(url, format_).frames(0))
    again = Files(url, format_)
    rest = list(again.frames(again.resume(1, mark_of(first.key))))
    assert [one.index for one in rest] == [1, 2]
    assert first.key not in {one.key for one in rest}


def test_an_annotation_that_comes_later_is_read_after_all_others(tmp_path: Path) -> None:
    folder = scenes.voc(tmp_path / "d")
    source = Files(str(folder), "xml")
    before, version = [one.key for one in source.frames(0)], source.version()
    shutil.copy(folder / "Annotations" / "b.xml", folder / "Annotations" / "a0.xml")
    assert source.version() != version
    assert [one.key for one in source.frames(0)] == [*before, "Annotations/a0.xml"]


def test_a_name_that_is_no_text_has_a_key_that_is(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xe9.png")).write_bytes(picture(0))
    source = Files(str(tmp_path), "folder")
    (one,) = source.frames(0)
    assert (one.key, one.data) == ("\N{REPLACEMENT CHARACTER}.png", picture(0))
    assert source.resume(1, mark_of(one.key)) == 1


def test_a_broken_annotation_is_a_sample_that_fails(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text("<annotation>")
    (one,) = Files(str(tmp_path), "xml").frames(0)
    assert (one.key, one.data) == ("a.xml", None)


def test_a_dataset_that_grows_has_another_version(tmp_path: Path) -> None:
    index = write_dataset(tmp_path, [0])
    source = Files(str(index), "csv")
    before = source.version()
    with index.open("a") as file:
        file.write("images/00000.png\n")
    assert source.version() != before


def test_lists_are_read_in_the_callers_thread_and_what_may_block_is_not() -> None:
    assert not Iterated([b"a"]).blocking
    assert Iterated(iter([b"a"])).blocking
    assert Live([b"a"]).blocking


def test_live_frames_are_numbered_on() -> None:
    assert [(one.index, one.key) for one in Live([b"a", b"b"]).frames(7)] == [(7, "7"), (8, "8")]


def test_a_frame_keeps_bytes_and_arrays_as_they_are() -> None:
    pixels = np.zeros((2, 2), np.uint8)
    assert frame(pixels, index=0).data is pixels
    assert frame(memoryview(b"ab"), index=0).data == b"ab"
