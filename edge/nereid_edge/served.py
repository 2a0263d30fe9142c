# SPDX-License-Identifier: Apache-2.0
"""What each service's worker was told last, on disk: it goes on with that while a changed model is on its way.

The edge broker may have forgotten it, and a node may start with no cloud while the new model is not here yet.
"""

import logging
import os
from collections.abc import Collection
from pathlib import Path
from typing import Final

from msgspec import field

from nereid_shared.errors import MessageInvalid, MessageTooLarge
from nereid_shared.messages import Body, Task

logger = logging.getLogger(__name__)

KEPT: Final = 3
_MAX_BYTES: Final = 16 * 1024 * 1024


class Served(Body, kw_only=True):
    """A service's worker.

    Attributes:
        task: what it was told last.
        keys: the cache's names of the model in `task`, and of the two before it, to which a worker may return.
    """

    task: Task
    keys: list[str] = field(default_factory=list)


class _Book(Body, kw_only=True):
    services: dict[str, Served] = field(default_factory=dict)


class ServedBook:
    """The file ``served.json`` of the state folder. One that cannot be read begins anew: it only bridges a change.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._services = self._read()

    def task(self, uid: str) -> Task | None:
        """Return what a service's worker was told last."""
        served = self._services.get(uid)
        return None if served is None else served.task

    def keys(self) -> set[str]:
        """Return the cache's names of all models that workers have or may return to."""
        return {key for served in self._services.values() for key in served.keys}

    def note(self, uid: str, task: Task, *, key: str) -> bool:
        """Take down what a worker is told now, and the name of its model in the cache; returns whether that is new.

        `save` makes it last.
        """
        former = self._services.get(uid)
        if former is not None and former.task == task:
            return False
        keys = [key, *(former.keys if former is not None else ())]
        self._services[uid] = Served(task=task, keys=[one for one in dict.fromkeys(keys) if one][:KEPT])
        return True

    def keep(self, uids: Collection[str]) -> None:
        """Forget all services but these."""
        self._services = {uid: served for uid, served in self._services.items() if uid in uids}

    def save(self) -> None:
        """Write it, whole or not at all; on disk when this returns. May be called in a thread.

        Raises:
            OSError: it cannot be written.
        """
        draft = self._path.with_suffix(".new")
        with draft.open("wb") as out:
            out.write(_Book(services=dict(self._services)).encode())
            out.flush()
            os.fsync(out.fileno())
        draft.replace(self._path)

    def _read(self) -> dict[str, Served]:
        try:
            return _Book.decode(self._path.read_bytes(), max_bytes=_MAX_BYTES, topic=str(self._path)).services
        except FileNotFoundError:
            return {}
        except (OSError, MessageInvalid, MessageTooLarge) as error:
            logger.warning("what workers were told last is not known", extra={"problem": str(error)})
            return {}
