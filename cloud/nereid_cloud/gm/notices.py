# SPDX-License-Identifier: Apache-2.0
"""Events about what hinders no worker, and is worth a look all the same: a file of its state that was damaged.

A condition never shows it, since the worker runs; and the worker says it only until it is started again.
"""

from collections.abc import Callable
from typing import Final

from nereid_cloud.cluster.port import Object
from nereid_cloud.gm.informer import Informer
from nereid_shared.messages import PAGE_DAMAGED, SPOOL_DAMAGED, TaskStatus

NOTICES: Final = frozenset({PAGE_DAMAGED, SPOOL_DAMAGED})


class Notices:
    """Tells each notice of a node's worker once, however often its status repeats it.

    Args:
        services: the cache of services.
        tell: called with a service, a reason and a message.
    """

    def __init__(self, services: Informer, tell: Callable[[Object, str, str], None]) -> None:
        self._services, self._tell = services, tell
        self._told: dict[tuple[str, str], tuple[str, str]] = {}

    def on_status(self, node: str, status: TaskStatus) -> None:
        """Look at what a node says of a service; a service that is not cached yet is told of at the next status."""
        if status.reason not in NOTICES:
            return
        key = self._services.key_of_uid(status.uid)
        service = None if key is None else self._services.get(*key)
        said = status.reason, status.message
        if service is not None and self._told.get((node, status.uid)) != said:
            self._told[node, status.uid] = said
            self._tell(service, status.reason, f"{node}: {status.message}")

    def forget(self, uid: str) -> None:
        """Drop what was told of a service that is no more."""
        self._told = {place: said for place, said in self._told.items() if place[1] != uid}
