# SPDX-License-Identifier: Apache-2.0
from typing import Annotated, Literal

import msgspec
import pytest
from msgspec import Meta, Struct

from nereid_shared.complaints import WrongField, complaint

UNKNOWN = "unknown field; remove it, or see whether it is misspelt"
COLOUR = "should be 'red' or 'blue', not ''"


class Leaf(Struct, kw_only=True, rename="camel", forbid_unknown_fields=True):
    colour_name: Literal["red", "blue"] = "red"
    size: Annotated[int, Meta(ge=0)] = 0
    even: int = 0

    def __post_init__(self) -> None:
        if self.even % 2:
            raise WrongField("even", "should be even")
        if self.even > self.size + 10:
            raise ValueError("too much")


class Tree(Struct, kw_only=True, forbid_unknown_fields=True):
    name: str
    leaf: Leaf | None = None
    leaves: Annotated[list[Leaf], Meta(max_length=2)] = []
    named: dict[str, list[Leaf]] = {}
    words: dict[int, Literal["a", 1]] = {}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("{", "not JSON: Input data was truncated"),
        ("[]", "Expected `object`, got `array`"),
        ("{}", "name: missing; add it"),
        ('{"name": 1}', "name: Expected `str`, got `int`"),
        ('{"name": "", "x - at `$.y`": 1}', f"x - at `$.y`: {UNKNOWN}"),
        ('{"name": "", "leaf": {"size": -1}}', "leaf.size: Expected `int` >= 0"),
        ('{"name": "", "leaf": {"colourName": "ed"}}', "leaf.colourName: should be 'red' or 'blue', not 'ed'"),
        ('{"name": "", "leaves": [{}, {"x": 1}]}', f"leaves.1.x: {UNKNOWN}"),
        ('{"name": "", "leaves": [{}, {}, {}]}', "leaves: Expected `array` of length <= 2"),
        ('{"name": "", "leaves": [{"even": 3}]}', "leaves.0.even: should be even"),
        ('{"name": "", "leaves": [{"even": 12}]}', "leaves.0: too much"),
        ('{"name": "", "leaves": [{"colourName": ""}]}', f"leaves.0.colourName: {COLOUR}"),
        ('{"name": "", "named": {"k": [{"colourName": ""}]}}', f"named.*.0.colourName: {COLOUR}"),
        ('{"name": "", "words": {"1": "b"}}', "words.*: should be 'a' or 1, not 'b'"),
        ('{"name": "", "words": {"one": "a"}}', "words: Expected `int`, got `str`"),
    ],
)  # fmt: skip
def test_the_first_wrong_field_is_named_as_it_is_written(body: str, said: str) -> None:
    with pytest.raises(msgspec.DecodeError) as caught:
        msgspec.json.decode(body, type=Tree)
    assert complaint(caught.value, Tree) == said
