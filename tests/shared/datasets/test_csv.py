# SPDX-License-Identifier: Apache-2.0
"""Counting a CSV by its bytes gives what `csv.reader` gives, whatever the file; and what its records mean."""

import csv
import io
import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nereid_shared.datasets import Dataset, Sample, read
from nereid_shared.datasets.csv_count import count_records
from nereid_shared.datasets.source import CHUNK, MAX_LINE, Source
from nereid_shared.errors import UserError


def counted(path: Path, *, chunk_bytes: int = CHUNK) -> int:
    with Source(path, where="d.csv") as source:
        return count_records(source, chunk_bytes=chunk_bytes)


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def by_reader(data: bytes) -> int:
    text = io.TextIOWrapper(io.BytesIO(data), encoding="latin-1", newline="")
    return sum(1 for record in csv.reader(text) if record)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("csv") / "d.csv"


PIECES = st.sampled_from(
    [b'"', b'""', b",", b"\n", b"\r", b"\r\n", b"a", b"bc", b" ", b"\x00", b"\xe9", b'","', b'"\n"']
)


@given(pieces=st.lists(PIECES, max_size=40), chunk_bytes=st.integers(1, 9))
@example(pieces=[b'"', b"\n", b'"', b"a", b"\n", b"a", b'"', b"\n"], chunk_bytes=3)
@example(pieces=[b"a", b'"', b"\n", b'"', b"\n", b'"'], chunk_bytes=2)
def test_the_count_is_that_of_the_reader(file: Path, pieces: list[bytes], chunk_bytes: int) -> None:
    data = b"".join(pieces)
    assert counted(written(file, data), chunk_bytes=chunk_bytes) == by_reader(data)


@given(rows=st.lists(st.lists(st.text(st.sampled_from('a",\n\r é'), max_size=8), min_size=1, max_size=4), max_size=20))
def test_what_a_writer_writes_is_counted(file: Path, rows: list[list[str]]) -> None:
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows(rows)
    assert counted(written(file, out.getvalue().encode()), chunk_bytes=7) == len(rows)


@pytest.mark.parametrize(
    "row",
    [b'1,"two\nlines",3\n', b"1,2,3\r\n", b'a "quoted" word, "b"\n', b'"""",","\n', b"\n1\n"],
    ids=["newline", "crlf", "quote-in-field", "escapes", "blank"],
)
def test_large_files_are_counted_over_all_chunks(file: Path, row: bytes) -> None:
    data = b"h,i,j\n" + row * (3 * CHUNK // len(row))
    assert counted(written(file, data)) == by_reader(data)


@pytest.mark.parametrize("size", [csv.field_size_limit() - 10, csv.field_size_limit() + 10, 3 * CHUNK])
@pytest.mark.parametrize("form", [b"%s\n", b'"%s"\n', b'x,"%s\n%s"\n'], ids=["bare", "quoted", "lines"])
def test_a_field_that_the_reader_refuses_is_refused(file: Path, size: int, form: bytes) -> None:
    half = size // form.count(b"%s")
    data = b"h\n" + b"x,y\n" * 9 + form % ((b"y" * half,) * form.count(b"%s")) + b"z\n" * 9
    path = written(file, data)
    if size > csv.field_size_limit():
        with pytest.raises(UserError, match="limit"):
            counted(path)
    else:
        assert counted(path) == by_reader(data)


def test_a_quote_that_nothing_closes_ends_with_the_file(file: Path) -> None:
    assert counted(written(file, b'h\na\n"b\nc\n')) == 3


def test_a_quote_that_nothing_closes_does_not_fill_the_memory(file: Path) -> None:
    with pytest.raises(UserError, match=r"d\.csv: field larger.*Look for a quote that nothing closes"):
        counted(written(file, b'h\n"a\n' + b"b\n" * CHUNK))


def test_a_field_of_many_pieces_is_refused(file: Path) -> None:
    data = b'h\n"' + b"y\n" * csv.field_size_limit() + b'"\n'
    with pytest.raises(UserError, match="limit"):
        counted(written(file, data), chunk_bytes=10_000)


def test_a_line_without_end_is_refused(file: Path) -> None:
    with pytest.raises(UserError, match="a line is longer than"):
        counted(written(file, b"a,b\n" + b"x," * MAX_LINE))


def samples(path: Path) -> list[Sample]:
    return list(Dataset(str(path), "csv").samples())


def test_columns_are_known_by_their_names(file: Path) -> None:
    assert samples(written(file, b"\xef\xbb\xbf\nlabel,path\n7,a.png\n\n8,b.png\n")) == [
        Sample(name="a.png", label="7", line=3),
        Sample(name="b.png", label="8", line=5),
    ]


def test_a_record_without_a_name_is_a_sample_that_fails(file: Path) -> None:
    short, latin, good = samples(written(file, b"label,path\n7\n8,\xe9.png\n9,\xc3\xa9.png\n"))
    assert (short.name, short.line, short.problem) == ("", 2, "column 2 names no picture")
    assert latin.problem == "column 2 is not UTF-8"
    assert (good.name, good.problem) == ("é.png", "")


def test_the_statistics_name_the_records_that_fail(file: Path) -> None:
    found = read(Dataset(str(written(file, b"label,path\n7,a.png\n8\n,b.png\n")), "csv"))
    assert (found.samples, found.statistics.labelled, found.statistics.malformed) == (3, 2, 1)
    assert found.statistics.classes == {"7": 1, "8": 1}
    assert found.statistics.problems[0] == f"{file}: record 2: column 2 names no picture"


def test_nobody_looks_for_pictures_in_a_table(file: Path) -> None:
    found = read(Dataset(str(written(file, b"time,value\n1,2.5\n2,\xb0C\n")), "csv"))
    assert (found.samples, found.statistics.looked, found.statistics.malformed) == (2, 0, 0)


def test_classes_are_counted_in_a_table_too(file: Path) -> None:
    found = read(Dataset(str(written(file, b"x,y,class\n" + b"1,2,hot\n" * 5000 + b"1,2,cold\n")), "csv"))
    assert found.statistics.classes == {"hot": 5000, "cold": 1}


def test_so_many_classes_that_they_are_none_take_no_memory(file: Path) -> None:
    rows = "".join(f"{number},{number}\n" for number in range(30_000))
    found = read(Dataset(str(written(file, f"x,label\n{rows}".encode())), "csv"))
    assert (found.samples, found.statistics.labelled) == (30_000, 30_000)
    assert found.statistics.number_of_classes == 10_000
    assert len(found.statistics.classes) == 50


@pytest.mark.parametrize("kind", ["pipe", "terminal", "folder"])
def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = {"pipe": tmp_path / "pipe", "terminal": Path("/dev/ptmx"), "folder": tmp_path}[kind]
    if kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(OSError, match="no regular file"):
        Source(path, where="d.csv")
