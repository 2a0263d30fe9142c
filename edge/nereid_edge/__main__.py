# SPDX-License-Identifier: Apache-2.0
"""``python -m nereid_edge``: run the LocalController of one node until SIGTERM.

Exit code 2: the user can mend it; 1: a new start may.
"""

import asyncio
import ctypes
import gc
import signal
import sys
from collections.abc import Iterator, Sequence

from nereid_edge.controller import LocalController
from nereid_edge.folder import StateFolder
from nereid_edge.settings import Settings
from nereid_shared import logs
from nereid_shared.errors import NereidError, UserError
from nereid_shared.health import serving

# Soon enough for what the imports leave behind, seldom enough to cost nothing.
SETTLED_S = 2.0
GIVE_BACK_EVERY_S = 30.0
_M_ARENA_MAX = -8


def main(argv: Sequence[str]) -> int:
    """Run, and return the exit code."""
    try:
        settings = Settings.from_args(argv)
        logs.configure(json=settings.json_logs)
        with StateFolder(settings.state, node=settings.node) as folder:
            asyncio.run(_run(settings, folder))
    except NereidError as error:
        return _told(error)
    except ExceptionGroup as group:
        # What was raised in a task; anything but our own is a bug, and keeps its traceback.
        ours, others = group.split(NereidError)
        if ours is None or others is not None:
            raise
        return max(_told(error) for error in _leaves(ours))
    return 0


def _told(error: Exception) -> int:
    sys.stderr.write(f"nereid_edge: {error}\n")
    return 2 if isinstance(error, UserError) else 1


def _leaves(group: ExceptionGroup[NereidError]) -> Iterator[NereidError]:
    for error in group.exceptions:
        if isinstance(error, ExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


async def _run(settings: Settings, folder: StateFolder) -> None:
    controller = LocalController(settings, folder)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, controller.stop)
    if (glibc := _glibc()) is not None:
        # One heap for all threads: each further one keeps what its busiest moment took.
        glibc.mallopt(_M_ARENA_MAX, 1)
        loop.call_later(SETTLED_S, _give_back_memory, loop, glibc)
    async with serving(settings.health, lambda: controller.problem):
        await controller.run()


def _glibc() -> ctypes.CDLL | None:
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "malloc_trim") else None


def _give_back_memory(loop: asyncio.AbstractEventLoop, glibc: ctypes.CDLL) -> None:
    """Return to the system what the imports and the last burst left behind: an edge node has none to spare."""
    gc.collect()
    glibc.malloc_trim(0)
    loop.call_later(GIVE_BACK_EVERY_S, _give_back_memory, loop, glibc)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
