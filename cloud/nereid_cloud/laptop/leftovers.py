# SPDX-License-Identifier: Apache-2.0
"""Clears away what workers of deleted services left in the simulated nodes' folders.

A device's LocalController lets a service's remains wait, since a document may omit it by mistake. Here the deletion
itself is seen, and a uid never comes back.
"""

import logging
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from nereid_cloud.cluster import kinds
from nereid_cloud.cluster.port import Cluster, Object
from nereid_shared.environment import HOST_ROOT
from nereid_shared.topics import service_id

OWNERS: Final = (kinds.JOINT_INFERENCE_SERVICE, kinds.INFERENCE_MODEL)
"""Whose workers have a folder on a node."""

_WORKERS: Final = f"{HOST_ROOT}/workers"

logger = logging.getLogger(__name__)


class Leftovers:
    """Watches services go.

    Only a service that was there and is no more has left something: what merely nobody knows may belong to a cluster
    whose file was lost.

    Args:
        state: the state folder, with the nodes' folders.
    """

    def __init__(self, cluster: Cluster, *, state: Path) -> None:
        self._cluster, self._state = cluster, state
        self._known: set[str] = set()
        self._deleted: set[str] = set()

    def reconcile(self) -> None:
        """Remove the folders of deleted services whose Pods are gone too."""
        present = {
            service_id(obj["metadata"]["name"], obj["metadata"]["uid"])
            for kind in OWNERS
            for obj in self._cluster.list(kind).items
        }
        self._deleted |= self._known - present
        self._known = present
        if not self._deleted:
            return
        mounted = set(_host_paths(self._cluster.list(kinds.POD).items))
        for service in sorted(self._deleted):
            if f"{_WORKERS}/{service}" not in mounted:
                self._remove(service)
                self._deleted.discard(service)

    def _remove(self, service: str) -> None:
        for folder in self._state.glob(f"nodes/*{_WORKERS}/{service}"):
            # What cannot be removed now will not be a moment later: it is no reason to stop.
            shutil.rmtree(folder, ignore_errors=True)
            logger.info("folder of a deleted service removed", extra={"folder": str(folder)})


def _host_paths(pods: Iterable[Object]) -> Iterator[str]:
    for pod in pods:
        for volume in pod["spec"].get("volumes") or ():
            yield str((volume.get("hostPath") or {}).get("path", ""))
