# SPDX-License-Identifier: Apache-2.0
"""The PodRunner's one event loop: news of Pods in, workers, statuses and the node's heartbeat out."""

import asyncio
import contextlib
import fcntl
import logging
from collections.abc import Iterator

from nereid_cloud.cluster.port import Cluster, Object
from nereid_cloud.laptop.podrunner.feed import Changed, Deleted, Listed, News, PodFeed
from nereid_cloud.laptop.podrunner.node import NodeAgent
from nereid_cloud.laptop.podrunner.pod import PodWorker, folder_of
from nereid_cloud.laptop.podrunner.report import Reporter
from nereid_cloud.laptop.podrunner.settings import Settings
from nereid_cloud.laptop.podrunner.stop import Stop
from nereid_shared.errors import UserError

_RESYNC_S = 10.0
_RESTART_S = 5.0
_LAST_REPORTS_S = 5.0
# With the last reports and the kills less than the 20 s that whoever supervises the PodRunner gives it.
_SHUT_DOWN_S = 10.0
_KILL_S = 2.0

logger = logging.getLogger(__name__)


class PodRunner:
    """The kubelet of one node of a laptop.

    Args:
        cluster: where the node's Pods come from.
        settings: what to be.
    """

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self._cluster, self._settings = cluster, settings
        self._reporter = Reporter(cluster, node=settings.node)
        self._node = NodeAgent(cluster, settings)
        self._workers: dict[str, PodWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._leaving = Stop()

    async def run(self, stopping: asyncio.Event) -> None:
        """Run Pods until `stopping` is set; then stop them, or leave them running with `Settings.keep_pods`.

        Raises:
            UserError: another PodRunner runs in this folder.
        """
        with _locked(self._settings):
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._adopt()
                async with PodFeed(self._cluster, node=self._settings.node) as feed:
                    tasks = [
                        group.create_task(self._node.run(), name="node"),
                        group.create_task(self._follow(feed), name="news"),
                        group.create_task(self._resync(), name="resync"),
                    ]
                    reports = group.create_task(self._reporter.run(), name="reports")
                    await stopping.wait()
                    for task in tasks:
                        task.cancel()
                await self._leave()
                await self._node.stop()
                reports.cancel()

    def _adopt(self) -> None:
        for folder in sorted(folder_of(self._settings).glob("*")):
            try:
                worker = PodWorker.from_disk(
                    folder, settings=self._settings, cluster=self._cluster, reporter=self._reporter
                )
            except (OSError, ValueError, KeyError) as error:
                logger.warning("pod folder not readable", extra={"folder": str(folder), "problem": repr(error)})
            else:
                self._begin(folder.name.rpartition("_")[2], worker)

    def _begin(self, uid: str, worker: PodWorker) -> None:
        self._workers[uid] = worker
        self._tasks[uid] = self._group.create_task(self._supervise(uid, worker), name=f"pod {worker.folder.name}")

    async def _supervise(self, uid: str, worker: PodWorker) -> None:
        while True:
            is_last = self._leaving.asked
            try:
                await worker.run()
            except Exception:
                logger.exception("pod worker failed", extra={"pod": worker.folder.name})
                if is_last:
                    return
                await self._leaving.wait(_RESTART_S)
            else:
                break
        del self._workers[uid], self._tasks[uid]

    async def _follow(self, feed: PodFeed) -> None:
        async for news in feed.news():
            self._take(news)

    def _take(self, news: News) -> None:
        match news:
            case Listed(pods=pods):
                uids = {pod["metadata"]["uid"] for pod in pods}
                for uid, worker in self._workers.items():
                    if uid not in uids:
                        worker.vanish()
                for pod in pods:
                    self._see(pod)
            case Changed(pod=pod):
                self._see(pod)
            case Deleted(pod=pod):
                gone = self._workers.get(pod["metadata"]["uid"])
                if gone:
                    gone.vanish()

    def _see(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        if uid not in self._workers:
            self._begin(uid, PodWorker(pod, settings=self._settings, cluster=self._cluster, reporter=self._reporter))
        self._workers[uid].update(pod)

    async def _resync(self) -> None:
        while True:
            await asyncio.sleep(_RESYNC_S)
            for worker in self._workers.values():
                worker.resync()

    async def _leave(self) -> None:
        """Stop the Pods and tell the API so, as far as both can be done in bounded time."""
        end = asyncio.get_running_loop().time() + _LAST_REPORTS_S
        tasks = list(self._tasks.values())
        if not self._settings.keep_pods:
            end += _SHUT_DOWN_S
            self._leaving.ask(_SHUT_DOWN_S)
            for worker in self._workers.values():
                worker.shut_down(_SHUT_DOWN_S)
            if tasks:
                await asyncio.wait(tasks, timeout=_SHUT_DOWN_S + _LAST_REPORTS_S)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if not self._settings.keep_pods:
            await asyncio.gather(*(self._kill(worker) for worker in self._workers.values()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(min(end, asyncio.get_running_loop().time() + _LAST_REPORTS_S)):
                await self._reporter.settled()

    async def _kill(self, worker: PodWorker) -> None:
        """End what a Pod that could not be stopped in good order has left."""
        try:
            async with asyncio.timeout(_KILL_S):
                await worker.kill()
        except (OSError, ValueError) as error:  # among them the TimeoutError
            logger.error("processes of a pod left", extra={"pod": worker.folder.name, "problem": repr(error)})


@contextlib.contextmanager
def _locked(settings: Settings) -> Iterator[None]:
    folder_of(settings).mkdir(parents=True, exist_ok=True)
    with (settings.folder / "podrunner.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another PodRunner runs node {settings.node}", where=str(settings.folder), mend="Stop it first"
            ) from error
        yield
