# SPDX-License-Identifier: Apache-2.0
"""The sample and result codecs: round trips, garbage, versions and size on the wire."""

from dataclasses import replace
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nereid_shared.errors import MessageInvalid, MessageTooLarge
from nereid_shared.samples import JPEG, MAX_KEY_BYTES, PNG, RAW, Counts, Result, Sample, digest_of

MAX_BYTES = 1_000_000
TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
COUNT = st.integers(min_value=0, max_value=2**53)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)

SAMPLE = Sample(
    stream="0123456789abcdef", seq=4711, digest=digest_of(b"x"), key="frame-000042.jpg", captured_at=1.7e9,
    remaining_ms=950, label="helmet", score=0.51, counts=Counts(seen=9000, easy=8000, hard=990, failed=10),
    encoding=JPEG, payload=b"x",
)  # fmt: skip
RESULT = Result(
    stream="0123456789abcdef", seq=4711, digest=digest_of(b"x"), key="frame-000042.jpg", captured_at=1.7e9,
    label="helmet", score=0.9, scores=(("helmet", 0.9), ("head", 0.1)), model="0" * 64, compute_ms=1.5, batch=3,
)  # fmt: skip


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    encoding = draw(st.sampled_from([JPEG, PNG, RAW]))
    payload = draw(st.binary(max_size=200))
    raw = encoding == RAW
    return Sample(
        stream=draw(TEXT), seq=draw(COUNT), digest=digest_of(payload), key=draw(TEXT), captured_at=draw(NUMBER),
        remaining_ms=draw(st.integers(min_value=-(2**40), max_value=2**40)), label=draw(TEXT), score=draw(NUMBER),
        counts=Counts(seen=draw(COUNT), easy=draw(COUNT), hard=draw(COUNT), failed=draw(COUNT)),
        encoding=encoding, payload=payload,
        shape=draw(st.tuples(COUNT, COUNT, COUNT)) if raw else (), dtype=draw(TEXT) if raw else "",
    )  # fmt: skip


@st.composite
def results(draw: st.DrawFn) -> Result:
    return Result(
        stream=draw(TEXT), seq=draw(COUNT), digest=digest_of(draw(st.binary(max_size=9))), key=draw(TEXT),
        captured_at=draw(NUMBER), label=draw(TEXT), score=draw(NUMBER),
        scores=tuple(draw(st.lists(st.tuples(TEXT, NUMBER), max_size=5))), model=draw(TEXT), error=draw(TEXT),
        compute_ms=draw(NUMBER), batch=draw(COUNT),
    )  # fmt: skip


@given(samples())
def test_a_sample_is_read_back_as_it_was(sample: Sample) -> None:
    assert Sample.decode(sample.encode(), max_bytes=MAX_BYTES) == sample


@given(results())
def test_a_result_is_read_back_as_it_was(result: Result) -> None:
    assert Result.decode(result.encode(), max_bytes=MAX_BYTES) == result


@given(samples() | results())
def test_the_bytes_are_those_of_msgpacks_own_package(message: Sample | Result) -> None:
    assert msgpack.packb(msgpack.unpackb(message.encode())) == message.encode()


class Figure(float):
    """What numpy's float64 is: a float, but not exactly one."""


class Word(str):
    __slots__ = ()


def test_a_scripts_own_kinds_of_numbers_and_texts_travel_as_plain_ones() -> None:
    said = replace(RESULT, label=Word("helmet"), score=Figure(0.9))
    assert said.encode() == RESULT.encode()


@given(st.binary(max_size=300) | st.just(b"\x91" * 100_000))
def test_garbage_is_an_invalid_message_and_nothing_else(body: bytes) -> None:
    for kind in (Sample, Result):
        with pytest.raises(MessageInvalid):
            kind.decode(body, max_bytes=MAX_BYTES)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | TEXT | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=6,
)


@settings(max_examples=400)
@given(st.sampled_from([SAMPLE, RESULT]), st.data())
def test_a_field_of_any_other_kind_is_read_or_refused(message: Sample | Result, data: st.DataObject) -> None:
    raw: dict[str, Any] = msgpack.unpackb(message.encode())
    raw[data.draw(st.sampled_from(sorted(raw)))] = data.draw(ANY)
    try:
        decoded = type(message).decode(msgpack.packb(raw), max_bytes=MAX_BYTES)
    except MessageInvalid:
        return
    assert type(message).decode(decoded.encode(), max_bytes=MAX_BYTES) == decoded


@pytest.mark.parametrize("message", [SAMPLE, RESULT])
def test_every_prefix_is_invalid(message: Sample | Result) -> None:
    body = message.encode()
    for end in range(len(body)):
        with pytest.raises(MessageInvalid):
            type(message).decode(body[:end], max_bytes=MAX_BYTES)


@pytest.mark.parametrize("message", [SAMPLE, RESULT])
def test_unknown_fields_are_ignored_and_unknown_versions_refused(message: Sample | Result) -> None:
    raw: dict[str, Any] = msgpack.unpackb(message.encode())
    assert type(message).decode(msgpack.packb({**raw, "new": [1]}), max_bytes=MAX_BYTES) == message
    with pytest.raises(MessageInvalid, match="version 2"):
        type(message).decode(msgpack.packb({**raw, "v": 2}), max_bytes=MAX_BYTES)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, "0.5", None])
def test_a_score_is_a_finite_number(value: object) -> None:
    raw: dict[str, Any] = msgpack.unpackb(SAMPLE.encode())
    with pytest.raises(MessageInvalid):
        Sample.decode(msgpack.packb({**raw, "p": value}), max_bytes=MAX_BYTES)


def test_texts_are_bounded() -> None:
    longest = replace(SAMPLE, key="k" * MAX_KEY_BYTES)
    assert Sample.decode(longest.encode(), max_bytes=MAX_BYTES) == longest
    with pytest.raises(MessageInvalid):
        Sample.decode(replace(SAMPLE, key="k" * (MAX_KEY_BYTES + 1)).encode(), max_bytes=MAX_BYTES)


def test_a_body_above_the_bound_is_not_parsed() -> None:
    body = SAMPLE.encode()
    with pytest.raises(MessageTooLarge) as large:
        Sample.decode(body, max_bytes=len(body) - 1)
    assert (large.value.size_bytes, large.value.limit_bytes) == (len(body), len(body) - 1)


@pytest.mark.parametrize("payload_bytes", [1, 140, 8_000, 20_000, 75_000, 1_000_000])
def test_the_envelope_is_small(payload_bytes: int) -> None:
    """Topic included: at most 320 bytes beyond a small payload, at most 5 % from 8 kB on."""
    payload = b"x" * payload_bytes
    sample = replace(SAMPLE, payload=payload, digest=digest_of(payload))
    topic = "neptune/services/" + "s" * 57 + "/" + "n" * 30 + "/samples"
    wire_bytes = len(sample.encode()) + len(topic) + 10
    assert wire_bytes - payload_bytes <= 320
    if payload_bytes >= 8_000:
        assert wire_bytes <= 1.05 * payload_bytes


@pytest.mark.parametrize("count", [2**53 + 1, 2**64 - 1])
def test_a_count_that_sqlite_cannot_hold_is_refused(count: int) -> None:
    body = {**msgpack.unpackb(SAMPLE.encode()), "c": (1, count, 1, 0)}
    with pytest.raises(MessageInvalid):
        Sample.decode(msgpack.packb(body), max_bytes=10_000)
