# SPDX-License-Identifier: Apache-2.0
"""Places in specs, whatever somebody wrote."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nereid_shared.places import node_path


@pytest.mark.parametrize(
    ("place", "path"),
    [
        ("/srv/a b%20.csv", "/srv/a b%20.csv"), ("file:///srv/a%20b.csv", "/srv/a b.csv"),
        ("file://localhost/srv/a?x#y", "/srv/a"), ("file://edge-1/a", None), ("https://host/a", None),
        ("https://[::1/x.tflite", None), ("file://[::1/x.csv", None), ("file:///a%00b", None), ("/a\0b", None),
        ("a.csv", None), ("", None), ("file:/srv/a", None),
    ],
)  # fmt: skip
def test_a_place_is_a_path_of_the_node_or_elsewhere(place: str, path: str | None) -> None:
    found = node_path(place)
    assert (None if found is None else str(found)) == path


@given(st.text() | st.text().map(lambda text: f"file:///{text}") | st.text().map(lambda text: f"https://{text}"))
def test_whatever_was_written_is_answered(place: str) -> None:
    found = node_path(place)
    assert found is None or (found.is_absolute() and "\0" not in str(found))
