# SPDX-License-Identifier: Apache-2.0
"""How much may be in flight, and for how long, by what the round trips say. No I/O.

The time-out is TCP's (RFC 6298: smoothed round trip and four deviations, doubled at a time-out until the next measured
one; Karn's rule is the caller's); the window grows as TCP's does (slow start, then one per round) and halves at a
time-out, in samples and in bytes.
"""

from dataclasses import dataclass
from typing import Final

FIRST_TIMEOUT_S: Final = 3.0
# A cloud that comes back is noticed within the longest time-out; one that is slower gets some samples twice.
TIMEOUT_S: Final = (1.0, 15.0)
PAUSE_LIMIT_S: Final = 60.0
FIRST_COUNT: Final = 32
COUNT: Final = (1.0, 256.0)
FIRST_BYTES: Final = 2 * 1024 * 1024
BYTES: Final = (64.0 * 1024, 16.0 * 1024 * 1024)


@dataclass(slots=True)
class RoundTrip:
    """The measured round trip; `timeout_s` follows it."""

    smoothed_s: float | None = None
    deviation_s: float = 0.0
    timeout_s: float = FIRST_TIMEOUT_S

    def measured(self, seconds: float) -> None:
        """Take in one round trip of a sample that was sent once."""
        if self.smoothed_s is None:
            self.smoothed_s, self.deviation_s = seconds, seconds / 2
        else:
            self.deviation_s += (abs(seconds - self.smoothed_s) - self.deviation_s) / 4
            self.smoothed_s += (seconds - self.smoothed_s) / 8
        low, high = TIMEOUT_S
        self.timeout_s = min(max(self.smoothed_s + 4 * self.deviation_s, low), high)

    def backed_off(self) -> None:
        """Double the time-out: with Karn's rule alone, a cloud slower than it would never be measured."""
        self.timeout_s = min(self.timeout_s * 2, TIMEOUT_S[1])

    def pause_s(self, attempts: int) -> float:
        """Return how long a sample waits after its time-out before the next try: tries are doubling times apart."""
        return min(self.timeout_s * float(2 ** min(attempts - 1, 10) - 1), PAUSE_LIMIT_S) if attempts else 0.0


@dataclass(slots=True)
class Window:
    """Bounds of what is in flight."""

    count: float = FIRST_COUNT
    bytes: float = FIRST_BYTES
    _slow_start: bool = True
    _halved_at: float = float("-inf")

    def has_room(self, count: int, bytes_: int, more_bytes: int) -> bool:
        """Whether another sample may go; the first always may."""
        return count == 0 or (count < int(self.count) and bytes_ + more_bytes <= self.bytes)

    def succeeded(self, bytes_: int) -> None:
        """Grow by one answer."""
        if self._slow_start:
            self.count, self.bytes = self.count + 1, self.bytes + bytes_
        else:
            share = 1 / self.count
            self.count, self.bytes = self.count + share, self.bytes + bytes_ * share
        self.count, self.bytes = min(self.count, COUNT[1]), min(self.bytes, BYTES[1])

    def timed_out(self, now: float, timeout_s: float) -> bool:
        """Halve, at most once per time-out, since what was lost together counts once; tells whether it did."""
        if now - self._halved_at < timeout_s:
            return False
        self._halved_at, self._slow_start = now, False
        self.count, self.bytes = max(self.count / 2, COUNT[0]), max(self.bytes / 2, BYTES[0])
        return True


@dataclass(slots=True)
class Rate:
    """Answers per second, smoothed over a few seconds."""

    per_s: float = 0.0
    _count: int = 0
    _since: float | None = None

    def counted(self, now: float) -> None:
        """Take in one answer."""
        self._roll(now)
        self._count += 1

    def at(self, now: float) -> float:
        """Return the rate."""
        self._roll(now)
        return self.per_s

    def _roll(self, now: float) -> None:
        if self._since is None:
            self._since = now
        elapsed = now - self._since
        if elapsed >= 1.0:
            self.per_s = (self.per_s + self._count / elapsed) / 2
            self._count, self._since = 0, now


@dataclass(slots=True)
class Budget:
    """A token bucket in bytes that holds two seconds of the rate, and at least one sample."""

    per_s: float | None
    _tokens: float = 0.0
    _at: float | None = None

    def take(self, bytes_: int, now: float, *, keep: float = 0.0) -> bool:
        """Take a sample's bytes if they are there and leave the share `keep` (0..1) of the bucket."""
        if self.per_s is None:
            return True
        full = max(2 * self.per_s, float(bytes_))
        if self._at is None:
            self._tokens = full
        else:
            self._tokens = min(full, self._tokens + (now - self._at) * self.per_s)
        self._at = now
        if self._tokens - bytes_ < min(keep * full, full - bytes_):
            return False
        self._tokens -= bytes_
        return True
