# SPDX-License-Identifier: Apache-2.0
"""A dataset that changes between two runs: every image is read once, whatever comes before or behind the cursor."""

import os
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nereid_worker.files import Files
from nereid_worker.folder_names import GONE_AT_LEAST
from nereid_worker.page import mark_of


class Reading:
    """A run over a dataset, as a worker does it: a cursor and the mark of the image read last."""

    def __init__(self, url: Path, format_: str, state: Path | None = None) -> None:
        self.url, self.format, self.state = url, format_, state
        self.cursor = self.mark = 0
        self.keys: list[str] = []

    def read(self, most: int = 10_000, *, source: Files | None = None) -> list[str]:
        """Read on, in a process of its own unless a source is given; return the keys."""
        source = source or Files(str(self.url), self.format)
        if self.state is not None:
            source.keep_order(self.state)
        keys: list[str] = []
        self.cursor = source.resume(self.cursor, self.mark)
        for one in source.frames(self.cursor):
            if len(keys) == most:
                break
            self.cursor, self.mark = one.index + 1, mark_of(one.key)
            keys.append(one.key)
        self.keys += keys
        return keys


def write_rows(file: Path, names: list[str]) -> None:
    file.write_text("".join(f"{name}\n" for name in (["path"] if file.suffix == ".csv" else []) + names))


@pytest.mark.parametrize("format_", ["csv", "txt"])
def test_rows_put_in_before_the_cursor_repeat_none_and_lose_none_behind_it(
    tmp_path: Path, format_: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / f"index.{format_}"
    write_rows(file, ["a.png", "b.png", "c.png"])
    reading = Reading(file, format_)
    assert reading.read(2) == ["a.png", "b.png"]
    write_rows(file, ["new.png", "a.png", "newer.png", "b.png", "c.png", "d.png"])
    assert reading.read() == ["c.png", "d.png"]
    assert "images were put in or taken out" in caplog.text


def test_a_row_without_a_name_is_found_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "i.csv").write_text("label,path\n7,a.png\n8\n9,b.png\n")
    reading = Reading(tmp_path / "i.csv", "csv")
    assert reading.read(2) == ["a.png", "1"]
    assert reading.read() == ["b.png"]
    assert not caplog.records


def test_rows_taken_out_before_the_cursor_lose_none_behind_it(tmp_path: Path) -> None:
    write_rows(tmp_path / "i.txt", ["a", "b", "c", "d"])
    reading = Reading(tmp_path / "i.txt", "txt")
    reading.read(3)
    write_rows(tmp_path / "i.txt", ["c", "d", "e"])
    assert reading.read() == ["d", "e"]


def test_where_the_row_read_last_is_gone_the_number_counts_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_rows(tmp_path / "i.txt", ["a", "b", "c"])
    reading = Reading(tmp_path / "i.txt", "txt")
    reading.read(2)
    write_rows(tmp_path / "i.txt", ["x", "y", "z"])
    assert reading.read() == ["z"]
    assert "is not in the dataset any more" in caplog.text


def test_of_rows_that_repeat_the_nearest_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_rows(tmp_path / "i.txt", ["a", "b", "a", "c", "a", "d"])
    reading = Reading(tmp_path / "i.txt", "txt")
    reading.read(3)
    assert Reading.read(reading, 0) == []
    assert caplog.text == ""
    write_rows(tmp_path / "i.txt", ["new", "a", "b", "a", "c", "a", "d"])
    assert reading.read() == ["c", "a", "d"]


@pytest.mark.parametrize("format_", ["csv", "txt"])
def test_a_folder_of_indices_is_read_file_by_file(tmp_path: Path, format_: str) -> None:
    write_rows(tmp_path / f"2.{format_}", ["c", "d"])
    write_rows(tmp_path / f"1.{format_}", ["a", "b"])
    (tmp_path / "notes.md").write_text("x\n")
    (tmp_path / f"sub.{format_}").mkdir()
    reading = Reading(tmp_path, format_)
    assert reading.read(3) == ["a", "b", "c"]
    source = Files(f"file://{tmp_path}", format_)
    before = source.version()
    write_rows(tmp_path / f"3.{format_}", ["e"])
    assert source.version() != before
    assert reading.read() == ["d", "e"]


def test_a_file_url_may_be_quoted(tmp_path: Path) -> None:
    write_rows(tmp_path / "a b.txt", ["x"])
    assert Reading(Path("unused"), "txt").read(source=Files(f"file://{tmp_path}/a%20b.txt", "txt")) == ["x"]


def test_a_new_image_in_an_inner_folder_changes_the_version(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    source = Files(str(tmp_path), "folder")
    list(source.frames(0))
    old = (1_000_000_000, 1_000_000_000)
    for folder in (tmp_path, tmp_path / "inner"):
        os.utime(folder, ns=old)
    before = source.version()
    assert source.version() == before
    (tmp_path / "inner" / "a.png").write_bytes(b"x")
    assert source.version() != before


def test_a_change_in_the_same_tick_as_the_last_look_is_not_overlooked(tmp_path: Path) -> None:
    source = Files(str(tmp_path), "folder")
    (tmp_path / "a.png").write_bytes(b"x")
    just_changed = source.version()
    changed_ns = tmp_path.stat().st_mtime_ns
    os.utime(tmp_path, ns=(changed_ns, changed_ns - 60_000_000_000))
    later = source.version()
    assert isinstance(later[-1], bool)
    assert (just_changed[-1], later[-1]) == (True, False)


NAMES = st.sampled_from([f"{letter}{number}.png" for letter in "abc" for number in range(4)] + ["sub/a.png", "é.jpg"])


@settings(max_examples=150)
@given(st.lists(st.one_of(
    st.tuples(st.just("add"), NAMES), st.tuples(st.just("remove"), NAMES),
    st.tuples(st.just("read"), st.integers(1, 5)), st.tuples(st.just("restart"), st.none()),
), max_size=40))  # fmt: skip
def test_each_image_of_a_folder_is_read_once_whatever_its_name(steps: list[tuple[str, str | int | None]]) -> None:
    with tempfile.TemporaryDirectory() as top:
        folder, state = Path(top, "data"), Path(top, "state")
        folder.mkdir()
        state.mkdir()
        reading, source = Reading(folder, "folder", state), Files(str(folder), "folder")
        ever: set[str] = set()
        for step, value in [*steps, ("read", 1000)]:
            if step == "add":
                path = folder / str(value)
                if str(value) not in ever:
                    path.parent.mkdir(exist_ok=True)
                    path.write_bytes(b"x")
                    ever.add(str(value))
            elif step == "remove":
                (folder / str(value)).unlink(missing_ok=True)
            elif step == "restart":
                source = Files(str(folder), "folder")
            else:
                reading.read(int(value or 0), source=source)
        there = {str(path.relative_to(folder)) for path in folder.rglob("*.*g")}
        counts = Counter(reading.keys)
        assert there <= set(counts)
        assert set(counts.values()) <= {1}


def test_names_of_images_that_are_gone_are_forgotten_when_they_are_many(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    reading = Reading(folder, "folder", tmp_path)
    many = [f"m{number:05}.png" for number in range(GONE_AT_LEAST + 2)]
    for name in ["z.png", *many]:
        (folder / name).write_bytes(b"x")
    assert len(reading.read()) == GONE_AT_LEAST + 3
    for name in many:
        (folder / name).unlink()
    (folder / "a.png").write_bytes(b"x")
    assert reading.read() == ["a.png"]
    assert reading.cursor == GONE_AT_LEAST + 4
    assert reading.read() == []
    names = (tmp_path / "folder.names").read_bytes().split(b"\0")[2:]
    assert names == [b"z.png", b"a.png", b""]
    (folder / many[0]).write_bytes(b"x")
    assert reading.read() == [many[0]]


@pytest.mark.parametrize("spoilt", [b"", b"\x00", b"garbage", b"id\x00one\x00a.png\x00", b"\xff" * 50 + b"\x00" * 9])
def test_an_order_that_cannot_be_read_costs_no_crash(tmp_path: Path, spoilt: bytes) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("b.png", "c.png"):
        (folder / name).write_bytes(b"x")
    reading = Reading(folder, "folder", tmp_path)
    reading.read(1)
    (tmp_path / "folder.names").write_bytes(spoilt)
    assert reading.read() == ["c.png"]


def test_a_name_torn_by_a_kill_is_found_again(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("b.png", "c.png"):
        (folder / name).write_bytes(b"x")
    reading = Reading(folder, "folder", tmp_path)
    reading.read(1)
    kept = tmp_path / "folder.names"
    kept.write_bytes(kept.read_bytes()[:-3])
    (folder / "a.png").write_bytes(b"x")
    assert sorted(reading.read()) == ["a.png", "c.png"]
    assert reading.read() == []
