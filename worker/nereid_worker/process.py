# SPDX-License-Identifier: Apache-2.0
"""The edge worker's process: waits for its task, builds the service, runs the script, tells how it is.

The process starts with nothing but its identity. What cannot be had yet (a model that is not there, a dataset that
vanished) is reported with a reason and tried again; a new task makes the process start over in place.
"""

import gc
import logging
import os
import queue
import runpy
import secrets
import signal
import sys
import threading
import time
from types import FrameType
from typing import TYPE_CHECKING, Final

from nereid_shared.backoff import Backoff
from nereid_shared.defaults import BUILTIN_PREFIX, CLASSIFY
from nereid_shared.digests import is_swap
from nereid_shared.errors import ModelInvalid, TemporaryError, UserError
from nereid_shared.messages import (
    PAGE_DAMAGED,
    SPOOL_DAMAGED,
    Task,
    TaskInfo,
    WorkerInfo,
    WorkerStatus,
)
from nereid_shared.samples import Result
from nereid_shared.times import rfc3339_millis
from nereid_worker import builtin
from nereid_worker.edge import DRAIN_S, JointInference, Results, serve_scripts
from nereid_worker.opening import load_model, mendable, open_dataset
from nereid_worker.page import Page
from nereid_worker.script import script_file
from nereid_worker.settings import Settings
from nereid_worker.slots import Slots
from nereid_worker.spool import Spool
from nereid_worker.state_lock import Holder, StateLock
from nereid_worker.swapper import Swapper, outputs
from nereid_worker.uplink import Uplink

if TYPE_CHECKING:
    from nereid_worker.classifier import Classifier

logger = logging.getLogger(__name__)

RETRY_S: Final = 1.0
RETRY_MAX_S: Final = 30.0
INSIST_S: Final = DRAIN_S + 1.0
"""After a signal: how long a script may take to come back to the SDK before it is interrupted where it is."""

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGALRM)


class Stop(BaseException):
    """Raised in the main thread after SIGTERM or SIGINT."""


class NewTask(BaseException):
    """Raised in the main thread after another task came."""


class EdgeProcess:
    """One edge worker: page, spool, uplink and, once there is a task, the service."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._boot = secrets.token_hex(8)
        self._told: tuple[WorkerStatus, str, str] = ("starting", "", "")
        self._notice = "", ""
        self._tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self._heard: Task | None = None
        self._task: Task | None = None
        self._results: Results = queue.SimpleQueue()
        self._page: Page | None = None
        self._spool: Spool | None = None
        self._service: JointInference | None = None
        self._slots: Slots | None = None
        self._swapper: Swapper | None = None
        self._request: BaseException | None = None
        self._uplink_failed = self._between_tries = False
        self._main_thread = threading.get_ident()
        self._uplink = Uplink(
            settings, info=self._info, on_task=self._take_task, on_result=self._take_result, on_room=self._room,
            on_failure=self._give_up, problem=self._problem,
        )  # fmt: skip

    def run(self) -> int:
        """Work until SIGTERM; returns the exit code. A new task replaces the process instead."""
        serve_scripts(self.service)
        for number in _SIGNALS:
            signal.signal(number, self._on_signal)
        # An earlier life of this process may have blocked them (see `_close`).
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        # Released after the goodbye alone: who has the folder has the worker's name at the broker too.
        with StateLock(self._settings.state, worker=self._settings.worker) as lock:
            return self._run_with(lock)

    def _run_with(self, lock: StateLock) -> int:
        failed = False
        try:
            lock.take(on_wait=self._wait_for_state)
            self._open_state()
            self._start_uplink()
            self._tell("starting", "WaitingForTask", "no task was received from the LocalController yet")
            self._task = self._tasks.get()
            failed = self._work(self._task)
        except Stop:
            pass
        except NewTask:
            logger.info("starting over for another task")
            self._close("starting", "TaskChanged")
            os.execv(sys.executable, [sys.executable, "-m", "nereid_worker"])  # noqa: S606 - no shell, the same program
        if failed:
            self._close(*self._told)
            return 1
        self._close("offline", "Stopped")
        return int(self._uplink_failed)

    def _close(self, status: WorkerStatus, reason: str, message: str = "") -> None:
        # Blocked, not ignored: what comes now must reach the program that may replace this one.
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        self._told = (status, reason, message)
        if self._swapper is not None:
            self._swapper.stop()
        if self._slots is not None and status != "failed":
            self._slots.ended()
        self._uplink.stop()

    def _wait_for_state(self, holder: Holder) -> None:
        """Say that another process holds the state folder, where the saying takes nothing from that process.

        During a replacement the old Pod may still run, under another name. A second process of the same name stays
        silent: it would take the first one's connection, and speak in its name.
        """
        if holder.worker not in {"", self._settings.worker}:
            self._tell("starting", "WaitingForState", f"{holder} still holds {self._settings.state}")
            self._start_uplink()

    def _open_state(self) -> None:
        folder = self._settings.state
        try:
            self._page = page = Page(folder / "ledger.page", now_us=time.time_ns() // 1000)
            self._spool = spool = Spool(folder / "samples.spool")
        except OSError as error:
            raise UserError(
                f"cannot be opened: {error.strerror}",
                where=str(error.filename or folder),
                mend="Make room, or mend the disk.",
            ) from error
        if spool.damaged is not None or spool.cut_bytes:
            self._note(SPOOL_DAMAGED, f"{folder / 'samples.spool'} was not whole; hard samples may be lost")
        if page.damaged is not None:
            self._note(
                PAGE_DAMAGED,
                f"{folder / 'ledger.page'} was not whole, or of another version; it is {page.damaged.name} now, counts "
                f"and cursor begin anew, {len(spool)} hard samples are lost",
            )
        # Written, but not counted before a kill: their frames come again, under the same numbers.
        spool.drop_after(page.seq)
        self._slots = Slots(folder)
        if self._slots.rolled_back is not None:
            logger.error("the last process ended with its new model", extra={"model": self._slots.rolled_back.url})

    def _note(self, reason: str, message: str) -> None:
        """Say something that hinders nothing: in the log, and in the info while that has nothing more urgent."""
        logger.error("the state folder was damaged", extra={"reason": reason, "problem": message})
        self._notice = reason, message

    def _start_uplink(self) -> None:
        self._uplink.start()
        if self._page is not None and self._spool is not None:
            self._uplink.attach(self._page, self._spool)

    def _work(self, task: Task) -> bool:
        """Run the script until a signal ends it; returns True where it failed by itself."""
        backoff = Backoff(first_s=RETRY_S, longest_s=RETRY_MAX_S)
        while True:
            began = time.monotonic()
            try:
                self._run_script(task)
            except (UserError, ModelInvalid, TemporaryError, ModuleNotFoundError) as error:
                if (problem := mendable(error)) is None:
                    return self._script_failed(error)
                # Not the script's fault and perhaps not for ever: say why, and look again.
                if time.monotonic() - began > RETRY_MAX_S:
                    backoff.reset()
                delay_s = backoff.next_s()
                self._tell("failed", *problem)
                logger.warning("cannot run the task yet", extra={"problem": problem[1], "delay_s": delay_s})
                self._between_tries = True
                time.sleep(delay_s)
                self._between_tries = False
            except SystemExit as error:
                if error.code not in {None, 0}:
                    return self._script_failed(error)
                self._after_script()
            except Exception as error:  # noqa: BLE001 - the user's script; its traceback is logged
                return self._script_failed(error)
            else:
                self._after_script()

    def _run_script(self, task: Task) -> None:
        boot = task.script_boot_file
        if boot.startswith(BUILTIN_PREFIX):
            if boot != CLASSIFY:
                raise UserError(f"there is no {boot!r}", where="scriptBootFile", mend=f"Use {CLASSIFY}.")
            service = self.service()
            builtin.classify(
                service, self._settings.state,
                on_end=lambda: self._tell("completed"), on_more=lambda: self._tell("running"),
            )  # fmt: skip
            return
        script = script_file(self._settings.script_dir or task.script_dir, boot)
        if str(script.parent) not in sys.path:
            sys.path.insert(0, str(script.parent))
        sys.argv = [str(script)]
        runpy.run_path(str(script), run_name="__main__")

    def _after_script(self) -> None:
        """Stay for corrections, until the dataset has grown and the script has something to do again."""
        service = self.service()
        source = service.dataset
        # As of the reading's beginning: what was added since then may have been read, or not.
        before = service.dataset_version
        if source is not None and before is None:
            before = source.version()
        self._tell("completed")
        builtin.wait_for_more(service, source, before)
        self._tell("running")

    def _script_failed(self, error: BaseException) -> bool:
        said = f"exit code {error.code}" if isinstance(error, SystemExit) else f"{type(error).__name__}: {error}"
        self._tell("failed", "ScriptFailed", said)
        logger.error("the script failed", exc_info=error)
        return True

    def service(self) -> JointInference:
        """Return the service of the task, made on the first call.

        Raises:
            ModelInvalid, UserError, TemporaryError: it cannot be made (yet).
        """
        if self._service is None:
            self._service = self._build()
        # At each call: a script that is run again after a failure is running again.
        if self._told[0] != "running":
            self._tell("running")
        return self._service

    def _build(self) -> JointInference:
        from nereid_worker.rules import make_rule  # noqa: PLC0415 - needs the extra [worker]

        task, page, spool, slots = self._task, self._page, self._spool, self._slots
        if task is None or page is None or spool is None or slots is None or task.rule is None:
            raise UserError("the task names no hard example rule", where="edgeWorker.hardExampleAlgorithm")
        rule = make_rule(task.rule.name, task.rule.parameters, task.rule.budget, seed=task.service)
        dataset = None if task.dataset is None else open_dataset(task.dataset)
        if self._told[0] != "failed":
            self._tell("starting", "LoadingModel", task.model.url)
        if self._swapper is None:
            self._swapper = Swapper(slots=slots, load=load_model, swap=self._swap, on_settled=self._settled)
        classifier = self._swapper.first(task)
        # What was imported and loaded stays: else each full collection would walk all of it, between two frames.
        gc.collect()
        gc.freeze()
        return JointInference(
            classifier=classifier, rule=rule, page=page, spool=spool, notify=self._uplink.notify,
            deadline_s=task.deadline_s, parameters=task.parameters, dataset=dataset, results=self._results,
            state=self._settings.state,
        )  # fmt: skip

    def _swap(self, classifier: "Classifier") -> None:
        """Called in the models' thread."""
        if self._service is not None:
            self._service.swap(classifier)

    def _settled(self, task: Task) -> None:
        """Called in the models' thread: the task's model serves, or it is told why it does not."""
        self._task = task
        self._uplink.report()

    def _tell(self, status: WorkerStatus, reason: str = "", message: str = "") -> None:
        if self._told != (status, reason, message):
            logger.info("status", extra={"status": status, "reason": reason})
        self._told = (status, reason, message)
        self._uplink.report()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        """In the main thread: end the script at its next call of the SDK, or after `INSIST_S` wherever it is."""
        if number == signal.SIGUSR1:
            if self._heard is None:  # meant for an earlier life of this process
                return
            self._request = self._request or NewTask()
        elif number != signal.SIGALRM:
            self._request = Stop()
        if self._request is None:
            return
        if number == signal.SIGALRM or self._service is None or self._between_tries:
            raise self._request
        self._service.end(self._request)
        signal.setitimer(signal.ITIMER_REAL, INSIST_S, INSIST_S)

    def _take_task(self, task: Task) -> None:
        """Called in the uplink's thread."""
        heard = self._heard
        if heard is None:
            self._heard = task
            self._tasks.put(task)
        elif task.hash == heard.hash:
            return
        elif self._service is not None and self._swapper is not None and is_swap(heard, task):
            self._heard = task
            self._swapper.want(task)
            self._uplink.report()
        else:
            signal.pthread_kill(self._main_thread, signal.SIGUSR1)

    def _take_result(self, result: Result) -> None:
        """Called in the uplink's thread; what an earlier process asked can come before there is a service."""
        self._results.put((result, time.monotonic()))

    def _room(self) -> None:
        """Called in the uplink's thread."""
        if self._service is not None:
            self._service.has_room()

    def _give_up(self) -> None:
        """Called in the uplink's thread, without which nothing can be told or asked: end, to be started again."""
        self._uplink_failed = True
        signal.pthread_kill(self._main_thread, signal.SIGTERM)

    def _problem(self) -> str:
        """Called in the uplink's thread: why samples are not classified, "" where they are, or all were."""
        status, reason, message = self._told
        return "" if status in {"running", "completed"} else f"{status}: {reason or status} {message}".rstrip()

    def _info(self, number: int) -> WorkerInfo:
        """Called in the uplink's thread."""
        task, page = self._task, self._page
        status, reason, message = self._told
        lack = self._swapper.lack if self._swapper is not None else None
        if not reason:
            reason, message = (lack.reason, lack.message) if lack is not None else self._notice
        ledger = page.ledger() if page is not None else None
        task_info = None
        if page is not None and ledger is not None:
            task_info = TaskInfo(
                inference_number=ledger.easy + ledger.hard,
                hard_example_number=ledger.hard,
                start_time=rfc3339_millis(page.started_us / 1e6),
                update_time=rfc3339_millis(),
            )
        return WorkerInfo(
            name=self._settings.worker,
            namespace=task.namespace if task else "",
            owner_name=task.name if task else "",
            owner_kind=task.kind.lower() if task else "",
            status=status,
            task_info=task_info,
            service=self._settings.service,
            node=self._settings.node,
            boot=self._boot,
            number=number,
            task_hash=task.hash if task else "",
            ledger=ledger,
            models=[] if task is None else outputs(task.model, self._swapper),
            stream=page.stream if page is not None else "",
            accepted=self._uplink.accepted,
            reason=reason,
            message=message,
        )
