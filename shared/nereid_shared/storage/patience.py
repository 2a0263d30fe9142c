# SPDX-License-Identifier: Apache-2.0
"""How long a transfer may bring nothing, and who may end it: for threads that wait on a network, a lock or a disk."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from nereid_shared.errors import Stopped

Stop = Callable[[], bool]

# Between two looks at `stop`: what a shutdown waits for at most.
LOOK_EVERY_S: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """When to give up.

    Attributes:
        stall_s: a connection that brings nothing for so long is given up; how long all takes does not matter.
        backoff_s: first delay between two tries; it doubles.
        stop: asked every `LOOK_EVERY_S` or oftener; True ends all with `Stopped`.
    """

    stall_s: float = 30.0
    backoff_s: float = 0.5
    stop: Stop | None = None

    def check(self) -> None:
        """Go on, or not.

        Raises:
            Stopped: `stop` says so.
        """
        if self.stop is not None and self.stop():
            raise Stopped("stopped; what came is kept")

    def wait(self, seconds: float) -> None:
        """Return after so long.

        Raises:
            Stopped: `stop` says so meanwhile.
        """
        until = time.monotonic() + seconds
        while True:
            self.check()
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, LOOK_EVERY_S))
