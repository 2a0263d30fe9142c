# SPDX-License-Identifier: Apache-2.0
"""Request bodies: bounded each, and all together, before they are read and while they come."""

import asyncio
from typing import Final

from aiohttp import web

from nereid_shared.errors import RequestRefused

MAX_BODY_BYTES: Final = 64 * 1024 * 1024
MAX_HELD_BYTES: Final = 512 * 1024 * 1024
"""All bodies under way together."""
TIMEOUT_S: Final = 60.0


class Bodies:
    """What the requests under way hold; for the loop's thread.

    Attributes:
        held_bytes: the sum.
    """

    def __init__(self) -> None:
        self.held_bytes = 0

    async def read(self, request: web.Request, held: "Held") -> bytearray:
        """Return a body, decompressed; its size is in `held`, which the caller releases.

        Raises:
            RequestRefused: 413, 408, 503 where too much is under way, 400 where it is not what its headers say.
        """
        length = request.content_length
        if length is not None and length > MAX_BODY_BYTES:
            raise RequestRefused(f"the body has {length} bytes; at most {MAX_BODY_BYTES} are read", status=413)
        self._hold(held, length or 0)
        body = bytearray()
        try:
            async with asyncio.timeout(None if request.content.is_eof() else TIMEOUT_S):
                while chunk := await request.content.readany():
                    body += chunk
                    if len(body) > MAX_BODY_BYTES:
                        raise RequestRefused(f"the body exceeds {MAX_BODY_BYTES} bytes", status=413)
                    if len(body) > held.size:
                        self._hold(held, len(body))
        except TimeoutError:
            raise RequestRefused(f"the body did not come within {TIMEOUT_S:g} s", status=408) from None
        except web.RequestPayloadError as error:
            raise RequestRefused(f"the body cannot be read: {error}") from error
        return body

    def release(self, held: "Held") -> None:
        """Count a body no longer."""
        self.held_bytes -= held.size
        held.size = 0

    def _hold(self, held: "Held", size: int) -> None:
        if self.held_bytes - held.size + size > MAX_HELD_BYTES:
            raise RequestRefused("too many requests are under way", status=503)
        self.held_bytes += size - held.size
        held.size = size


class Held:
    """The bytes that one request holds."""

    __slots__ = ("size",)

    def __init__(self) -> None:
        self.size = 0
