# SPDX-License-Identifier: Apache-2.0
"""Latency histograms: bounds, sums and percentiles."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nereid_shared.histogram import Buckets, add, bucket, percentile_s, upper_s

DURATION = st.floats(min_value=1e-6, max_value=1e5)


@given(DURATION)
def test_a_bucket_holds_its_duration_to_nine_percent(seconds: float) -> None:
    upper = upper_s(bucket(seconds))
    assert seconds * 0.999999 <= upper <= seconds * 1.0906


def test_a_buckets_upper_bound_belongs_to_it() -> None:
    assert [bucket(upper_s(index)) for index in range(400)] == list(range(400))


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 1e-9, 1e-6])
def test_what_is_shorter_than_a_microsecond_is_in_the_first_bucket(seconds: float) -> None:
    assert bucket(seconds) == 0


@given(st.lists(DURATION, min_size=1, max_size=50), st.floats(0, 1))
def test_a_percentile_is_that_of_the_durations_to_nine_percent(durations: list[float], share: float) -> None:
    counted: Buckets = {}
    for seconds in durations:
        add(counted, {bucket(seconds): 1})
    found = percentile_s(counted, share)
    assert found is not None
    assert sum(d <= found * 1.000001 for d in durations) >= share * len(durations)
    assert min(durations) * 0.999 <= found <= max(durations) * 1.0906


def test_sums_over_nodes_are_as_if_counted_in_one() -> None:
    total: Buckets = {1: 2}
    assert add(total, {1: 3, 5: 1}) is total
    assert total == {1: 5, 5: 1}


def test_nothing_counted_has_no_percentile() -> None:
    assert percentile_s({}, 0.5) is None
    assert percentile_s({3: 0}, 0.5) is None
