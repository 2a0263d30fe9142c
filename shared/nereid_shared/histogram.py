# SPDX-License-Identifier: Apache-2.0
"""Latency histograms that add up over workers and nodes, and travel as a few integers."""

import math
from collections.abc import Mapping

# Eight buckets per doubling from 1 µs on: a percentile read from them is at most 9 % too high.
_PER_OCTAVE = 8
_FLOOR_S = 1e-6

Buckets = dict[int, int]


def bucket(seconds: float) -> int:
    """Return the index of the bucket that a duration falls into."""
    octaves = math.log2(max(seconds, _FLOOR_S) / _FLOOR_S)
    # Without the tiny step back, rounding would put some of the buckets' own upper bounds into the next one.
    return max(0, math.ceil(octaves * _PER_OCTAVE - 1e-9))


def upper_s(index: int) -> float:
    """Return a bucket's upper bound in seconds."""
    return float(_FLOOR_S * 2.0 ** (index / _PER_OCTAVE))


def add(total: Buckets, more: Mapping[int, int]) -> Buckets:
    """Add `more` to `total` in place and return it."""
    for index, count in more.items():
        total[index] = total.get(index, 0) + count
    return total


def percentile_s(buckets: Mapping[int, int], share: float) -> float | None:
    """Return the duration that `share` (0..1) of the counted ones do not exceed, or None where nothing was counted."""
    total = sum(buckets.values())
    if total <= 0:
        return None
    left = share * total
    for index in sorted(buckets):
        left -= buckets[index]
        if left <= 0:
            return upper_s(index)
    return upper_s(max(buckets))
