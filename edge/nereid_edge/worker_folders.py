# SPDX-License-Identifier: Apache-2.0
"""The folders that the workers of deleted services leave on the node: out of the way at once, off the disk by a thread.

A worker's folder holds its spool and whatever a script has put there: removing it may take long, and the loop has
answers to hand on meanwhile.
"""

import asyncio
import logging
import secrets
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

KEPT_S: Final = 600.0
_GIVEN_UP: Final = ".removed-"


class WorkerFolders:
    """The folder with the services' folders.

    What is given up is renamed, so that a service that comes back begins with a folder of its own, and that a process
    which ends before all is removed leaves nothing that the next one does not find.

    Args:
        root: the folder; None where its folders are not ours to remove.
        kept_s: how long the folder of an InferenceModel stays that is gone.
    """

    def __init__(self, root: Path | None, *, kept_s: float = KEPT_S) -> None:
        self._root, self._kept_s = root, kept_s
        self._serving: frozenset[str] = frozenset()
        self._leaving: dict[str, asyncio.TimerHandle] = {}
        self._news = asyncio.Event()
        self._ended = False

    def give_up(self, service: str) -> None:
        """Let a service's folder be removed; nothing happens where there is none."""
        # The name came in a message: it must not lead out of the folder, nor to all of it.
        if self._root is None or not service or service.startswith(".") or "/" in service:
            return
        folder = self._root / service
        try:
            folder.rename(self._root / f"{_GIVEN_UP}{service}-{secrets.token_hex(4)}")
        except FileNotFoundError:
            return
        except OSError as error:
            logger.warning(
                "folder of a deleted service stays", extra={"folder": str(folder), "problem": error.strerror}
            )
            return
        self._news.set()

    def serve(self, services: Collection[str]) -> None:
        """Take note of the InferenceModels of this node, by their identities: one's folder goes some time after it.

        A document that omits one by mistake takes so nothing from a worker that still runs.
        """
        loop = asyncio.get_running_loop()
        for gone in self._serving.difference(services):
            self._leaving[gone] = loop.call_later(self._kept_s, self._left, gone)
        for back in self._leaving.keys() & set(services):
            self._leaving.pop(back).cancel()
        self._serving = frozenset(services)

    def _left(self, service: str) -> None:
        del self._leaving[service]
        self.give_up(service)

    async def run(self) -> None:
        """Remove what is given up, one folder at a time, and what an earlier process left."""
        try:
            while True:
                self._news.clear()
                await asyncio.to_thread(self._remove)
                await self._news.wait()
        finally:
            self._ended = True
            for timer in self._leaving.values():
                timer.cancel()

    def _remove(self) -> None:
        for folder in [] if self._root is None else sorted(self._root.glob(f"{_GIVEN_UP}*")):
            if self._ended:
                return
            try:
                shutil.rmtree(folder)
            except OSError as error:
                logger.warning(
                    "folder of a deleted service stays", extra={"folder": str(folder), "problem": error.strerror}
                )
            else:
                logger.info("folder of a deleted service removed", extra={"folder": str(folder)})
