# SPDX-License-Identifier: Apache-2.0
"""What workers are told of their samples: ``accepted``, once per stream and turn of the loop, after the commit."""

import asyncio
import logging

from nereid_edge.service import Service
from nereid_shared import topics
from nereid_shared.errors import TemporaryError
from nereid_shared.link import Link
from nereid_shared.messages import Accepted

logger = logging.getLogger(__name__)


class Acceptance:
    """Tells the workers."""

    def __init__(self) -> None:
        self._edge: Link | None = None
        self._due: dict[tuple[str, str], Service] = {}

    def attach(self, edge: Link) -> None:
        """Set the link; before it nobody can be told."""
        self._edge = edge

    def tell(self, service: Service, stream: str) -> None:
        """Publish ``accepted`` of a stream when this turn of the loop is over."""
        if not self._due:
            asyncio.get_running_loop().call_soon(self._publish)
        self._due[service.id, stream] = service

    def tell_all(self, service: Service) -> None:
        """Publish ``accepted`` of each stream that has any."""
        for stream, contiguous in service.committed.items():
            if contiguous:
                self.tell(service, stream)

    def _publish(self) -> None:
        due, self._due = self._due, {}
        for (_, stream), service in due.items():
            if self._edge is None:
                continue
            body = Accepted(stream=stream, seq=service.committed.get(stream, 0)).encode()
            try:
                self._edge.publish_nowait(topics.ACCEPTED.of(worker=service.settings.worker), body)
            except TemporaryError:
                # The worker repeats what is not accepted, and is told then.
                logger.debug("accepted not told", extra={"service": service.id})
