# SPDX-License-Identifier: Apache-2.0
"""The serving worker's process: its task, its versions, its server, and what it says of itself.

In the cloud the task is in the environment and another one is another process; on a node it comes by the edge broker,
and the next one changes the versions in place.
"""

import asyncio
import contextlib
import errno
import gc
import logging
import resource
import signal
from pathlib import Path
from typing import Any, Final

from nereid_shared import environment, topics
from nereid_shared.backoff import Backoff
from nereid_shared.errors import TemporaryError
from nereid_shared.health import answering
from nereid_shared.link import Link, LinkSettings, Message
from nereid_shared.messages import ModelOutput, ServedVersion, ServingTask, WorkerInfo, WorkerStatus
from nereid_shared.storage import Cache, Wanted
from nereid_worker.info import Info
from nereid_worker.models import MAX_MODEL_BYTES
from nereid_worker.scratch import Scratch
from nereid_worker.serving.batcher import Observer
from nereid_worker.serving.former import Former
from nereid_worker.serving.metrics import Metrics
from nereid_worker.serving.neighbour import owner_at
from nereid_worker.serving.openinference_routes import OpenInference
from nereid_worker.serving.server import Server, lame_duck_at
from nereid_worker.serving.tensorflow_routes import TensorFlowServing
from nereid_worker.serving.versions import State, Versions
from nereid_worker.settings import Settings

logger = logging.getLogger(__name__)

CACHE_BYTES: Final = 2 * 1024**3
"""What former versions may keep on disk, so that going back to one needs no network."""
GOODBYE_S: Final = 2.0
FILES: Final = 65_536
LISTEN_RETRY_S: Final = 1.0
LISTEN_RETRY_MAX_S: Final = 10.0
_MESSAGE_CHARACTERS: Final = 500


class ServingProcess:
    """One serving worker; all methods are for the loop's thread.

    Attributes:
        server: where it answers.
        versions: what it answers with.
        listening: set once it listens.
    """

    def __init__(self, settings: Settings, *, lame_duck_s: float | None = None) -> None:
        """Take the settings; nothing happens before `run`.

        Raises:
            UserError, MessageInvalid: the task or the broker's URL in the environment is wrong.
        """
        self._settings = settings
        self._task: ServingTask | None = None
        if settings.task:
            body = settings.task.encode()
            self._task = ServingTask.decode(body, max_bytes=topics.TASK.max_bytes, topic=environment.TASK)
        self._scratch: Scratch | None = None if settings.node else Scratch()
        self._cache: Cache | None = None
        self._keys: dict[ServedVersion, str] = {}
        self._stopping = asyncio.Event()
        self._former = Former(settings.state / "served.json" if settings.node else None)
        self.versions = Versions(
            obtain=self._obtain, observer_of=self._observer, on_change=self._say, former=self._former.source
        )
        self._metrics = Metrics(lambda: self.versions.loaded, in_flight=lambda: self.server.in_flight)
        self.listening = asyncio.Event()
        if lame_duck_s is None:
            lame_duck_s = lame_duck_at(settings.listen)
        self.server = Server(self.versions, self._metrics, lame_duck_s=lame_duck_s)
        self.server.add(TensorFlowServing(self.versions), OpenInference(self.server, self.versions))
        self._info = Info(topic=self._topic(), describe=self._describe)
        if self._task is None:
            self._info.become("starting", "WaitingForTask", "no task was received from the LocalController yet")
        self._link = self._make_link()

    async def run(self) -> None:
        """Serve until `stop`; then finish what is under way, say goodbye, and return."""
        async with contextlib.AsyncExitStack() as stack:
            if self._link is not None:
                await stack.enter_async_context(self._link)
            if self._task is not None:
                self.versions.want(self._task)
            works: list[asyncio.Task[Any]] = [
                asyncio.create_task(self.versions.keep(), name="versions"),
                asyncio.create_task(self._listen(), name="listen"),
                asyncio.create_task(self._stopping.wait(), name="stop"),
            ]
            if self._link is not None:
                repeat = self._info.repeat(self._link, every_s=self._settings.info_interval_s)
                works.append(asyncio.create_task(repeat, name="info"))
            try:
                await self._until_stopped(works)
                await self.server.drain()
            finally:
                for work in works:
                    work.cancel()
                await asyncio.gather(*works, return_exceptions=True)
                await self.versions.close()
                await self._goodbye()
                if self._scratch is not None:
                    self._scratch.remove()

    @property
    def problem(self) -> str:
        """Why requests are not to be sent here, "" where they are."""
        if self.server.ready and self.server.port:
            return ""
        info = self._info
        return "draining" if self.server.draining else f"{info.status}: {info.reason} {info.message}".rstrip()

    def stop(self) -> None:
        """Begin the drain."""
        self._stopping.set()

    async def _until_stopped(self, works: "list[asyncio.Task[Any]]") -> None:
        while not self._stopping.is_set():
            done, _ = await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
            for work in done:
                work.result()  # a supervisor would start it again; here the Pod's is the one
            works[:] = [work for work in works if work not in done]

    async def _listen(self) -> None:
        """Listen once something serves; a port that is taken is said, and tried again."""
        await self.versions.until(lambda: self.versions.default is not None)
        # What was imported and loaded stays: else each full collection would walk all of it, within a request.
        gc.collect()
        gc.freeze()
        backoff = Backoff(first_s=LISTEN_RETRY_S, longest_s=LISTEN_RETRY_MAX_S)
        while True:
            task = self.versions.task
            port = self._settings.port or (task.port if task else 0)
            try:
                owner = await owner_at(self._settings.listen, port) if port else None
                if owner is not None and (task is None or owner != task.uid):
                    raise OSError(errno.EADDRINUSE, "another program listens there")
                await self.server.listen(host=self._settings.listen, port=port)
            except OSError as error:
                self._become("failed", "PortUnavailable", f"port {port} cannot be listened at: {error.strerror}")
                await asyncio.sleep(backoff.next_s())
            else:
                self.listening.set()
                self._say()
                return

    def _make_link(self) -> Link | None:
        settings = self._settings
        if not settings.broker:
            return None
        subscriptions = {}
        if not settings.task:
            subscriptions[topics.TASK.of(worker=settings.worker)] = self._take_task
        return Link(
            LinkSettings.from_url(
                settings.broker, client_id=f"nereid-worker-{settings.worker}", tls=settings.tls,
                keepalive_s=settings.keepalive_s,
            ),
            subscriptions=subscriptions, will=lambda _: self._info.will(), on_connect=self._info.publish,
        )  # fmt: skip

    def _take_task(self, message: Message) -> None:
        if not message.payload:
            return
        task = ServingTask.decode(message.payload, max_bytes=topics.TASK.max_bytes, topic=message.topic)
        if self.versions.task is None or task.hash != self.versions.task.hash:
            logger.info("task", extra={"target": task.target, "generation": task.generation})
            self.versions.want(task)

    def _obtain(self, task: ServingTask, source: ServedVersion) -> Path:
        """Return where a version's files are, fetched where the LocalController has not done it; in a thread."""
        if source.path:
            return Path(source.path)
        if self._cache is None:
            # A folder in it, not itself: both lock theirs.
            root = (self._scratch.path if self._scratch is not None else self._settings.state) / "models"
            self._cache = Cache(root, max_bytes=CACHE_BYTES)
        obtained = self._cache.obtain(
            Wanted(url=source.url, sha256=source.sha256, max_bytes=MAX_MODEL_BYTES, companions=True),
            stop=lambda: self._stopping.is_set() or self.versions.task is not task,
        )
        if obtained.key:
            self._keys[source] = obtained.key
            self._cache.collect({self._keys[one] for one in task.versions if one in self._keys})
        return obtained.path

    def _observer(self, model: str, version: str) -> Observer:
        return self._metrics.observer(model, version)

    def _topic(self) -> str:
        settings, task = self._settings, self._task
        if task is None:
            return topics.WORKER_INFO.of(worker=settings.worker)
        service = settings.service or topics.service_id(task.name, task.uid)
        return topics.CLOUD_INFO.of(service=service, pod=settings.worker)

    def _say(self) -> None:
        """Say how it stands: what serves, and why that is not the target."""
        task, default = self.versions.task, self.versions.default
        if task is None:
            return
        if default is not None:
            self._former.note(default.source)
        if default is None:
            problem = self.versions.problem
            if problem is None:
                self._become("starting", "LoadingModel")
            else:
                self._become("failed", problem.reason, problem.message)
        elif self.server.port == 0:
            return
        elif default.source in task.versions and default.version == task.target:
            self._become("running")
        else:
            self._become("running", *_why_not(task.target, self.versions.problem))

    def _become(self, status: WorkerStatus, reason: str = "", message: str = "") -> None:
        self._info.become(status, reason, message[:_MESSAGE_CHARACTERS])
        if self._link is not None:
            self._info.tell(self._link)

    def _describe(self) -> WorkerInfo:
        task, default = self.versions.task or self._task, self.versions.default
        return WorkerInfo(
            name=self._settings.worker,
            namespace=task.namespace if task else "",
            owner_name=task.name if task else "",
            owner_kind="inferencemodel",
            kind="serving",
            status="starting",
            service=self._settings.service,
            node=self._settings.node,
            task_hash=task.hash if task else "",
            serving_version=default.version if default and self.server.port else "",
            models=[_output(one, task) for one in self.versions.states()] if task else [],
            batches=self._metrics.batches,
            processed=self._metrics.rows,
        )

    async def _goodbye(self) -> None:
        self._info.become("offline", "Stopped")
        if self._link is None:
            return
        try:
            async with asyncio.timeout(GOODBYE_S):
                await self._link.wait_connected()
                await self._info.publish(self._link)
        except (TemporaryError, TimeoutError):
            logger.info("left without a goodbye")


async def run_serving(settings: Settings) -> None:
    """Run the serving worker of this process until SIGTERM or SIGINT, then drain.

    Raises:
        UserError, MessageInvalid: what the environment says is wrong.
    """
    _raise_file_limit()
    process = ServingProcess(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, process.stop)
    async with answering(settings.health, lambda: process.problem):
        await process.run()


def _raise_file_limit() -> None:
    """Take as many open files as the process may have: each connection is one, and 1,024 is a usual first limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _why_not(target: str, problem: State | None) -> tuple[str, str]:
    """Return reason and sentence for a version that serves though it is not the target."""
    if problem is not None and problem.version == target:
        return problem.reason, f"version {target} does not serve, the former goes on: {problem.message}"
    return "LoadingModel", f"version {target} is being prepared"


def _output(state: State, task: ServingTask) -> ModelOutput:
    return ModelOutput(
        name=task.model_name, version=state.version, format=task.framework, url=state.source.url, digest=state.digest,
        bytes=state.size, status="fetching" if state.status == "loading" else state.status, reason=state.reason,
        message=state.message[:_MESSAGE_CHARACTERS],
    )  # fmt: skip
