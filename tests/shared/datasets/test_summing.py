# SPDX-License-Identifier: Apache-2.0
"""Sums in bounded memory, of what has changed; and the digest."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.shared.datasets import scenes

from nereid_shared.datasets import Dataset, Known, read
from nereid_shared.datasets.known import TICK_NS

OLD_NS = 1_700_000_000_000_000_000
WRITERS: list[tuple[str, Callable[[Path], Path]]] = [
    ("coco", scenes.coco), ("yolo", scenes.yolo), ("xml", scenes.voc), ("jsonl", scenes.jsonl),
]  # fmt: skip


@pytest.fixture
def known(tmp_path: Path) -> Iterator[Known]:
    made = Known(tmp_path / "known.db")
    yield made
    made.close()


def settle(folder: Path) -> None:
    """Let all files be so old that a change would show."""
    for file in folder.rglob("*"):
        os.utime(file, ns=(OLD_NS, OLD_NS))


def swap(file: Path, data: bytes) -> None:
    """Write other content of the same size under the same time: to see whether it is read."""
    stat = file.stat()
    file.write_bytes(data.ljust(stat.st_size)[: stat.st_size])
    os.utime(file, ns=(stat.st_mtime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize(("name", "write"), WRITERS)
def test_a_file_that_did_not_change_is_not_read_again(
    name: str, write: Callable[[Path], Path], tmp_path: Path, known: Known
) -> None:
    dataset = Dataset(str(write(tmp_path / "d")), name)
    settle(dataset.root)
    first = read(dataset, known=known)
    for file in dataset.root.rglob("*"):
        if file.suffix in {".xml", ".jpg"} or file.parent.name == "val":
            swap(file, b"broken")
    assert read(dataset, known=known) == first
    assert read(dataset).statistics != first.statistics


@pytest.mark.parametrize(("name", "write"), WRITERS)
def test_a_file_that_changed_is_read_again(
    name: str, write: Callable[[Path], Path], tmp_path: Path, known: Known
) -> None:
    dataset = Dataset(str(write(tmp_path / "d")), name)
    settle(dataset.root)
    first = read(dataset, known=known)
    picture = next(dataset.root.rglob("a.png"))
    picture.write_bytes(scenes.picture(7, 7))
    again = read(dataset, known=known)
    assert (first.statistics.min_width, again.statistics.min_width) == (8, 7)
    if name == "xml":
        annotation = dataset.root / "Annotations" / "a.xml"
        annotation.write_text(annotation.read_text().replace("cat", "bat"))
        assert read(dataset, known=known).statistics.classes == {"bat": 1, "cat": 1, "dog": 1}


def test_classes_that_get_other_names_are_read_again(tmp_path: Path, known: Known) -> None:
    dataset = Dataset(str(scenes.yolo(tmp_path / "d")), "yolo")
    settle(dataset.root)
    first = read(dataset, known=known).statistics
    names = dataset.root / "data.yaml"
    names.write_text(names.read_text().replace("cat", "lion"))
    again = read(dataset, known=known).statistics
    assert again.classes == {"lion": 2, "dog": 1}
    assert again.digest != first.digest


def test_a_picture_that_comes_to_another_place_is_found(tmp_path: Path, known: Known) -> None:
    dataset = Dataset(str(scenes.voc(tmp_path / "d")), "xml")
    (dataset.root / "JPEGImages").rename(tmp_path / "elsewhere")
    settle(dataset.root)
    assert read(dataset, known=known).statistics.missing == 3
    (tmp_path / "elsewhere").rename(dataset.root / "images")
    assert read(dataset, known=known).statistics.missing == 0


def test_what_is_known_outlives_the_process(tmp_path: Path, known: Known) -> None:
    dataset = Dataset(str(scenes.voc(tmp_path / "d")), "xml")
    settle(dataset.root)
    first = read(dataset, known=known)
    known.close()
    swap(dataset.root / "Annotations" / "a.xml", b"broken")
    another = Known(tmp_path / "known.db")
    assert read(dataset, known=another) == first
    another.close()


@pytest.mark.parametrize(("age_ns", "is_kept"), [(0, False), (TICK_NS, False), (TICK_NS + 1, True), (-(10**12), True)])
def test_what_may_still_change_unseen_is_not_kept(tmp_path: Path, age_ns: int, is_kept: bool) -> None:
    times = iter([OLD_NS + age_ns])  # when it was looked at, however long the reading took
    known = Known(tmp_path / "known.db", clock=lambda: next(times, 2 * OLD_NS))
    known.begin("d")
    assert known.get("f", (OLD_NS, 1)) is None
    known.put("f", (OLD_NS, 1), b"said")
    assert known.get("f", (OLD_NS, 1)) == (b"said" if is_kept else None)
    known.close()


@pytest.mark.parametrize("damage", [b"no database", b""])
def test_a_damaged_cache_costs_only_time(tmp_path: Path, damage: bytes) -> None:
    dataset = Dataset(str(scenes.voc(tmp_path / "d")), "xml")
    (tmp_path / "known.db").write_bytes(damage)
    known = Known(tmp_path / "known.db")
    first = read(dataset, known=known)
    assert first.samples == 3
    assert read(dataset, known=known) == first
    known.close()


def test_a_row_of_the_cache_that_is_damaged_is_read_from_the_file(tmp_path: Path, known: Known) -> None:
    dataset = Dataset(str(scenes.voc(tmp_path / "d")), "xml")
    settle(dataset.root)
    first = read(dataset, known=known)
    known.close()
    with closing(sqlite3.connect(tmp_path / "known.db")) as database, database:
        assert database.execute("update known set said = x'c1c1c1'").rowcount == 6
    assert read(dataset, known=known) == first


def test_files_that_are_gone_are_forgotten(tmp_path: Path, known: Known) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    known.begin("d")
    assert known.get("1", (OLD_NS, 1)) is None
    for number in range(5000):
        known.put(str(number), (OLD_NS, 1), b"")
    known.begin("d")
    known.end()
    assert known.get("1", (OLD_NS, 1)) is None


def test_other_datasets_are_forgotten(known: Known) -> None:
    for dataset in ("a", "b"):
        known.begin(dataset)
        assert known.get("f", (OLD_NS, 1)) is None
        known.put("f", (OLD_NS, 1), dataset.encode())
    known.keep({"b"})
    found = []
    for dataset in ("a", "b"):
        known.begin(dataset)
        found.append(known.get("f", (OLD_NS, 1)))
    assert found == [None, b"b"]


@pytest.mark.parametrize(("name", "write"), WRITERS)
def test_the_digest_is_of_names_and_contents_and_of_no_times(
    name: str, write: Callable[[Path], Path], tmp_path: Path
) -> None:
    here = write(tmp_path / "here")
    there = Path(shutil.copytree(here, tmp_path / "there"))
    settle(there)
    digests = {read(Dataset(str(folder), name)).statistics.digest for folder in (here, there)}
    assert len(digests) == 1
    named = {"coco": "instances_val2017.json", "yolo": "b.jpg", "xml": "b.xml", "jsonl": "metadata.jsonl"}[name]
    file = next(there.rglob(named))
    file.rename(file.with_name(f"instances_other{file.suffix}"))
    renamed = read(Dataset(str(there), name)).statistics.digest
    assert renamed not in digests


def test_a_changed_annotation_changes_the_digest(tmp_path: Path) -> None:
    folder = scenes.yolo(tmp_path / "d")
    before = read(Dataset(str(folder), "yolo")).statistics.digest
    swap(folder / "labels" / "val" / "a.txt", b"1 0.5 0.5 0.5 0.5\n")
    assert read(Dataset(str(folder), "yolo")).statistics.digest != before


def test_only_folders_of_the_dataset_are_to_be_watched(tmp_path: Path) -> None:
    (tmp_path / "d" / "images").mkdir(parents=True)
    (tmp_path / "d" / "i.csv").write_text("path\nimages/a.png\n/etc/a.png\n../a.png\n")
    found = read(Dataset(str(tmp_path / "d" / "i.csv"), "csv"))
    assert found.folders == {str(tmp_path / "d"), str(tmp_path / "d" / "images")}
    assert found.statistics.missing == 3


def test_no_more_pictures_are_looked_at_than_asked_for(tmp_path: Path) -> None:
    folder = scenes.jsonl(tmp_path / "d")
    said = read(Dataset(str(folder), "jsonl"), most_looks=2).statistics
    assert (said.looked, said.max_width) == (2, 40)


PROBE = """
import resource, sys
from nereid_shared.datasets import Dataset, read
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
samples = read(Dataset(sys.argv[1], sys.argv[2]), most_looks=100).samples
print(samples, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("name", ["csv", "coco", "jsonl"])
def test_a_large_file_is_read_in_little_memory(tmp_path: Path, name: str) -> None:
    rows, file = 200_000, tmp_path / f"d.{name}"
    with file.open("w") as out:
        if name == "csv":
            out.write("path,label,note\n")
            out.writelines(f'images/{number:09}.png,{number % 7},"quoted,\nnote"\n' for number in range(rows))
        elif name == "jsonl":
            out.writelines(f'{{"path": "images/{number:09}.png", "label": {number % 7}}}\n' for number in range(rows))
        else:
            out.write('{"images": [{"id": 0, "file_name": "a.png"}')
            out.writelines(f', {{"id": {number}, "file_name": "{number:09}.png"}}' for number in range(1, rows))
            out.write('], "annotations": [{"image_id": 0, "category_id": 1, "bbox": [1, 2, 3, 4]}')
            out.writelines(f', {{"image_id": {number}, "category_id": 1, "bbox": [1,2,3,4]}}' for number in range(rows))
            out.write("]}")
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(file), name], capture_output=True, text=True, check=True, timeout=60
    )
    samples, kilobytes = map(int, done.stdout.split())
    assert samples == rows
    assert kilobytes * 1024 < file.stat().st_size / 2 < 12e6, kilobytes


def test_nothing_but_msgspec_is_imported_until_it_is_needed() -> None:
    probe = "import sys, nereid_shared.datasets; print(*sorted({n.partition('.')[0] for n in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=60)
    packages = {
        name for name in done.stdout.split() if name not in sys.stdlib_module_names and not name.startswith("_")
    }
    assert packages <= {"nereid_shared", "msgspec", "typing_extensions"}
