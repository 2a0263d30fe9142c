# SPDX-License-Identifier: Apache-2.0
"""The elements of a JSON object's arrays are those that a whole reading finds, however the file falls into pieces."""

import io
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nereid_shared.datasets.json_arrays import MAX_ELEMENT, elements
from nereid_shared.errors import UserError

KEYS = ("images", "annotations")


class Pieces(io.BytesIO):
    """A file that is read a few bytes at a time."""

    def __init__(self, data: bytes, size: int) -> None:
        super().__init__(data)
        self._piece = size

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(self._piece, size) if size and size > 0 else self._piece)


def found(data: bytes, *, piece: int = 1 << 16) -> list[tuple[str, Any]]:
    return [(key, json.loads(text)) for key, text in elements(Pieces(data, piece), KEYS, where="d.json")]


LEAVES = st.none() | st.booleans() | st.integers() | st.text(st.sampled_from('a"\\{}[],:é\n'), max_size=6)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from('ab}"'), inner, max_size=3)
)
OBJECTS = st.lists(st.dictionaries(st.sampled_from(["id", "a}", '"']), VALUES, max_size=3), max_size=4)
WHOLES = st.dictionaries(
    st.sampled_from(
        ["info", 'x"'],
    ),
    VALUES,
) | st.fixed_dictionaries({}, optional={"images": OBJECTS, "info": VALUES, "annotations": OBJECTS, "licenses": VALUES})


@example(whole={"images": [{"id": '"}'}]}, piece=1000, indent=None, is_ascii=False)
@given(whole=WHOLES, piece=st.integers(1, 40), indent=st.sampled_from([None, 1]), is_ascii=st.booleans())
def test_elements_are_those_of_the_whole(whole: dict[str, Any], piece: int, indent: int | None, is_ascii: bool) -> None:
    data = json.dumps(whole, indent=indent, ensure_ascii=is_ascii).encode()
    wanted = [(key, one) for key, values in whole.items() if key in KEYS for one in values]
    assert found(data, piece=piece) == wanted


@given(whole=WHOLES, cut=st.integers(1, 200))
def test_what_was_cut_short_is_refused(whole: dict[str, Any], cut: int) -> None:
    data = json.dumps(whole).encode()
    with pytest.raises(UserError, match="no whole JSON"):
        found(data[: max(0, len(data) - cut)], piece=7)


@pytest.mark.parametrize("text", ["[]", '"images"', "x", '{"images": [1]}', '{"images": [{} {}]}', "{1: 2}", '{"a" 1}'])
def test_what_is_no_such_object_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="no whole JSON"):
        found(text.encode())


def test_an_element_without_end_does_not_fill_the_memory() -> None:
    with pytest.raises(UserError, match="more than"):
        found(b'{"images": [{"a": [' + b"1," * MAX_ELEMENT)


def test_what_nobody_asks_for_may_be_of_any_size() -> None:
    assert found(b'{"other": [' + b"1," * MAX_ELEMENT + b'1], "images": [{"id": 1}]}') == [("images", {"id": 1})]
