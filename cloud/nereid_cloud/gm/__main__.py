# SPDX-License-Identifier: Apache-2.0
"""Runs the GlobalManager: ``python -m nereid_cloud.gm --state DIR --broker mqtt://host:port``."""

import asyncio
import signal
import sys
from collections.abc import Iterator

from nereid_cloud.cluster.opening import open_cluster
from nereid_cloud.gm.manager import run
from nereid_cloud.gm.settings import Settings
from nereid_shared import logs
from nereid_shared.errors import NereidError, UserError
from nereid_shared.health import Health, serving


async def _run(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    health = Health()
    cluster = await asyncio.to_thread(
        open_cluster, state=settings.state, kubeconfig=settings.kubeconfig, in_cluster=settings.state is None
    )
    try:
        async with serving(settings.health, lambda: health.problem):
            await run(settings, cluster, stop=stop, health=health)
    finally:
        await asyncio.to_thread(cluster.close)


def main() -> int:
    """Run until SIGTERM; returns the exit code: 2 where the user can mend what is wrong."""
    try:
        settings = Settings.from_args(sys.argv[1:])
        logs.configure(json=settings.json_logs)
        asyncio.run(_run(settings))
    except (NereidError, ExceptionGroup) as error:
        return told(error)
    return 0


def told(error: NereidError | ExceptionGroup[Exception]) -> int:
    """Print one line per error, also of those that task groups wrapped; returns the exit code.

    Raises:
        ExceptionGroup: errors that are not ours, of which a traceback tells more.
    """
    causes = list(_causes(error))
    ours = [cause for cause in causes if isinstance(cause, NereidError)]
    if len(ours) < len(causes):
        raise error
    for line in dict.fromkeys(str(cause) for cause in ours):
        print(f"error: {line}", file=sys.stderr)  # noqa: T201 - a command line's answer
    return 2 if any(isinstance(cause, UserError) for cause in ours) else 1


def _causes(error: Exception) -> Iterator[Exception]:
    if isinstance(error, ExceptionGroup):
        for one in error.exceptions:
            yield from _causes(one)
    else:
        yield error


if __name__ == "__main__":
    sys.exit(main())
