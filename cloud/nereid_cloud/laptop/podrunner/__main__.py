# SPDX-License-Identifier: Apache-2.0
"""``python -m nereid_cloud.laptop.podrunner --node edge-0 --state DIR``."""

import asyncio
import os
import signal
import sys
from contextlib import closing

from nereid_cloud.cluster.local import DATABASE, LocalCluster
from nereid_cloud.cluster.port import Cluster
from nereid_cloud.laptop.podrunner.runner import PodRunner
from nereid_cloud.laptop.podrunner.settings import Settings, read
from nereid_shared import logs
from nereid_shared.errors import UserError


def main() -> int:
    """Run the PodRunner until SIGTERM or SIGINT; return the exit code."""
    try:
        settings = read(sys.argv[1:], os.environ)
        logs.configure(json=settings.log_json)
        with closing(_cluster(settings)) as cluster:
            asyncio.run(_run(cluster, settings))
    except UserError as error:
        print(f"podrunner: {error}", file=sys.stderr)  # noqa: T201 - before there is a log
        return 2
    return 0


def _cluster(settings: Settings) -> Cluster:
    if settings.kubeconfig:
        # Imported here: the client takes a second and tens of megabytes, which a laptop's nodes do without.
        from nereid_cloud.cluster.kubernetes import KubernetesCluster  # noqa: PLC0415

        return KubernetesCluster(kubeconfig=settings.kubeconfig)
    return LocalCluster(settings.state / DATABASE)


async def _run(cluster: Cluster, settings: Settings) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await PodRunner(cluster, settings).run(stopping)


if __name__ == "__main__":
    sys.exit(main())
