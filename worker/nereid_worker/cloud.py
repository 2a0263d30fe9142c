# SPDX-License-Identifier: Apache-2.0
"""The cloud worker: hard samples of many edges through the big model, and the answers back.

The loop's thread has the link; the model has a thread of its own, which is the script's where there is one. A sample is
acknowledged to the broker when the broker has its result, so that at most ``receive_max`` samples are here at once: a
slow model holds the broker back, and nothing is dropped here. What the broker drops, the LocalController sends again.
The worker is stateless: its cache of answers only spares work on samples that come twice.
"""

import asyncio
import logging
import runpy
import signal
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from types import MappingProxyType
from typing import Final

from msgspec.structs import replace

from nereid_shared import environment, topics
from nereid_shared.backoff import Backoff
from nereid_shared.defaults import CLASSIFY
from nereid_shared.errors import (
    MessageInvalid,
    MessageTooLarge,
    ModelInvalid,
    NereidError,
    Stopped,
    SubscribeRefused,
    TemporaryError,
    UserError,
)
from nereid_shared.health import answering
from nereid_shared.link import FAILURE, Link, LinkSettings, Message, TlsFiles
from nereid_shared.messages import ModelOutput, Task, WorkerStatus
from nereid_shared.samples import UNDECODABLE, Result, Sample
from nereid_worker.batches import Batches, Pace
from nereid_worker.classifier import Classifier
from nereid_worker.cloud_answers import Predict, answer
from nereid_worker.cloud_batches import Job
from nereid_worker.cloud_info import cloud_info
from nereid_worker.models import name_of, on_this_node, output_of
from nereid_worker.scratch import Scratch
from nereid_worker.script import script_file

logger = logging.getLogger(__name__)

ANSWERS_KEPT: Final = 1024
# One log line per refused node, of so many: a stranger must not fill the log.
STRANGERS_KEPT: Final = 100
# Batches in the queue and on their way back keep the model busy; below 16 small ones would starve.
RECEIVE_PER_BATCH: Final = 4
RECEIVE_MIN: Final = 16
INFO_EVERY_S: Final = 2.0
DRAIN_S: Final = 10.0
GOODBYE_S: Final = 2.0
RETRY_S: Final = 1.0
RETRY_MAX_S: Final = 30.0

_Identity = tuple[str, str, int, bytes]

_current: "CloudWorker | None" = None


class CloudWorker:
    """One cloud worker of one service.

    A script serves a model of its own with ``CloudWorker.from_task().serve(predict)``.

    Attributes:
        parameters: the task's ``workerSpec.parameters``.
        processed, batches: samples answered and batches run.
        undecodable: samples that could not be read: dead letters.
        failed: samples that were read, and that the model could not answer.
        refused: samples of nodes outside the service.
        repeated: samples that came again and were answered from the cache, or were still waiting.
    """

    def __init__(self, task: Task, settings: LinkSettings, *, worker: str, info_every_s: float = INFO_EVERY_S) -> None:
        """Take the task; nothing happens before `run`.

        Raises:
            UserError: the task is not a cloud worker's, or has no share group.
        """
        if task.role != "cloud" or not task.group:
            raise UserError("the task is not that of a cloud worker", where=environment.TASK)
        self.task, self._info_every_s = task, info_every_s
        self.parameters: Mapping[str, str] = MappingProxyType(task.parameters)
        self.processed = self.batches = self.undecodable = self.failed = self.refused = self.repeated = 0
        self._info = cloud_info(task, worker=worker, counted=self)
        self._classifier: Classifier | None = None
        self._model = ModelOutput(format=task.model.format, url=task.model.url, name=task.model.name)
        self._scratch = Scratch()
        self._nodes = frozenset(task.nodes)
        self._strangers: set[str] = set()
        self._answers: OrderedDict[_Identity, bytes] = OrderedDict()
        self._waiting: set[_Identity] = set()
        self._settled = asyncio.Event()
        self._stopping, self._serving = asyncio.Event(), asyncio.Event()
        self._batches: Batches[Job] = Batches(max_batch=task.max_batch, max_wait_s=task.max_wait_s)
        self._pace = Pace()
        self._answer: Callable[[list[Job]], list[Result]] | None = None
        self._filter = topics.shared(topics.SAMPLES.filter(service=task.service), group=task.group)
        self._link = Link(settings, will=lambda _: self._info.will(), on_connect=self._info.publish)
        self._loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    def from_task(cls) -> "CloudWorker":
        """Return this process's worker, for scripts.

        Raises:
            UserError: this process is no cloud worker.
        """
        if _current is None:
            raise UserError(
                "CloudWorker.from_task() works in a cloud worker only",
                mend="Run the script as scriptBootFile of a JointInferenceService's cloudWorker.",
            )
        return _current

    @property
    def classifier(self) -> Classifier:
        """The task's model, loaded on first use.

        Raises:
            ModelInvalid, TemporaryError, UserError: it cannot be loaded.
        """
        if self._classifier is None:
            path = on_this_node(self.task.model, into=self._scratch, stop=self._stopping.is_set)
            self._classifier = Classifier.load(path, sha256=self.task.model.sha256)
            for warning in self._classifier.warnings:
                logger.warning("model", extra={"warning": warning})
        return self._classifier

    @property
    def model(self) -> ModelOutput:
        """What is told of the task's model."""
        return self._model

    @property
    def problem(self) -> str:
        """Why it has no samples to answer, "" where it may have some."""
        info = self._info
        if info.status != "running":
            return f"{info.status}: {info.reason} {info.message}".rstrip()
        return "" if self._link.connected else f"no broker: {self._link.last_error}"

    def serve(self, predict: Predict | None = None, *, model: str = "") -> None:
        """Answer samples until the worker is told to stop; returns then.

        `predict` runs in the calling thread, never twice at once. One that has answered several batches in less than a
        millisecond each answers a lone sample in the link's thread, since waking another would take longer.

        Args:
            predict: answers a batch (see `nereid_worker.cloud_answers.Predict`); by default the task's model does.
            model: what the answers are to call the model that `predict` runs, such as a file's sha256; by default the
                sha256 of the task's model, or the model's name where it is no file here.

        Raises:
            ModelInvalid, TemporaryError, UserError: the model cannot be loaded.
        """
        if self._loop is None:
            raise UserError("serve() works while the worker runs", mend="Call it in the script itself.")
        labels: tuple[str, ...] = ()
        if predict is None:
            classifier = self.classifier
            predict, labels = classifier.predict_batch, classifier.labels
            self._model = output_of(self.task.model, classifier)
        elif (digest := name_of(self.task.model)) != self.task.model.name:
            # The script has loaded what the task names, or so it says.
            self._model = replace(self._model, status="ready", digest=digest)
        digest = model or self._model.digest or name_of(self.task.model)

        def answer_timed(jobs: list[Job]) -> list[Result]:
            began = time.perf_counter()
            results = answer([job.sample for job in jobs], predict, model=digest, labels=labels)
            self._pace.note(time.perf_counter() - began)
            return results

        self._answer = answer_timed
        self._loop.call_soon_threadsafe(self._serving.set)
        while jobs := self._batches.take():
            self._loop.call_soon_threadsafe(self._deliver, jobs, answer_timed(jobs))

    async def run(self, predict: Predict | None = None) -> None:
        """Serve until `stop`; then finish what is here, say goodbye, and return.

        Raises:
            UserError: the script ended by itself, or raised.
            SubscribeRefused: the broker does not let this worker have samples.
        """
        self._loop = asyncio.get_running_loop()
        async with self._link:
            try:
                await self._work(predict)
            finally:
                await self._goodbye()
                self._scratch.remove()

    def stop(self) -> None:
        """Begin the drain: no further samples, an answer to those that are here. For the loop's thread."""
        self._stopping.set()

    async def _work(self, predict: Predict | None) -> None:
        model = _thread(lambda: self._serve_or_run_script(predict), name="model")
        stopping = asyncio.create_task(self._until_stopped(), name="stop")
        talks: list[asyncio.Future[None]] = [
            asyncio.create_task(self._have_samples(), name="samples"),
            asyncio.create_task(self._info.repeat(self._link, every_s=self._info_every_s), name="info"),
        ]
        try:
            await asyncio.wait((model, stopping, *talks), return_when=asyncio.FIRST_COMPLETED)
            if model.done():
                self._fail_from(model)
            error = next((error for task in talks if task.done() and (error := task.exception())), None)
            if error is not None:
                reason = "SubscribeRefused" if isinstance(error, SubscribeRefused) else "WorkerFailed"
                self._say("failed", reason, str(error))
            await self._drain(model)
            if error is not None:
                raise error
        finally:
            for task in (stopping, *talks):
                task.cancel()

    def _serve_or_run_script(self, predict: Predict | None) -> None:
        boot = self.task.script_boot_file
        if predict is None and boot != CLASSIFY:
            self._run_script(boot)
            return
        backoff = Backoff(first_s=RETRY_S, longest_s=RETRY_MAX_S)
        while not self._stopping.is_set():
            try:
                self.serve(predict)
            except Stopped:
                return
            except (ModelInvalid, TemporaryError) as error:
                # A model that is not there yet, or not whole yet: said in the info, and tried again.
                reason = error.reason if isinstance(error, ModelInvalid) else "ModelUnavailable"
                self._model = replace(self._model, status="failed", reason=reason, message=str(error))
                self._say("failed", reason, str(error))
                if self._batches.wait_stopped(backoff.next_s()):
                    return
            else:
                return

    def _run_script(self, name: str) -> None:
        """Run the script; one that is not there yet is said in the info, and waited for."""
        backoff = Backoff(first_s=RETRY_S, longest_s=RETRY_MAX_S)
        while not self._stopping.is_set():
            try:
                script = script_file(self.task.script_dir, name)
            except UserError as error:
                self._say("failed", error.reason, str(error))
                self._batches.wait_stopped(backoff.next_s())
            else:
                sys.path.insert(0, str(script.parent))
                runpy.run_path(str(script), run_name="__main__")
                return

    async def _until_stopped(self) -> None:
        await self._stopping.wait()

    async def _have_samples(self) -> None:
        """Subscribe, and return when there are to be no more."""
        # Not before there is a model: the broker then says "no subscriber", and the edges hold their samples.
        await self._serving.wait()
        # While connected, so that a refusal is told.
        await self._link.wait_connected()
        await self._link.subscribe(self._filter, self._take)
        self._say("running")
        await self._stopping.wait()

    def _take(self, message: Message) -> "asyncio.Future[None] | None":
        levels = topics.SAMPLES.match(message.topic)
        node = levels["node"] if levels else ""
        if node not in self._nodes:
            self.refused += 1
            if node not in self._strangers and len(self._strangers) < STRANGERS_KEPT:
                self._strangers.add(node)
                logger.warning("samples of a node outside the service are refused", extra={"node": node})
            return None
        try:
            sample = Sample.decode(message.payload, max_bytes=topics.SAMPLES.max_bytes)
        except (MessageInvalid, MessageTooLarge):
            self.undecodable += 1
            raise
        job = Job(node=node, sample=sample, done=asyncio.get_running_loop().create_future())
        known = self._answers.get(job.identity)
        if known is not None:
            self.repeated += 1
            self._publish(job, known)
        elif job.identity in self._waiting:
            self.repeated += 1
            return None
        else:
            self._waiting.add(job.identity)
            if self._answer is not None and self._pace.is_quick and len(self._waiting) == 1 and self._batches.awaited:
                self._deliver([job], self._answer([job]))
            else:
                self._batches.put(job)
        return job.done

    def _deliver(self, jobs: list[Job], results: list[Result]) -> None:
        self.batches += 1
        for job, result in zip(jobs, results, strict=True):
            if not result.error:
                self.processed += 1
            elif result.error == UNDECODABLE:
                self.undecodable += 1
            else:
                self.failed += 1
            if result.error:
                logger.warning(
                    "sample not answered", extra={"node": job.node, "seq": result.seq, "reason": result.error}
                )
            body = result.encode()
            if not result.error:
                # An error is never kept: what a script could not answer now, it may answer when it comes again.
                self._answers[job.identity] = body
                if len(self._answers) > ANSWERS_KEPT:
                    self._answers.popitem(last=False)
            self._publish(job, body)

    def _publish(self, job: Job, body: bytes) -> None:
        def published(code: int | None) -> None:
            if code is not None and code >= FAILURE:
                logger.error("result refused by the broker", extra={"node": job.node, "reason_code": code})
            self._waiting.discard(job.identity)
            if not self._waiting:
                self._settled.set()
            if not job.done.done():
                job.done.set_result(None)

        try:
            topic = topics.RESULTS.of(service=self.task.service, node=job.node)
            self._link.publish_nowait(topic, body, on_ack=published)
        except NereidError as error:
            # The answer stays in the cache; the LocalController sends the sample again.
            if not isinstance(error, TemporaryError):
                logger.error("result not published", extra={"node": job.node, "problem": str(error)})
            published(None)

    def _fail_from(self, model: "asyncio.Future[None]") -> None:
        """Say why the model's thread ended, and raise it; nothing happens where it ended because of `stop`."""
        script, error = self.task.script_boot_file, model.exception()
        if isinstance(error, NereidError):
            self._say("failed", error.reason if isinstance(error, ModelInvalid) else "WorkerFailed", str(error))
            raise error
        if error is not None:
            logger.error("the script failed", extra={"script": script}, exc_info=error)
            self._say("failed", "ScriptFailed", f"{type(error).__name__}: {error}")
            raise UserError(f"the script failed: {error!r}", where=script) from error
        if not self._stopping.is_set():
            self._say("failed", "ScriptEnded", "the script ended")
            raise UserError("the script ended", where=script, mend="Let it call CloudWorker.from_task().serve().")

    async def _drain(self, model: "asyncio.Future[None]") -> None:
        await self._link.unsubscribe(self._filter)
        try:
            async with asyncio.timeout(DRAIN_S):
                while self._waiting:
                    self._settled.clear()
                    await self._settled.wait()
                self._batches.stop()
                await asyncio.wait((model,))
        except TimeoutError:
            logger.warning("samples left unanswered", extra={"samples": len(self._waiting)})
        self._batches.stop()

    async def _goodbye(self) -> None:
        if self._info.status != "failed":
            self._info.become("offline")
        try:
            async with asyncio.timeout(GOODBYE_S):
                await self._link.wait_connected()
                await self._info.publish(self._link)
        except (TemporaryError, TimeoutError):
            logger.info("left without a goodbye")

    def _say(self, status: WorkerStatus, reason: str = "", message: str = "") -> None:
        """Change the status, and tell; callable from any thread."""
        self._info.become(status, reason, message)
        assert self._loop is not None  # noqa: S101 - set in run()
        self._loop.call_soon_threadsafe(self._info.tell, self._link)


async def run_cloud(
    task: Task,
    *,
    broker_url: str,
    worker: str,
    tls: TlsFiles | None = None,
    health: tuple[str, int] | None = None,
    predict: Predict | None = None,
) -> None:
    """Run the cloud worker of this process until SIGTERM or SIGINT, then drain.

    Args:
        task: what to run.
        broker_url: the cloud broker's.
        worker: the Pod's name.
        tls: our certificate, where the broker wants one.
        health: where probes are answered, if anywhere.
        predict: instead of the task's model or script.

    Raises:
        UserError: the task, the broker's URL or the script is wrong.
    """
    global _current  # noqa: PLW0603 - one worker per process; scripts find it by from_task()
    receive_max = max(RECEIVE_MIN, RECEIVE_PER_BATCH * task.max_batch)
    settings = LinkSettings.from_url(broker_url, client_id=f"nereid-cloud-{worker}", tls=tls, receive_max=receive_max)
    cloud = CloudWorker(task, settings, worker=worker)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, cloud.stop)
    _current = cloud
    try:
        async with answering(health, lambda: cloud.problem):
            await cloud.run(predict)
    finally:
        _current = None


def _thread(work: Callable[[], None], *, name: str) -> "asyncio.Future[None]":
    """Start a thread and return what becomes of it; a daemon, so that a stuck model cannot keep the process."""
    outcome: Future[None] = Future()

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - handed over to the loop's thread, which raises it
            outcome.set_exception(error)
        else:
            outcome.set_result(None)

    threading.Thread(target=run, name=name, daemon=True).start()
    return asyncio.wrap_future(outcome)
