# SPDX-License-Identifier: Apache-2.0
import os
import queue
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.shared.datasets import scenes

from nereid_edge.dataset_files import DatasetCount, DatasetMonitor, DatasetSource, rest_s
from nereid_edge.folder_watch import FolderWatch
from nereid_edge.reading_apart import read_apart
from nereid_shared.datasets import Dataset, read
from nereid_shared.errors import UserError
from nereid_worker import Files

TIMEOUT_S = 30.0
NEVER_S = 3600.0
OLD_NS = 1_700_000_000_000_000_000


def written(path: Path, text: str) -> Path:
    """Write a file at one stroke, since somebody watches it."""
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(text.encode())
    return part.replace(path)


def counted(path: Path, format_: str) -> int:
    """Return the number of samples, which is the same however it is found."""
    dataset = Dataset(str(path), format_)
    samples = read(dataset).samples
    assert dataset.count() == samples
    return samples


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
    assert counted(written(tmp_path / "d.csv", text), "csv") == samples


@pytest.mark.parametrize(
    ("text", "samples"), [("", 0), ("\n\n", 0), ("a\nb", 2), ("a\r\n \t\r\nb\r\n", 2), ("x" * 600_000 + "\ny\n", 2)]
)
def test_txt_counts_lines_that_are_not_blank(tmp_path: Path, text: str, samples: int) -> None:
    assert counted(written(tmp_path / "d.txt", text), "txt") == samples


class Watch:
    """A monitor whose counts can be waited for; told of changes by inotify alone, or by its looks alone."""

    def __init__(self, *, inotify: bool, known: Path | None = None) -> None:
        self.counts: queue.Queue[tuple[str, DatasetCount]] = queue.Queue()
        self.monitor = DatasetMonitor(
            lambda uid, count: self.counts.put((uid, count)), known=known, look_every_s=0.05,
            watched_look_every_s=NEVER_S, folder_watch=FolderWatch() if inotify else FolderWatch(max_folders=0),
        )  # fmt: skip

    def next(self) -> DatasetCount:
        return self.counts.get(timeout=TIMEOUT_S)[1]


@pytest.fixture(params=["inotify", "polling"])
def watch(request: pytest.FixtureRequest) -> Iterator[Watch]:
    made = Watch(inotify=request.param == "inotify")
    yield made
    made.monitor.stop()


def test_a_file_is_counted_again_when_it_changes(watch: Watch, tmp_path: Path) -> None:
    path = written(tmp_path / "d.csv", "h\n1\n")
    watch.monitor.watch({"uid": DatasetSource(url=str(path), format="csv")})
    first = watch.next()
    assert first.samples == 1
    assert first.changed_at == pytest.approx(path.stat().st_mtime)
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


def test_a_folder_that_is_replaced_is_watched_where_it_was(watch: Watch, tmp_path: Path) -> None:
    folder = tmp_path / "d"
    (folder / "cat").mkdir(parents=True)
    written(folder / "cat" / "1.png", "x")
    watch.monitor.watch({"uid": DatasetSource(url=str(folder), format="folder")})
    assert watch.next().samples == 1
    folder.rename(tmp_path / "former")
    assert watch.next().reason == "DatasetNotFound"
    (tmp_path / "former").rename(folder)
    assert watch.next().samples == 1
    written(folder / "cat" / "2.png", "x")
    assert watch.next().samples == 2


def test_pictures_in_new_folders_count(watch: Watch, tmp_path: Path) -> None:
    written(tmp_path / "1.png", "x")
    watch.monitor.watch({"uid": DatasetSource(url=str(tmp_path), format="folder")})
    assert watch.next().samples == 1
    (tmp_path / "a" / "b").mkdir(parents=True)
    written(tmp_path / "a" / "b" / "2.png", "x")
    found = watch.next()
    while found.samples != 2:
        found = watch.next()
    assert found.statistics is not None
    assert found.statistics.classes == {"b": 1}


def test_a_picture_that_comes_later_is_not_missing_any_more(watch: Watch, tmp_path: Path) -> None:
    (tmp_path / "d" / "images").mkdir(parents=True)
    path = written(tmp_path / "d" / "d.csv", "path\nimages/a.png\n")
    watch.monitor.watch({"uid": DatasetSource(url=str(path), format="csv")})
    first = watch.next().statistics
    assert first is not None
    assert first.missing == 1
    (tmp_path / "part").write_bytes(scenes.picture(4, 4))
    (tmp_path / "part").rename(tmp_path / "d" / "images" / "a.png")
    again = watch.next().statistics
    assert again is not None
    assert (again.missing, again.max_width) == (0, 4)


def test_an_annotation_that_is_written_in_place_is_read_again(tmp_path: Path) -> None:
    folder = scenes.voc(tmp_path / "d")
    watch = Watch(inotify=True, known=tmp_path / "known.db")
    for file in [*folder.rglob("*"), folder]:
        os.utime(file, ns=(OLD_NS, OLD_NS))
    watch.monitor.watch({"uid": DatasetSource(url=str(folder), format="xml")})
    assert watch.next().samples == 3
    annotation, former = folder / "Annotations" / "a.xml", "cat"
    for name in ("lion", "tiger"):  # before and after its folder is watched
        annotation.write_text(annotation.read_text().replace(former, name))
        again = watch.next().statistics
        while again is None or again.classes != {"cat": 1, "dog": 1, name: 1}:
            again = watch.next().statistics
        former = name
    watch.monitor.stop()


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
    assert empty.message.startswith(f"{tmp_path}: no .csv in it; an index is needed. `nereid new` writes one")
    written(tmp_path / "index.csv", "path\na.png\n")
    assert watch.next().samples == 1


def test_a_dataset_that_is_broken_says_why_and_heals(watch: Watch, tmp_path: Path) -> None:
    path = written(tmp_path / "d.json", '{"images": [')
    watch.monitor.watch({"uid": DatasetSource(url=str(path), format="coco")})
    broken = watch.next()
    assert (broken.samples, broken.reason) == (None, "DatasetInvalid")
    assert "no whole JSON at byte 12" in broken.message
    written(path, '{"images": [{"id": 1, "file_name": "a.png"}]}')
    assert watch.next().samples == 1


def test_a_file_that_did_not_change_is_not_read_again(tmp_path: Path) -> None:
    path, lookalike = written(tmp_path / "d.txt", "1\n2\n"), written(tmp_path / "lookalike", "1\n\n\n")
    for file in (path, lookalike):
        os.utime(file, ns=(OLD_NS, OLD_NS))
    watch = Watch(inotify=False, known=tmp_path / "known.db")
    watch.monitor.watch({"uid": DatasetSource(url=str(path), format="txt")})
    assert watch.next().samples == 2
    # The same size and time, in a folder that has changed: only who reads it sees a difference.
    lookalike.replace(path)
    (tmp_path / "o").mkdir()
    other = written(tmp_path / "o" / "e.txt", "1\n")
    watch.monitor.watch(
        {"uid": DatasetSource(url=str(path), format="txt"), "other": DatasetSource(url=str(other), format="txt")}
    )
    for lines in range(1, 5):
        uid, count = watch.counts.get(timeout=TIMEOUT_S)
        assert (uid, count.samples) == ("other", lines)
        written(other, "1\n" * (lines + 1))
    watch.monitor.stop()


def test_what_was_read_is_known_to_the_next_process(tmp_path: Path) -> None:
    folder = scenes.voc(tmp_path / "d")
    for file in folder.rglob("*"):
        os.utime(file, ns=(OLD_NS, OLD_NS))
    source = {"uid": DatasetSource(url=str(folder), format="xml")}
    annotation = folder / "Annotations" / "a.xml"
    for _ in range(2):
        watch = Watch(inotify=True, known=tmp_path / "known.db")
        watch.monitor.watch(source)
        found = watch.next()
        assert found.statistics is not None
        assert found.statistics.classes == {"cat": 2, "dog": 1}
        watch.monitor.stop()
        watch.monitor.join(TIMEOUT_S)
        annotation.write_bytes(annotation.read_bytes().replace(b"cat", b"bat"))
        os.utime(annotation, ns=(OLD_NS, OLD_NS))


def test_parquet_is_counted_by_a_process_of_its_own(tmp_path: Path) -> None:
    dataset = Dataset(str(scenes.parquet(tmp_path)), "parquet")
    found = read_apart(dataset, is_wanted=lambda: True)
    assert found == read(dataset)
    assert found.statistics.classes == {"cat": 1, "dog": 1}
    with pytest.raises(UserError, match="its reader ended with code -9"):
        read_apart(dataset, is_wanted=lambda: False)


def test_a_parquet_file_that_is_none_says_so(watch: Watch, tmp_path: Path) -> None:
    path = written(tmp_path / "d.parquet", "PAR1")
    watch.monitor.watch({"uid": DatasetSource(url=str(path), format="parquet")})
    broken = watch.next()
    assert (broken.samples, broken.reason) == (None, "DatasetInvalid")
    assert str(path) in broken.message


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
    assert counted(url, format_) == sum(1 for _ in Files(str(url), format_).frames(0))


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (DatasetSource(url="s3://bucket/d.csv", format="csv"), "DatasetUrlUnsupported"),
        (DatasetSource(url="/data/d.avro", format="avro"), "DatasetFormatUnknown"),
        (DatasetSource(url="/data/\0", format="csv"), "DatasetUrlUnsupported"),
    ],
)
def test_what_cannot_be_counted_says_why(watch: Watch, source: DatasetSource, reason: str) -> None:
    watch.monitor.watch({"uid": source})
    assert watch.next().reason == reason


def test_a_dataset_that_nobody_thought_of_holds_up_no_other(watch: Watch, tmp_path: Path) -> None:
    path = written(tmp_path / "d.txt", "1\n")
    watch.monitor.watch(
        {"odd": DatasetSource(url="/data/\ud800", format="txt"), "uid": DatasetSource(url=str(path), format="txt")}
    )
    said = dict(watch.counts.get(timeout=TIMEOUT_S) for _ in range(2))
    assert (said["odd"].reason, said["uid"].samples) == ("DatasetUnreadable", 1)


@pytest.mark.parametrize(("took_s", "rests_s"), [(0.0, 0.5), (1.0, 9.0), (10.0, 90.0), (600.0, 300.0)])
def test_what_never_stops_changing_is_left_alone_in_between_but_not_for_hours(took_s: float, rests_s: float) -> None:
    assert rest_s(took_s) == rests_s
