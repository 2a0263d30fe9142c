# SPDX-License-Identifier: Apache-2.0
import csv
import io
import os
import queue
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nereid_edge.dataset_files import (
    MAX_LINE,
    DatasetCount,
    DatasetMonitor,
    DatasetProblem,
    DatasetSource,
    count_samples,
    files_of,
)
from nereid_worker import Files

TIMEOUT_S = 10.0


def written(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "samples"),
    [
        ("", 0),
        ("image,label\n", 0),
        ("image,label\na.png,1\nb.png,2\n", 2),
        ("image,label\r\na.png,1\r\nb.png,2", 2),
        ('image,note\na.png,"two\nlines"\nb.png,"a ""quoted""\n\nword"\n', 2),
        ("image,label\n\na.png,1\n\n\n", 1),
        ("\n\nimage,label\na.png,1\n", 1),
        ("\ufeff\nimage,label\na.png\n", 1),
        ('image,note\na.png,5" wide\nb.png,plain\n', 2),
    ],
)
def test_csv_counts_records_after_the_header(tmp_path: Path, text: str, samples: int) -> None:
    assert count_samples(written(tmp_path / "d.csv", text), "csv") == samples


@pytest.mark.parametrize(
    ("text", "samples"), [("", 0), ("\n\n", 0), ("a\nb", 2), ("a\r\n \t\r\nb\r\n", 2), ("x" * 600_000 + "\ny\n", 2)]
)
def test_txt_counts_lines_that_are_not_blank(tmp_path: Path, text: str, samples: int) -> None:
    assert count_samples(written(tmp_path / "d.txt", text), "txt") == samples


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@given(rows=st.lists(st.lists(CELL, min_size=2, max_size=3), max_size=12))
def test_what_a_csv_writer_writes_is_counted(tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]) -> None:
    out = io.StringIO(newline="")
    csv.writer(out).writerows([["image", "label"], *rows])
    path = tmp_path_factory.getbasetemp() / "written.csv"
    assert count_samples(written(path, out.getvalue()), "csv") == len(rows)


def test_a_line_without_end_is_refused_instead_of_read_into_memory(tmp_path: Path) -> None:
    path = written(tmp_path / "d.csv", "a,b\n" + "x" * (MAX_LINE + 1))
    with pytest.raises(DatasetProblem, match="longer than"):
        count_samples(path, "csv")


class Watch:
    """A monitor whose counts can be waited for."""

    def __init__(self) -> None:
        self.counts: queue.Queue[tuple[str, DatasetCount]] = queue.Queue()
        self.monitor = DatasetMonitor(lambda uid, count: self.counts.put((uid, count)), look_every_s=0.05)

    def next(self) -> DatasetCount:
        return self.counts.get(timeout=TIMEOUT_S)[1]


@pytest.fixture
def watch() -> Iterator[Watch]:
    made = Watch()
    yield made
    made.monitor.stop()


def test_a_file_is_counted_again_when_it_changes(watch: Watch, tmp_path: Path) -> None:
    path = written(tmp_path / "d.csv", "h\n1\n")
    watch.monitor.watch({"uid": DatasetSource(url=str(path), format="csv")})
    first = watch.next()
    assert (first.samples, first.changed_at) == (1, path.stat().st_mtime)
    written(path, "h\n1\n2\n")
    assert watch.next().samples == 2


def test_a_path_that_vanishes_is_a_reason_and_heals(watch: Watch, tmp_path: Path) -> None:
    path = written(tmp_path / "d.txt", "1\n")
    watch.monitor.watch({"uid": DatasetSource(url=f"file://{path}", format="txt")})
    assert watch.next().samples == 1
    path.unlink()
    gone = watch.next()
    assert (gone.samples, gone.reason) == (None, "DatasetNotFound")
    written(path, "1\n2\n")
    assert watch.next().samples == 2


def test_a_folder_is_the_sum_of_its_files_of_that_format(watch: Watch, tmp_path: Path) -> None:
    written(tmp_path / "a.txt", "1\n2\n")
    written(tmp_path / "b.txt", "3\n")
    written(tmp_path / "c.csv", "h\n1\n")
    watch.monitor.watch({"uid": DatasetSource(url=str(tmp_path), format="txt")})
    assert watch.next().samples == 3


def test_a_folder_without_an_index_has_no_number_until_it_has_one(watch: Watch, tmp_path: Path) -> None:
    written(tmp_path / "a.png", "no index")
    watch.monitor.watch({"uid": DatasetSource(url=str(tmp_path), format="csv")})
    empty = watch.next()
    assert (empty.samples, empty.reason) == (None, "NoIndex")
    assert empty.message == f"no .csv in {tmp_path}; an index is needed; `nereid new` writes one"
    written(tmp_path / "index.csv", "path\na.png\n")
    assert watch.next().samples == 1


def test_a_file_that_did_not_change_is_not_read_again(watch: Watch, tmp_path: Path) -> None:
    path = written(tmp_path / "d.txt", "1\n2\n")
    state = path.stat()
    watch.monitor.watch({"uid": DatasetSource(url=str(path), format="txt")})
    assert watch.next().samples == 2
    lookalike = written(tmp_path / "lookalike", "1\n\n\n")
    os.utime(lookalike, ns=(state.st_atime_ns, state.st_mtime_ns))
    lookalike.replace(path)
    other = written(tmp_path / "e.txt", "1\n")
    watch.monitor.watch(
        {"uid": DatasetSource(url=str(path), format="txt"), "other": DatasetSource(url=str(other), format="txt")}
    )
    for lines in range(1, 5):
        assert watch.counts.get(timeout=TIMEOUT_S) == ("other", _counted(other, lines))
        written(other, "1\n" * (lines + 1))


LINES = st.lists(
    st.text(st.sampled_from('ab,"; \t\r\n\0\x0b\x1c\x85\xa0\u2028'))
    | st.sampled_from(["", "  ", "\t", "path", "x,path"]),
    max_size=6,
)
HEADERS = {"csv": ["path,label", "label,path", "image", "", "\n\nlabel,path", '"a\nb",path'], "txt": ["", "\n", "x"]}


@given(data=st.data(), format_=st.sampled_from(["csv", "txt"]), is_folder=st.booleans())
def test_the_count_is_the_number_of_samples_that_the_worker_reads(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, format_: str, is_folder: bool
) -> None:
    folder = tmp_path_factory.mktemp("dataset")
    for index in range(data.draw(st.integers(1, 3)) if is_folder else 1):
        mark, header = data.draw(st.sampled_from(["", "\ufeff"])), data.draw(st.sampled_from(HEADERS[format_]))
        written(folder / f"{index}.{format_}", mark + "\n".join([header, *data.draw(LINES), ""]))
    written(folder / "notes.md", "a.png\n")
    (folder / f"inner.{format_}").mkdir()
    written(folder / f"inner.{format_}" / f"deep.{format_}", "path,label\na.png,1\n")
    url = folder if is_folder else folder / f"0.{format_}"
    counted = sum(count_samples(p, format_) for p, _ in files_of(DatasetSource(url=str(url), format=format_)))
    assert counted == sum(1 for _ in Files(str(url), format_).frames(0))


def _counted(path: Path, samples: int) -> DatasetCount:
    return DatasetCount(samples=samples, changed_at=path.stat().st_mtime)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (DatasetSource(url="s3://bucket/d.csv", format="csv"), "DatasetUrlUnsupported"),
        (DatasetSource(url="/data/d.tfrecord", format="tfrecord"), "DatasetFormatUnknown"),
    ],
)
def test_what_cannot_be_counted_says_why(watch: Watch, source: DatasetSource, reason: str) -> None:
    watch.monitor.watch({"uid": source})
    assert watch.next().reason == reason
