# SPDX-License-Identifier: Apache-2.0
"""Delays between tries that double up to a longest one; who is many adds jitter of its own."""

# Beyond, a float ends at 2¹⁰²³: after an hour without a broker the next try would raise instead of waiting.
_MOST_TIMES = 64


def doubled(first_s: float, times: int, *, longest_s: float) -> float:
    """Return `first_s` doubled so many times, `longest_s` at most, however many times that is."""
    return min(first_s * 2.0 ** min(times, _MOST_TIMES), longest_s)


class Backoff:
    """The delays of one thing that is tried again and again.

    Args:
        first_s: the first delay.
        longest_s: the longest one.
    """

    def __init__(self, *, first_s: float, longest_s: float) -> None:
        self._first_s, self._longest_s = first_s, longest_s
        self._times = 0

    def next_s(self) -> float:
        """Return the delay before the next try: double the last one."""
        delay_s = doubled(self._first_s, self._times, longest_s=self._longest_s)
        self._times += 1
        return delay_s

    def reset(self) -> None:
        """Begin anew, after a try that went well."""
        self._times = 0
