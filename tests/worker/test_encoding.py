# SPDX-License-Identifier: Apache-2.0
"""The spool's records against the bodies that travel."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nereid_shared.samples import MAX_KEY_BYTES, Counts, Sample
from nereid_worker.encoding import ENVELOPE_BYTES, encode_frame, from_spool, to_spool

STREAM = "0123456789abcdef"


def record(data: object, *, key: str = "a.jpg") -> bytes:
    return to_spool(
        stream=STREAM, seq=2**40, key=key, captured_at=1.7e9, deadline_s=1000.0, label="seven", score=0.25,
        counts=(2**40, 2**40, 3, 4), encoded=encode_frame(data),
    )  # fmt: skip


@pytest.mark.parametrize(
    "data", [b"\x89PNG and more", b"\xff" * 70_000, np.arange(12, dtype=np.uint8).reshape(2, 2, 3)]
)
def test_a_record_becomes_the_sample_that_it_was_made_of(data: object) -> None:
    encoding, payload, shape, dtype = encode_frame(data)
    body = from_spool(record(data), stream=STREAM, seq=2**40, now_s=999.05)
    assert Sample.decode(body, max_bytes=len(body)) == Sample(
        stream=STREAM, seq=2**40, digest=hashlib.sha256(payload).digest(), key="a.jpg", captured_at=1.7e9,
        remaining_ms=950, label="seven", score=0.25, counts=Counts(seen=2**40, easy=2**40, hard=3, failed=4),
        encoding=encoding, payload=payload, shape=shape, dtype=dtype,
    )  # fmt: skip


def test_a_body_is_longer_than_its_record_by_no_more_than_the_envelope() -> None:
    for data in (b"x", b"x" * 70_000, np.zeros((20, 20), np.uint8)):
        spooled = record(data, key="k" * MAX_KEY_BYTES)
        assert len(from_spool(spooled, stream=STREAM, seq=2**40, now_s=0.0)) <= len(spooled) + ENVELOPE_BYTES


@given(st.one_of(
    st.binary(max_size=200), st.integers(0, 90).map(lambda end: record(b"x")[:end]),
    st.integers(4, 80).map(lambda at: record(b"x")[:at] + b"\xc1" + record(b"x")[at + 1 :]),
))  # fmt: skip
def test_a_spoilt_record_travels_without_pixels_under_its_number(spoilt: bytes) -> None:
    sample = Sample.decode(from_spool(spoilt, stream=STREAM, seq=2**40, now_s=0.0), max_bytes=10_000)
    assert (sample.stream, sample.seq, sample.payload) == (STREAM, 2**40, b"")


@pytest.mark.parametrize(("stream", "seq"), [("f" * 16, 2**40), (STREAM, 7)])
def test_a_record_that_was_left_by_another_stream_does_not_travel_as_ours(stream: str, seq: int) -> None:
    sample = Sample.decode(from_spool(record(b"x"), stream=stream, seq=seq, now_s=0.0), max_bytes=10_000)
    assert (sample.stream, sample.seq, sample.payload) == (stream, seq, b"")


@pytest.mark.parametrize(("now_s", "left_ms"), [(999.0, 1000), (1000.0, 0), (1010.0, 0)])
def test_what_is_left_of_the_deadline_is_that_of_the_moment_of_sending(now_s: float, left_ms: int) -> None:
    body = from_spool(record(b"x"), stream=STREAM, seq=2**40, now_s=now_s)
    assert Sample.decode(body, max_bytes=10_000).remaining_ms == left_ms
