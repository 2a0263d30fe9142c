# SPDX-License-Identifier: Apache-2.0
"""``python -m nereid_worker``: an edge, cloud or serving worker, as the GlobalManager's Pods start it."""

import asyncio
import logging
import os
import sys

from nereid_shared import environment, logs, topics
from nereid_shared.errors import NereidError, UserError
from nereid_shared.messages import Task
from nereid_worker.settings import Settings

# With the default of 5 ms a busy link thread would hold back the thread that feeds the model (a convoy on the GIL).
SWITCH_INTERVAL_S = 1e-4


def main() -> int:
    """Run the worker that the environment describes; returns the exit code."""
    try:
        settings = Settings.from_env(os.environ)
    except UserError as error:
        sys.stderr.write(f"nereid_worker: {error}\n")
        return 2
    logs.configure(json=settings.json_logs, level=logging.INFO)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        return _RUN[settings.role](settings)
    except NereidError as error:
        logging.getLogger("nereid_worker").error("the worker ends", extra={"problem": str(error)})
        return 2


def _run_edge(settings: Settings) -> int:
    from nereid_worker.process import EdgeProcess  # noqa: PLC0415 - a cloud worker does without the edge's parts

    return EdgeProcess(settings).run()


def _run_cloud(settings: Settings) -> int:
    try:
        from nereid_worker.cloud import run_cloud  # noqa: PLC0415 - and the other way round
    except ModuleNotFoundError as error:
        raise UserError(f"{error}", mend="pip install 'nereid-ai[worker]'") from error
    task = Task.decode(settings.task.encode(), max_bytes=topics.TASK.max_bytes, topic=environment.TASK)
    asyncio.run(
        run_cloud(task, broker_url=settings.broker, worker=settings.worker, tls=settings.tls, health=settings.health)
    )
    return 0


def _run_serving(settings: Settings) -> int:
    try:
        from nereid_worker.serving.process import run_serving  # noqa: PLC0415 - needs the extra [serving]
    except ModuleNotFoundError as error:
        raise UserError(f"{error}", mend="pip install 'nereid-ai[worker,serving]'") from error
    asyncio.run(run_serving(settings))
    return 0


_RUN = {"edge": _run_edge, "cloud": _run_cloud, "serving": _run_serving}


if __name__ == "__main__":
    sys.exit(main())
