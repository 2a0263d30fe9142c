# SPDX-License-Identifier: Apache-2.0
"""The folders that the workers of deleted services leave on the node: out of the way at once, off the disk by a thread.

A worker's folder holds its spool and whatever a script has put there: removing it may take long, and the loop has
answers to hand on meanwhile.
"""

import asyncio
import logging
import secrets
import shutil
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

_GIVEN_UP: Final = ".removed-"


class WorkerFolders:
    """The folder with the services' folders.

    What is given up is renamed, so that a service that comes back begins with a folder of its own, and that a process
    which ends before all is removed leaves nothing that the next one does not find.

    Args:
        root: the folder; None where its folders are not ours to remove.
    """

    def __init__(self, root: Path | None) -> None:
        self._root = root
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

    async def run(self) -> None:
        """Remove what is given up, one folder at a time, and what an earlier process left."""
        try:
            while True:
                self._news.clear()
                await asyncio.to_thread(self._remove)
                await self._news.wait()
        finally:
            self._ended = True

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
