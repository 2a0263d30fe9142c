# SPDX-License-Identifier: Apache-2.0
"""Structural schemas, in what our own CRDs do not use yet."""

from typing import Any

import pytest

from nereid_cloud.cluster.ownership import applied_to, schema_list_keys
from nereid_cloud.cluster.schema import unknown_fields, violations, with_defaults

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "port": {"x-kubernetes-int-or-string": True},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "texts": {"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 2, "minProperties": 1},
        "maybe": {"type": "string", "nullable": True, "default": "text"},
        "deep": {
            "type": "object",
            "default": {},
            "properties": {"inner": {"type": "array", "default": [{}], "items": {"$ref": "never read"}}},
        },
        "items": {
            "type": "array",
            "minItems": 1,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["id"],
            "items": {
                "type": "object",
                "properties": {"id": {"type": "string"}, "on": {"type": "boolean", "default": True}},
            },
        },
        "ratio": {"type": "number", "minimum": 0, "maximum": 1},
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
    },
}


@pytest.mark.parametrize(
    ("value", "field", "message"),
    [
        ({"port": 1.5}, "port", 'Invalid value: "number": port in body must be of type integer,string: "number"'),
        ({"texts": {"a": 1}}, "texts.a", 'Invalid value: "integer": texts.a in body must be of type string: "integer"'),
        ({"texts": {}}, "texts", 'Invalid value: "object": texts in body should have at least 1 properties'),
        ({"texts": {"a": "", "b": "", "c": ""}}, "texts", "Too many: 3: must have at most 2 items"),
        ({"items": []}, "items", 'Invalid value: "array": items in body should have at least 1 items'),
        ({"ratio": 1.5}, "ratio", "Invalid value: 1.5: ratio in body should be less than or equal to 1"),
        ({"ratio": True}, "ratio", 'Invalid value: "boolean": ratio in body must be of type number: "boolean"'),
    ],
)
def test_what_is_wrong_is_said_in_the_api_servers_words(value: Any, field: str, message: str) -> None:
    (cause,) = violations(SCHEMA, value)
    assert (cause.field, cause.message) == (field, message)


@pytest.mark.parametrize("value", [{"port": 80}, {"port": "http"}, {"maybe": None}, {"free": {"a": [1]}}, {"ratio": 1}])
def test_what_is_right_passes(value: Any) -> None:
    assert list(violations(SCHEMA, value)) == []
    assert list(unknown_fields(SCHEMA, value)) == []


def test_an_unknown_field_is_found_in_lists_and_mended_where_a_name_is_near() -> None:
    causes = unknown_fields(SCHEMA, {"item": 1, "items": [{"id": "a", "ON": True}], "xyz": 1, "free": {"x": 1}})
    assert [cause.message for cause in causes] == [
        'unknown field "item"; did you mean "items"?',
        'unknown field "items[0].ON"; did you mean "items[0].on"?',
        'unknown field "xyz"',
    ]


def test_defaults_reach_into_lists_and_spare_what_may_be_null() -> None:
    filled = with_defaults(SCHEMA, {"items": [{"id": "a"}, {"id": "b", "on": False}], "maybe": None})
    assert filled["items"] == [{"id": "a", "on": True}, {"id": "b", "on": False}]
    assert filled["maybe"] is None
    assert filled["deep"] == {"inner": [{}]}
    assert with_defaults(SCHEMA, {})["maybe"] == "text"


def test_a_default_is_not_shared_between_objects() -> None:
    with_defaults(SCHEMA, {})["deep"]["inner"].append(1)
    assert with_defaults(SCHEMA, {})["deep"] == {"inner": [{}]}


def test_keyed_lists_and_sets_of_a_schema_are_applied_item_by_item() -> None:
    keys = schema_list_keys(SCHEMA)
    first, owned = applied_to({}, {"items": [{"id": "a"}, {"id": "b"}], "tags": ["x"]}, {}, manager="me", keys=keys)
    both, owned = applied_to(first, {"items": [{"id": "c"}], "tags": ["x", "y"]}, owned, manager="friend", keys=keys)
    assert both == {"items": [{"id": "a"}, {"id": "b"}, {"id": "c"}], "tags": ["x", "y"]}
    left, _ = applied_to(both, {"items": [{"id": "b"}]}, owned, manager="me", keys=keys)
    assert left == {"items": [{"id": "b"}, {"id": "c"}], "tags": ["x", "y"]}


def test_a_value_that_becomes_a_mapping_keeps_what_is_in_it() -> None:
    keys = schema_list_keys(SCHEMA)
    first, owned = applied_to({}, {"free": {"a": "text", "b": "text"}}, {}, manager="me", keys=keys)
    second, _ = applied_to(first, {"free": {"a": {"deep": 1}}}, owned, manager="me", keys=keys)
    assert second == {"free": {"a": {"deep": 1}}}


def test_a_mapping_that_was_applied_empty_keeps_what_others_put_into_it() -> None:
    keys = schema_list_keys(SCHEMA)
    empty, owned = applied_to({}, {"free": {}}, {}, manager="me", keys=keys)
    theirs, owned = applied_to(empty, {"free": {"x": 1}}, owned, manager="friend", keys=keys)
    both, owned = applied_to(theirs, {"free": {"y": 1}}, owned, manager="me", keys=keys)
    assert both == {"free": {"x": 1, "y": 1}}
    assert applied_to(both, {}, owned, manager="me", keys=keys)[0] == {"free": {"x": 1}}
