# SPDX-License-Identifier: Apache-2.0
"""Services that a document omitted: over at once for all who look, and kept for a while in case it was mistaken.

A forged or foolish document takes so nothing away that the next one does not give back.
"""

import logging
import shutil
from pathlib import Path
from typing import Final

from nereid_edge.records import Change, mark_deleted, unmark_deleted
from nereid_edge.service import Service
from nereid_edge.store import OutboxStore

_log = logging.getLogger(__name__)

KEPT_S: Final = 600.0
REASON: Final = "deleted"


class Deleted:
    """The deleted services of which something is kept: for as long as their samples are, and for `KEPT_S` at least.

    Args:
        workers: holds a folder of each service's workers, which goes too; None where they are not ours to remove.
    """

    def __init__(self, store: OutboxStore, *, workers: Path | None = None) -> None:
        self._store, self._workers = store, workers
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
            _log.info("deleted service is back", extra={"service": service.id, "samples": len(service.box.rows)})
            service.deleted_until = None
            self._store.put(Change(statements=[unmark_deleted(service.id)]))

    def expire(self, now: float) -> None:
        """Let go what was deleted long enough ago; the samples in it are dropped now."""
        for name, service in list(self._services.items()):
            if service.deleted_until is not None and now >= service.deleted_until:
                del self._services[name]
                service.gone = True
                rows = len(service.box.rows)
                if rows:
                    _log.warning("samples dropped", extra={"service": name, "reason": REASON, "samples": rows})
                self._store.put(Change(forget=name))
                self._remove_folder(name)

    def _remove_folder(self, name: str) -> None:
        # The name came in a message: it must not lead out of the folder. No topic level holds a slash.
        if self._workers is None or name in {".", ".."}:
            return
        folder = self._workers / name
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            return
        except OSError as error:
            _log.warning("folder of a deleted service stays", extra={"folder": str(folder), "problem": error.strerror})
        else:
            _log.info("folder of a deleted service removed", extra={"folder": str(folder)})
