# SPDX-License-Identifier: Apache-2.0
"""The spool's records against the bodies that travel."""

import hashlib

import numpy as np
import pytest

from nereid_shared.samples import MAX_KEY_BYTES, Counts, Sample
from nereid_worker.encoding import ENVELOPE_BYTES, encode_frame, from_spool, to_spool


def record(data: object, *, key: str = "a.jpg") -> bytes:
    return to_spool(
        stream="0123456789abcdef", seq=2**40, key=key, captured_at=1.7e9, deadline_s=1000.0, label="seven", score=0.25,
        counts=(2**40, 2**40, 3, 4), encoded=encode_frame(data),
    )  # fmt: skip


@pytest.mark.parametrize(
    "data", [b"\x89PNG and more", b"\xff" * 70_000, np.arange(12, dtype=np.uint8).reshape(2, 2, 3)]
)
def test_a_record_becomes_the_sample_that_it_was_made_of(data: object) -> None:
    encoding, payload, shape, dtype = encode_frame(data)
    body = from_spool(record(data), now_s=999.05)
    assert Sample.decode(body, max_bytes=len(body)) == Sample(
        stream="0123456789abcdef", seq=2**40, digest=hashlib.sha256(payload).digest(), key="a.jpg", captured_at=1.7e9,
        remaining_ms=950, label="seven", score=0.25, counts=Counts(seen=2**40, easy=2**40, hard=3, failed=4),
        encoding=encoding, payload=payload, shape=shape, dtype=dtype,
    )  # fmt: skip


def test_a_body_is_longer_than_its_record_by_no_more_than_the_envelope() -> None:
    for data in (b"x", b"x" * 70_000, np.zeros((20, 20), np.uint8)):
        spooled = record(data, key="k" * MAX_KEY_BYTES)
        assert len(from_spool(spooled, now_s=0.0)) <= len(spooled) + ENVELOPE_BYTES


@pytest.mark.parametrize("spoilt", [b"", b"\x00" * 100, b"\xff" * 100, record(b"x")[:30], b"\x01\x00\x00\x00\x05rest"])
def test_a_spoilt_record_travels_as_it_is(spoilt: bytes) -> None:
    assert from_spool(spoilt, now_s=0.0) == spoilt


@pytest.mark.parametrize(("now_s", "left_ms"), [(999.0, 1000), (1000.0, 0), (1010.0, 0)])
def test_what_is_left_of_the_deadline_is_that_of_the_moment_of_sending(now_s: float, left_ms: int) -> None:
    body = from_spool(record(b"x"), now_s=now_s)
    assert Sample.decode(body, max_bytes=10_000).remaining_ms == left_ms
