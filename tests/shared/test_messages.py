# SPDX-License-Identifier: Apache-2.0
"""Control messages: round trips, garbage, versions, and the hashes of a desired state."""

import inspect
import json
import re
import types
import typing
from typing import Any, Literal, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import fields
from pydantic.alias_generators import to_camel

from nereid_shared import messages
from nereid_shared.digests import content_of, digest_of, sealed, task_hash
from nereid_shared.errors import MessageInvalid, MessageTooLarge
from nereid_shared.messages import (
    Body,
    Desired,
    Ledger,
    ModelOutput,
    NodeAlive,
    NodeState,
    Output,
    Task,
    TaskInfo,
    TaskModel,
    TaskRow,
    TaskRule,
    TaskState,
    WorkerInfo,
    canonical_json,
)

MAX_BYTES = 1_000_000
KINDS = [kind for _, kind in inspect.getmembers(messages, inspect.isclass) if issubclass(kind, Body) and kind != Body]
TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
COUNT = st.integers(min_value=0, max_value=2**53)
JSON = st.recursive(
    st.none() | st.booleans() | COUNT | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


def values(annotation: Any) -> st.SearchStrategy[Any]:
    """Return values that a field of this type takes."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*(values(one) for one in arguments))
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is typing.Annotated:
        return values(arguments[0])
    if origin in (dict, list):
        inner = [values(one) for one in arguments]
        made: st.SearchStrategy[Any]
        made = st.dictionaries(*inner, max_size=2) if origin is dict else st.lists(*inner, max_size=2)
        return made
    if isinstance(annotation, type) and issubclass(annotation, Body):
        return of_kind(annotation)
    plain: dict[Any, st.SearchStrategy[Any]] = {
        int: COUNT, str: TEXT, bool: st.booleans(), float: st.floats(0, 1e6), Any: JSON, type(None): st.none(),
    }  # fmt: skip
    return plain[annotation]


def of_kind(kind: type[Body]) -> st.SearchStrategy[Body]:
    fields_ = [one for one in fields(kind) if one.name != "schema_"]
    required = {one.name: values(one.type) for one in fields_ if one.required}
    optional = {one.name: values(one.type) for one in fields_ if not one.required}
    return st.fixed_dictionaries(required, optional=optional).map(lambda given_: kind(**given_))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(KINDS).flatmap(of_kind))
def test_a_message_is_read_back_as_it_was(message: Body) -> None:
    assert type(message).decode(message.encode(), max_bytes=MAX_BYTES) == message


@given(st.sampled_from(KINDS), st.binary(max_size=60) | JSON.map(lambda v: json.dumps(v).encode()))
def test_garbage_is_an_invalid_message_and_nothing_else(kind: type[Body], body: bytes) -> None:
    try:
        kind.decode(body, max_bytes=MAX_BYTES)
    except MessageInvalid:
        return
    assert not any(one.required for one in fields(kind))
    assert isinstance(json.loads(body), dict)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_payload_is_never_a_document(kind: type[Body]) -> None:
    with pytest.raises(MessageInvalid):
        kind.decode(b"", max_bytes=MAX_BYTES)


def alive(**more: object) -> bytes:
    return json.dumps({"status": "online", "install": "i", "boot": "b", "connection": 1, **more}).encode()


def test_unknown_fields_and_minor_versions_are_understood() -> None:
    message = NodeAlive.decode(alive(schema="1.7", colour="blue"), max_bytes=MAX_BYTES)
    assert message.status == "online"
    assert message.schema_ == "1.7"


@pytest.mark.parametrize("schema", ["2.0", "0.9", "", None, 2, "10.0", "1\n"])
def test_another_major_version_is_refused_by_name(schema: object) -> None:
    with pytest.raises(MessageInvalid, match=re.escape(f"schema: {schema!r} is not understood; this side speaks 1.0")):
        NodeAlive.decode(alive(schema=schema), max_bytes=MAX_BYTES)


def test_of_a_foreign_version_no_other_field_is_complained_of() -> None:
    with pytest.raises(MessageInvalid, match=r"schema: '2.0' is not understood"):
        NodeAlive.decode(b'{"status": {"new": "shape"}, "schema": "2.0"}', max_bytes=MAX_BYTES)


def test_the_version_of_a_part_counts_too() -> None:
    body = json.loads(Desired(cluster="c", epoch=1, rev=1, digest="", tasks={"u": row()}).encode())
    body["tasks"]["u"]["schema"] = "2.0"
    with pytest.raises(MessageInvalid, match=r"tasks\.\*\.schema"):
        Desired.decode(json.dumps(body).encode(), max_bytes=MAX_BYTES)


def test_an_invalid_field_is_named_with_its_topic() -> None:
    with pytest.raises(MessageInvalid, match=r"neptune/x: connection: "):
        NodeAlive.decode(alive(connection="many"), max_bytes=MAX_BYTES, topic="neptune/x")


@pytest.mark.parametrize("count", [-1, 2**53 + 1, 1.5, True, "1", None])
def test_a_count_is_a_whole_number_that_json_and_sqlite_hold(count: object) -> None:
    assert NodeAlive.decode(alive(connection=2**53), max_bytes=MAX_BYTES).connection == 2**53
    with pytest.raises(MessageInvalid, match="connection: "):
        NodeAlive.decode(alive(connection=count), max_bytes=MAX_BYTES)


def test_a_word_outside_its_list_is_refused_with_the_list() -> None:
    with pytest.raises(MessageInvalid, match="status: should be 'online' or 'offline', not 'away'"):
        NodeAlive.decode(alive(status="away"), max_bytes=MAX_BYTES)


def test_a_whole_number_is_a_number() -> None:
    read = TaskInfo.decode(b'{"uploadCloudRatio": 1}', max_bytes=MAX_BYTES).upload_cloud_ratio
    assert (read, type(read)) == (1.0, float)


def test_a_body_above_the_bound_is_not_parsed() -> None:
    with pytest.raises(MessageTooLarge):
        NodeAlive.decode(b"not JSON at all", max_bytes=3)


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity"])
def test_numbers_that_json_does_not_know_are_refused(number: bytes) -> None:
    row = b'{"kind":"K","namespace":"n","name":"x","generation":1,"hash":"","spec":{"a":%s}}' % number
    with pytest.raises(MessageInvalid):
        TaskRow.decode(row, max_bytes=MAX_BYTES)
    assert TaskRow.decode(row.replace(number, b'"%s"' % number), max_bytes=MAX_BYTES).spec == {"a": number.decode()}


@pytest.mark.parametrize(
    "value", [b"[" * 100_000, b"[" * 5_000 + b"]" * 5_000, b'"\\ud800"', b'"\xff"', b'"\xff", "schema": "\xff"']
)
def test_what_python_cannot_read_is_an_invalid_message(value: bytes) -> None:
    for field in (b"spec", b"unknown"):
        with pytest.raises(MessageInvalid):
            TaskRow.decode(b'{"kind": 1, "%s": {"a": %s}}' % (field, value), max_bytes=MAX_BYTES)
        with pytest.raises(MessageInvalid):
            TaskRow.decode(b'{"%s": {"a": %s}}' % (field, value), max_bytes=MAX_BYTES)


@pytest.mark.parametrize("kind", KINDS)
def test_names_on_the_wire_are_camel_case_as_the_resources_are(kind: type[Body]) -> None:
    assert [one.encode_name for one in fields(kind)] == ["schema", *(to_camel(one.name) for one in fields(kind)[1:])]


def test_none_is_left_out_but_not_of_what_others_wrote() -> None:
    rows = {"u": row(), "v": row(spec={"a": None, "b": [None, {"c": None}]})}
    body = Desired(cluster="c", epoch=1, rev=2, digest="d", tasks=rows).encode()
    head = b'{"schema":"1.0","kind":"K","namespace":"n","name":"x","generation":1,"hash":"h"'
    assert body == (
        b'{"schema":"1.0","cluster":"c","epoch":1,"rev":2,"digest":"d","tasks":{"u":%s,"refs":{}},'
        b'"v":%s,"spec":{"a":null,"b":[null,{"c":null}]},"refs":{}}}}' % (head, head)
    )


def task(**more: Any) -> Task:
    known = {"uid": "u", "service": "s", "role": "edge", "namespace": "n", "name": "x", "generation": 1, "hash": ""}
    return Task(**{**known, "model": TaskModel(name="m", url="/m"), **more})


def test_what_a_hash_covers_stays_as_it_is() -> None:
    """Else every worker restarts with the version that changes it."""
    content = content_of(task(rule=TaskRule(name="r")))
    assert canonical_json(content).decode() == (
        '{"dataset":null,"deadline_s":1.0,"group":"","kind":"JointInferenceService","max_batch":8,"max_wait_s":0.005,'
        '"model":{"format":"","name":"m","schema_":"1.0","sha256":"","url":"/m"},"name":"x","namespace":"n","nodes":[],'
        '"parameters":{},"role":"edge","rule":{"budget":null,"name":"r","parameters":{},"schema_":"1.0"},'
        '"schema_":"1.0","script_boot_file":"builtin:classify","script_dir":"","service":"s","uid":"u"}'
    )


def test_the_prepared_file_is_part_of_what_a_hash_covers() -> None:
    plain, prepared = task(), task(model=TaskModel(name="m", url="/m", path="/cache/m"))
    assert sealed(plain).hash != sealed(prepared).hash
    assert content_of(plain, without={"model"}) == content_of(prepared, without={"model"})


def test_contents_go_by_the_names_of_the_fields_at_every_depth() -> None:
    output = Output(models=[ModelOutput(name="m")], task_info=TaskInfo(start_time="now"))
    tasks = {"u": TaskState(generation=1, condition="Running")}
    assert output.content()["models"] == [
        {
            "schema_": "1.0", "format": "", "url": "", "name": "m", "version": "", "digest": "", "bytes": 0,
            "generation": 0, "status": "", "reason": "", "message": "",
        }
    ]  # fmt: skip
    assert output.content()["task_info"]["start_time"] == "now"
    assert NodeState(boot="b", number=1, tasks=tasks).content()["tasks"]["u"]["schema_"] == "1.0"


def test_a_message_made_of_foreign_values_can_be_checked() -> None:
    checked = task(deadline_s=1).checked()
    assert (checked, type(checked.deadline_s)) == (task(), float)
    with pytest.raises(MessageInvalid, match=r"^rule\.budget: "):
        task(rule=TaskRule(name="r", budget=cast("str", 0.5))).checked()


def test_field_names_on_the_wire_are_the_seeds() -> None:
    info = WorkerInfo(name="w", namespace="n", owner_name="j", owner_kind="jointinferenceservice", status="running")
    body = json.loads(info.encode())
    assert {"name", "namespace", "ownerName", "ownerKind", "kind", "status"} <= set(body)
    assert body["schema"] == "1.0"
    assert "taskInfo" not in body


def test_histograms_travel_with_their_numbers() -> None:
    ledger = Ledger(latency={"edge": {3: 7}})
    assert Ledger.decode(ledger.encode(), max_bytes=MAX_BYTES).latency == {"edge": {3: 7}}


def row(**more: Any) -> TaskRow:
    return TaskRow(**{"kind": "K", "namespace": "n", "name": "x", "generation": 1, "hash": "h", **more})


@given(st.dictionaries(TEXT, JSON, max_size=4), st.randoms(use_true_random=False))
def test_canonical_json_does_not_depend_on_the_order_of_keys(value: dict[str, Any], random: Any) -> None:
    keys = list(value)
    random.shuffle(keys)
    assert canonical_json({key: value[key] for key in keys}) == canonical_json(value)
    assert json.loads(canonical_json(value)) == value


def test_a_task_hash_survives_the_wire_and_tells_spec_from_refs() -> None:
    spec, refs = {"b": 1, "a": {"ü": [True, None]}}, {"worker": "w"}
    task = row(hash=task_hash(spec, refs), spec=spec, refs=refs)
    read = TaskRow.decode(task.encode(), max_bytes=MAX_BYTES)
    assert read.spec is not None
    assert task_hash(read.spec, read.refs) == task.hash
    assert task_hash(refs, spec) != task.hash
    assert task_hash({**spec, "b": 2}, refs) != task.hash


def test_a_digest_covers_uid_generation_and_hash_and_nothing_else() -> None:
    tasks = {"u1": row(), "u2": row(generation=2)}
    digest = digest_of(tasks)
    assert digest == digest_of(dict(reversed(tasks.items())))
    assert digest == digest_of({**tasks, "u1": row(spec={"a": 1}, name="other")})
    assert digest != digest_of({**tasks, "u1": row(generation=2)})
    assert digest != digest_of({**tasks, "u1": row(hash="other")})
    assert digest != digest_of({"u3": tasks["u1"], "u2": tasks["u2"]})
    assert digest != digest_of({"u1": tasks["u1"]})
    assert digest_of({}) == digest_of(Desired(cluster="c", epoch=0, rev=0, digest="").tasks)
