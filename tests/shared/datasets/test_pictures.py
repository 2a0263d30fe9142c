# SPDX-License-Identifier: Apache-2.0
"""What is seen of a picture's first and last bytes is what the worker, which has all bytes, says of it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.shared.datasets.scenes import picture

from nereid_shared.datasets.pictures import measured
from nereid_shared.errors import BadSample
from nereid_worker.image_header import read_header

EXIF = b"\xff\xe1" + (60_002).to_bytes(2, "big") + b"Exif\0\0\xff\xd8\xff\xd9".ljust(60_000, b"x")


def whole(kind: str) -> bytes:
    data = picture(300, 200, suffix=kind)
    return data[:2] + EXIF + data[2:] if kind == ".jpg" else data


def said_by_worker(data: bytes) -> tuple[int, int] | None:
    try:
        header = read_header(data)
    except BadSample:
        return None
    return header.width, header.height


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pictures") / "p"


@pytest.mark.parametrize("kind", [".png", ".jpg"])
def test_a_whole_picture_has_its_size(file: Path, kind: str) -> None:
    file.write_bytes(whole(kind))
    assert measured(file) == (300, 200)


@given(data=st.data(), kind=st.sampled_from([".png", ".jpg"]), behind=st.sampled_from([b"", b"\0" * 100_000]))
def test_both_say_the_same_of_what_is_broken(file: Path, data: st.DataObject, kind: str, behind: bytes) -> None:
    broken = bytearray(whole(kind))
    for place in data.draw(st.lists(st.integers(0, len(broken) - 1), max_size=3)):
        broken[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del broken[data.draw(st.integers(0, len(broken))) :]
    file.write_bytes(broken + behind)
    assert measured(file) == said_by_worker(bytes(broken + behind))


def test_a_picture_larger_than_a_worker_reads_is_none(file: Path) -> None:
    file.write_bytes(whole(".jpg") + b"\0" * (12 * 1024 * 1024))
    assert measured(file) is None
