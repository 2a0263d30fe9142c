# SPDX-License-Identifier: Apache-2.0
"""When to publish which sample to the LocalController: go-back-N over an unreliable broker, as a pure state machine.

The broker's PUBACK opens the window, only ``accepted`` finishes a sample. What was published and stays unaccepted (the
LC was away, the broker lost it) is published again; the LC drops what it knows already. After such a silence one
sample goes alone, as a probe, until ``accepted`` moves: an LC that is away for an hour costs the device little.
"""

from dataclasses import dataclass

WINDOW = 64
"""Samples published and not acknowledged by the broker."""

RETRY_S = 1.0
"""Without progress of `accepted` for so long, what is unaccepted is published again; doubled up to `RETRY_MAX_S`."""

RETRY_MAX_S = 15.0


@dataclass(slots=True, kw_only=True)
class Sender:
    """Positions within one stream of samples.

    Attributes:
        accepted: everything up to here is the LC's.
        sent: everything up to here was published on this connection.
        unacknowledged: publishes that wait for the broker's PUBACK.
        probing: nothing was accepted for a while; one sample at a time.
    """

    accepted: int = 0
    sent: int = 0
    unacknowledged: int = 0
    retry_s: float = RETRY_S
    probing: bool = False
    _progress_at: float = 0.0
    _connected: bool = False
    _generation: int = 0

    def connected(self, now: float) -> int:
        """Start over on a new connection; returns the number that its acknowledgements have to name."""
        self._connected, self.unacknowledged, self.sent = True, 0, self.accepted
        self._progress_at, self.retry_s, self.probing = now, RETRY_S, False
        self._generation += 1
        return self._generation

    def peer_is_back(self, now: float) -> None:
        """The LC showed a sign of life: publish what it has not accepted at once."""
        if self.probing:
            self.sent, self._progress_at, self.retry_s, self.probing = self.accepted, now, RETRY_S, False

    def disconnected(self) -> None:
        """Publish nothing until `connected`."""
        self._connected = False

    def may_send(self) -> bool:
        """Whether the sample after `sent` may be published now."""
        if not self._connected or (self.probing and self.sent > self.accepted):
            return False
        return self.unacknowledged < WINDOW

    def published(self, seq: int, now: float) -> int:
        """Note a publish; returns the number that its acknowledgement has to name."""
        if self.sent == self.accepted and not self.probing:
            self._progress_at = now
        self.sent = seq
        self.unacknowledged += 1
        return self._generation

    def acknowledged(self, generation: int, *, nobody: bool = False) -> None:
        """Note the broker's PUBACK: only `accepted` counts, but `nobody` subscribing means that it will not come."""
        if generation == self._generation:
            self.unacknowledged = max(0, self.unacknowledged - 1)
            self.probing = self.probing or nobody

    def on_accepted(self, seq: int, now: float) -> bool:
        """Note what the LC has committed; True where that was news."""
        if seq <= self.accepted:
            return False
        self.accepted, self.sent = seq, max(self.sent, seq)
        self._progress_at, self.retry_s, self.probing = now, RETRY_S, False
        return True

    def on_timer(self, now: float) -> None:
        """Go back to the oldest unaccepted sample after a time without progress."""
        if self._connected and self.sent > self.accepted and now - self._progress_at >= self.retry_s:
            self.sent, self._progress_at, self.probing = self.accepted, now, True
            self.retry_s = min(self.retry_s * 2, RETRY_MAX_S)
