# SPDX-License-Identifier: Apache-2.0
"""Templates as kubectl's users write them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nereid_cloud.cli.jsonpath import fill
from nereid_shared.errors import UserError

LIST: dict[str, Any] = {
    "items": [
        {"metadata": {"name": "a", "labels": {"x.y/z": "1"}}, "spec": {"ports": [1, 2]}},
        {"metadata": {"name": "b"}, "spec": {"ports": []}},
    ]
}


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{.items[*].metadata.name}", "a b"),
        ("{$.items[0].metadata.name}!", "a!"),
        ('{range .items[*]}{.metadata.name}{"\\n"}{end}', "a\nb\n"),
        ("{range .items[*]}{.metadata.name}: {range .spec.ports[*]}<{}>{end};{end}", "a: <1><2>;b: ;"),
        ("{range .none[*]}{.metadata.name}{end}rest", "rest"),
        ("{ range .items[*] }{ .metadata.name }{ end }", "ab"),
        ('{"{.a}"} { plain', "{.a} { plain"),
        ("", ""),
    ],
)
def test_a_template_is_filled(template: str, said: str) -> None:
    assert fill(template, LIST) == said


@pytest.mark.parametrize(
    ("template", "why"),
    [("{range .items[*]}{.a}", "without its end"), ("{.a}{end}", "without its"), ("{.a..b}", "not understood"),
     ("{range .none[*]}{.a..b}{end}", "not understood")],
)  # fmt: skip
def test_what_is_no_template_is_said(template: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        fill(template, LIST)


@given(st.text(alphabet=st.characters(exclude_characters="{}"), max_size=40))
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert fill(text, LIST) == text
