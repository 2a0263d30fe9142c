# SPDX-License-Identifier: Apache-2.0
"""A request to stop, with a deadline that later requests can only bring nearer."""

import asyncio


class Stop:
    """Asked once or more; several tasks wait for it."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self._moved = asyncio.Event()
        self._deadline = float("inf")

    @property
    def asked(self) -> bool:
        """Whether somebody asked."""
        return self._asked.is_set()

    def ask(self, grace_s: float) -> None:
        """Ask to stop within `grace_s` seconds."""
        self._deadline = min(self._deadline, asyncio.get_running_loop().time() + grace_s)
        self._asked.set()
        self._moved.set()

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it is asked or `timeout_s` seconds have passed; return whether it is asked."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._asked.wait()
        except TimeoutError:
            pass
        return self.asked

    async def overdue(self) -> None:
        """Wait until the deadline has passed."""
        await self._asked.wait()
        loop = asyncio.get_running_loop()
        while loop.time() < self._deadline:
            self._moved.clear()
            try:
                async with asyncio.timeout_at(self._deadline):
                    await self._moved.wait()
            except TimeoutError:
                return
