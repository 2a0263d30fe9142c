# SPDX-License-Identifier: Apache-2.0
"""Durations, sizes and shares, as a spec writes them."""

import pytest

from nereid_shared.quantities import duration_s, size_bytes


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1.0), ("500ms", 0.5), ("1h30m", 5400.0), ("0.5h", 1800.0), ("5us", 5e-6), ("7ns", 7e-9), ("0s", 0.0)],
)
def test_a_duration_in_seconds(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "s", "1 s", "-1s", "1s\n", "1d", "1e3s", "1.s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        duration_s(text)


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("500k", 500_000), ("64Ki", 65536), ("2Gi", 2**31), ("1T", 10**12)]
)
def test_a_size_in_bytes(text: str, size: int) -> None:
    assert size_bytes(text) == size


@pytest.mark.parametrize("text", ["", "Ki", "1.5Mi", "-1", "1KB", "1K", "1 Ki", "1\n"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        size_bytes(text)
