# SPDX-License-Identifier: Apache-2.0
"""``python -m nereid_edge``: run the LocalController of one node until SIGTERM. Exit code 2: the user can mend it."""

import asyncio
import ctypes
import gc
import signal
import sys
from collections.abc import Sequence

from nereid_edge.controller import LocalController
from nereid_edge.folder import StateFolder
from nereid_edge.settings import Settings
from nereid_shared import logs
from nereid_shared.errors import UserError

SETTLED_S = 2.0


def main(argv: Sequence[str]) -> int:
    """Run, and return the exit code."""
    try:
        settings = Settings.from_args(argv)
        logs.configure(json=settings.json_logs)
        with StateFolder(settings.state, node=settings.node) as folder:
            asyncio.run(_run(settings, folder))
    except UserError as error:
        sys.stderr.write(f"nereid_edge: {error}\n")
        return 2
    return 0


async def _run(settings: Settings, folder: StateFolder) -> None:
    controller = LocalController(settings, folder)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, controller.stop)
    loop.call_later(SETTLED_S, _give_back_memory)
    await controller.run()


def _give_back_memory() -> None:
    """Return to the system what the imports left behind, 3 MB of 40: an edge node has none to spare."""
    gc.collect()
    gc.freeze()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:
        return  # not glibc


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
