# SPDX-License-Identifier: Apache-2.0
"""When a lost connection is tried again, and how long the broker may take over it: one of many that were lost at once.

A core does some 350 TLS handshakes a second (docs/scale.md). Who comes back with TLS is one of a fleet: its first try
is anywhere within a second instead of a tenth of one, and a broker that is slow to answer is waited for longer at each
try. A handshake that is given up has cost the broker its part all the same: with an even patience of 5 s 10,000 nodes
would keep one another from a broker of one core for ever. Without TLS, as on a laptop and on a node's own loopback, a
link is back at once.
"""

import random
from typing import Final

from nereid_shared.backoff import doubled

BACKOFF_MIN_S: Final = 0.1
BACKOFF_MAX_S: Final = 10.0
TLS_SPREAD_S: Final = 1.0
TLS_PATIENCE_S: Final = 40.0
# A connection that lasted this long was a good one: the next loss starts again with a short back-off.
GOOD_AFTER_S: Final = 10.0


class Reconnects:
    """The tries of one link.

    Args:
        tls: whether each try costs the broker a handshake.
        patience_s: how long a step of connecting may take at first.
    """

    def __init__(self, *, tls: bool, patience_s: float) -> None:
        self._tls, self._first_s = tls, patience_s
        self._lost = 0

    def pause_s(self, *, lasted_s: float) -> float:
        """Return how long to wait after a connection that lasted so long, or after a try that came to nothing, 0."""
        self._lost = 1 if lasted_s > GOOD_AFTER_S else self._lost + 1
        # Jitter from the first try on: a fleet that lost its broker must not come back as one.
        if self._tls:
            return random.uniform(0.0, doubled(TLS_SPREAD_S, self._lost - 1, longest_s=BACKOFF_MAX_S))  # noqa: S311
        return random.uniform(BACKOFF_MIN_S, doubled(BACKOFF_MIN_S, self._lost, longest_s=BACKOFF_MAX_S))  # noqa: S311

    @property
    def patience_s(self) -> float:
        """How long a step of the next try may take."""
        if not self._tls:
            return self._first_s
        longest_s = max(self._first_s, TLS_PATIENCE_S)
        return doubled(self._first_s, max(0, self._lost - 1), longest_s=longest_s)
