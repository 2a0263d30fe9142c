# SPDX-License-Identifier: Apache-2.0
"""Services that a document omitted: over at once for all who look, and kept for a while in case it was mistaken.

A forged or foolish document takes so nothing away that the next one does not give back, while there is room for it.
"""

import logging
from collections.abc import Collection
from typing import Final

from nereid_edge.records import Change, mark_deleted, unmark_deleted
from nereid_edge.service import Service
from nereid_edge.store import OutboxStore
from nereid_edge.worker_folders import KEPT_S, WorkerFolders

logger = logging.getLogger(__name__)

REASON: Final = "deleted"


class Deleted:
    """The deleted services of which something is kept: for as long as their samples are, and for `KEPT_S` at least.

    Args:
        folders: those of their workers, which go too.
    """

    def __init__(self, store: OutboxStore, folders: WorkerFolders) -> None:
        self._store, self._folders = store, folders
        self._services: dict[str, Service] = {}

    def __bool__(self) -> bool:
        return bool(self._services)

    def put(self, service: Service, now: float) -> None:
        """Keep a service that has just been deleted, or that was when the disk was read."""
        if service.deleted_until is None:
            service.deleted_until = now + max(service.settings.policy.keep_for_s, KEPT_S)
            service.box.disconnected()
            self._store.put(Change(statements=[mark_deleted(service.id, service.deleted_until)], clock=now))
        self._services[service.id] = service

    def take(self, name: str) -> Service | None:
        """Return a service that is desired again, where something of it is left."""
        return self._services.pop(name, None)

    def restore(self, service: Service) -> None:
        """Make a service one like the others again."""
        if service.deleted_until is not None:
            logger.info("deleted service is back", extra={"service": service.id, "samples": len(service.box.rows)})
            service.deleted_until = None
            self._store.put(Change(statements=[unmark_deleted(service.id)]))

    def expire(self, now: float) -> None:
        """Let go what was deleted long enough ago; the samples in it are dropped now."""
        for service in list(self._services.values()):
            if service.deleted_until is not None and now >= service.deleted_until:
                self._let_go(service)

    def make_room(self, running: Collection[Service]) -> None:
        """Let go what was deleted, the first first, where the disk is full or too many bytes of samples are stored.

        Too many are more than the services that run may store together, or the largest that is kept.
        """
        if not self._services:
            return
        most = max(
            sum(service.settings.policy.max_bytes for service in running),
            *(service.settings.policy.max_bytes for service in self._services.values()),
        )
        stored = sum(service.box.bytes for service in (*running, *self._services.values()))
        for service in list(self._services.values()):
            if not self._store.full and stored <= most:
                return
            stored -= service.box.bytes
            logger.warning(
                "deleted service is given up before its time, for want of room", extra={"service": service.id}
            )
            self._let_go(service)

    def _let_go(self, service: Service) -> None:
        del self._services[service.id]
        service.gone = True
        rows = len(service.box.rows)
        if rows:
            logger.warning("samples dropped", extra={"service": service.id, "reason": REASON, "samples": rows})
        self._store.put(Change(forget=service.id))
        self._folders.give_up(service.id)
