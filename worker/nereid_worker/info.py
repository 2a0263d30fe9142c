# SPDX-License-Identifier: Apache-2.0
"""What a worker says of itself: the retained ``info``, at once when its status changes, and every so often."""

import asyncio
import logging
import secrets
from collections.abc import Callable

from msgspec import structs

from nereid_shared.errors import NereidError, TemporaryError
from nereid_shared.link import Link, Will
from nereid_shared.messages import WorkerInfo, WorkerStatus

logger = logging.getLogger(__name__)


class Info:
    """One process's info. The status may be changed from any thread; all else is for the loop's.

    Args:
        topic: where it is published.
        describe: returns all that is to be said but status, reason, message, boot and number.

    Attributes:
        status, reason, message: as they are to be said.
    """

    def __init__(self, *, topic: str, describe: Callable[[], WorkerInfo]) -> None:
        self.status: WorkerStatus = "starting"
        self.reason, self.message = "LoadingModel", ""
        self._topic, self._describe = topic, describe
        self._boot, self._number = secrets.token_hex(8), 0

    def become(self, status: WorkerStatus, reason: str = "", message: str = "") -> None:
        """Change what the next info says; callable from any thread."""
        if (status, reason, message) != (self.status, self.reason, self.message):
            logger.info("status", extra={"status": status, "reason": reason, "problem": message})
        self.status, self.reason, self.message = status, reason, message

    def will(self) -> Will:
        """Return what the broker is to publish where the connection ends without a word."""
        return Will(topic=self._topic, payload=self._body("offline"), retain=True)

    async def publish(self, link: Link) -> None:
        """Publish it, and wait until the broker has it.

        Raises:
            NereidError: it does not.
        """
        await link.publish(self._topic, self._body(self.status), retain=True)

    def tell(self, link: Link) -> None:
        """Publish it where there is a connection; the next one begins with it."""
        try:
            link.publish_nowait(self._topic, self._body(self.status), retain=True)
        except TemporaryError:
            logger.debug("info waits for the connection")
        except NereidError as error:
            logger.error("info not published", extra={"problem": str(error)})

    async def repeat(self, link: Link, *, every_s: float) -> None:
        """Publish it again and again."""
        while True:
            await asyncio.sleep(every_s)
            self.tell(link)

    def _body(self, status: WorkerStatus) -> bytes:
        self._number += 1
        said = structs.replace(
            self._describe(), status=status, reason=self.reason, message=self.message, boot=self._boot,
            number=self._number,
        )  # fmt: skip
        return said.encode()
