# SPDX-License-Identifier: Apache-2.0
"""What cloud workers of services that are no more left on the broker: a last will comes after all was cleared."""

import asyncio
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from itertools import islice
from typing import Final

from nereid_cloud.gm.downstream import Downstream
from nereid_cloud.gm.observed import Observed

PATIENCE_S: Final = 2.0
AT_ONCE: Final = 200
"""Topics cleared in one go: a broker's store may hold a fleet's."""


class Orphans:
    """Clears the retained words of cloud workers whose service nobody knows, some time after they came.

    Args:
        observed: what the cloud workers said.
        downstream: who may clear topics; before its release not all services are known.
        known: the identities of all services that there are.
    """

    def __init__(self, observed: Observed, downstream: Downstream, *, known: Callable[[], AbstractSet[str]]) -> None:
        self._observed, self._downstream, self._known = observed, downstream, known
        self._timer: asyncio.TimerHandle | None = None

    def look_soon(self) -> None:
        """Look once for all that comes until then."""
        if self._timer is None and self._downstream.released:
            self._timer = asyncio.get_running_loop().call_later(PATIENCE_S, self._clear)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _clear(self) -> None:
        self._timer = None
        known = self._known()
        unknown = ((one, pod) for one, pods in self._observed.cloud.items() if one not in known for pod in pods)
        found = list(islice(unknown, AT_ONCE))
        for service, pod in found:
            # The broker's echo takes it from what was observed; where it cannot be had, the next connection shows it.
            self._downstream.clear_cloud_info(service, pod)
        if len(found) == AT_ONCE:
            self.look_soon()
