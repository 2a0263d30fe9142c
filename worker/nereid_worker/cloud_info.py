# SPDX-License-Identifier: Apache-2.0
"""What a cloud worker says of itself: the retained ``info``, at once when its status changes, and every so often."""

import asyncio
import logging
import secrets
from typing import Protocol

from nereid_shared import topics
from nereid_shared.errors import NereidError, TemporaryError
from nereid_shared.link import Link, Will
from nereid_shared.messages import ModelOutput, Task, WorkerInfo, WorkerStatus

logger = logging.getLogger(__name__)


class Counted(Protocol):
    """What is told in figures: see `nereid_worker.cloud.CloudWorker`."""

    processed: int
    batches: int
    undecodable: int
    failed: int
    refused: int

    @property
    def model_digest(self) -> str:
        """The sha256 of the model file that is loaded, "" before it is."""


class CloudInfo:
    """One worker's info.

    Args:
        worker: the Pod's name.
        counted: the worker.

    Attributes:
        status: as it was said last.
    """

    def __init__(self, task: Task, *, worker: str, counted: Counted) -> None:
        self.status: WorkerStatus = "starting"
        self._task, self._worker, self._counted = task, worker, counted
        self._reason, self._message = "LoadingModel", ""
        self._boot, self._number = secrets.token_hex(8), 0
        self._topic = topics.CLOUD_INFO.of(service=task.service, pod=worker)

    def become(self, status: WorkerStatus, reason: str = "", message: str = "") -> None:
        """Change what the next info says; callable from any thread."""
        if (status, reason, message) != (self.status, self._reason, self._message):
            logger.info("status", extra={"status": status, "reason": reason, "problem": message})
        self.status, self._reason, self._message = status, reason, message

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
        task, model, counted = self._task, self._task.model, self._counted
        return WorkerInfo(
            name=self._worker, namespace=task.namespace, owner_name=task.name, owner_kind=task.kind.lower(),
            status=status, service=task.service, boot=self._boot, number=self._number, task_hash=task.hash,
            models=[ModelOutput(format=model.format, url=model.url, name=model.name, digest=counted.model_digest)],
            batches=counted.batches, processed=counted.processed, undecodable=counted.undecodable,
            failed=counted.failed, refused=counted.refused, reason=self._reason, message=self._message,
        ).encode()  # fmt: skip
