# SPDX-License-Identifier: Apache-2.0
"""``python -m nereid_cloud.laptop links --state DIR``: the links of a system that `nereid up` started."""

import argparse
import asyncio
import contextlib
import signal
from pathlib import Path

from nereid_cloud.laptop import links
from nereid_cloud.laptop.system import System
from nereid_shared import logs


async def _serve(state: Path) -> None:
    system = System.load(state)
    served = {
        node: links.CuttableLink(node=node, port=port, target=("127.0.0.1", system.ports.cloud))
        for node, port in system.ports.links.items()
    }
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine that runs has one
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await links.run(served, system.control)


def main() -> None:
    """Serve links until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m nereid_cloud.laptop")
    parser.add_argument("part", choices=["links"])
    parser.add_argument("--state", type=Path, required=True)
    arguments = parser.parse_args()
    logs.configure(json=False)
    asyncio.run(_serve(arguments.state))


if __name__ == "__main__":
    main()
