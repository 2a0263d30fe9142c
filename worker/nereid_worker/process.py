# SPDX-License-Identifier: Apache-2.0
"""The edge worker's process: waits for its task, builds the service, runs the script, tells how it is.

The process starts with nothing but its identity. What cannot be had yet (a model that is not there, a dataset that
vanished) is reported with a reason and tried again; a new task makes the process start over in place.
"""

import logging
import os
import queue
import runpy
import secrets
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Final, Literal

from nereid_shared.storage import fetch

from nereid_shared.errors import ModelInvalid, TemporaryError, UserError
from nereid_shared.messages import ModelOutput, Task, TaskInfo, WorkerInfo
from nereid_worker import builtin
from nereid_worker.classifier import Classifier
from nereid_worker.edge import JointInference
from nereid_worker.page import Page
from nereid_worker.rules import make_rule
from nereid_worker.settings import Settings
from nereid_worker.sources import Files
from nereid_worker.spool import Spool
from nereid_worker.uplink import Uplink

log = logging.getLogger(__name__)

RETRY_S: Final = 1.0
RETRY_MAX_S: Final = 30.0
MAX_MODEL_BYTES: Final = 2 * 1024**3

Status = Literal["starting", "running", "completed", "failed"]

_process: "EdgeProcess | None" = None


class Stop(BaseException):
    """Raised in the main thread by SIGTERM and SIGINT."""


class NewTask(BaseException):
    """Raised in the main thread when another task came."""


def current() -> JointInference:
    """Return this process's service, made on the first call.

    Raises:
        UserError: this process is no edge worker.
    """
    if _process is None:
        raise UserError(
            "JointInference.from_task() works in an edge worker only",
            mend="Run the script as scriptBootFile of a JointInferenceService",
        )
    return _process.service()


class EdgeProcess:
    """One edge worker: page, spool, uplink and, once there is a task, the service."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._boot = secrets.token_hex(8)
        self._page = Page(settings.state / "ledger.page", now_us=time.time_ns() // 1000)
        self._spool = Spool(settings.state / "samples.spool")
        self._spool.drop_after(self._page.seq)
        self._status: Status = "starting"
        self._reason, self._message = "WaitingForTask", "no task was received from the LocalController yet"
        self._tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self._task: Task | None = None
        self._service: JointInference | None = None
        self._uplink = Uplink(
            settings, spool=self._spool, stream=self._page.stream, info=self._info, on_task=self._take_task,
            on_result=lambda result: self._service.take_result(result) if self._service else None,
        )  # fmt: skip

    def run(self) -> int:
        """Work until SIGTERM; returns the exit code."""
        global _process  # noqa: PLW0603 - a script reaches its worker through the process it runs in
        _process = self
        signal.signal(signal.SIGTERM, _raise_stop)
        signal.signal(signal.SIGINT, _raise_stop)
        signal.signal(signal.SIGUSR1, _raise_new_task)
        self._uplink.start()
        try:
            self._task = self._tasks.get()
            return self._work(self._task)
        except Stop:
            return 0
        except NewTask:
            log.info("starting over for another task")
            self._close()
            os.execv(sys.executable, [sys.executable, "-m", "nereid_worker"])  # noqa: S606 - no shell, the same program
        finally:
            self._close()

    def _close(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        self._uplink.stop()

    def _work(self, task: Task) -> int:
        delay_s = RETRY_S
        while True:
            try:
                self._run_script(task)
            except (UserError, ModelInvalid, TemporaryError) as error:
                # Not the script's fault and perhaps not for ever: say why, and look again.
                self._tell("failed", getattr(error, "reason", "") or "TaskInvalid", str(error))
                log.warning("cannot run the task yet", extra={"problem": str(error), "delay_s": delay_s})
                time.sleep(delay_s)
                delay_s = min(delay_s * 2, RETRY_MAX_S)
            except Exception as error:
                self._tell("failed", "ScriptFailed", f"{type(error).__name__}: {error}")
                log.exception("the script failed")
                return 1
            else:
                delay_s = RETRY_S
                self._tell("completed")
                builtin.look_after(self.service(), self._settings.state)
                self._tell("running")

    def _run_script(self, task: Task) -> None:
        if task.script_boot_file.startswith(builtin.PREFIX):
            name = task.script_boot_file.removeprefix(builtin.PREFIX)
            if name != "classify":
                raise UserError(f"there is no builtin {name!r}", where="scriptBootFile", mend="Use builtin:classify")
            builtin.classify(self.service(), self._settings.state)
            return
        script = Path(task.script_dir, task.script_boot_file)
        if not script.is_file():
            raise UserError(
                "there is no such file on this node",
                where=str(script),
                mend="Copy the script there",
                reason="ScriptNotFound",
            )
        sys.path.insert(0, str(script.parent))
        runpy.run_path(str(script), run_name="__main__")

    def service(self) -> JointInference:
        """Return the service of the task, made on the first call.

        Raises:
            ModelInvalid, UserError, TemporaryError: it cannot be made (yet).
        """
        if self._service is None:
            self._service = self._build()
            self._tell("running")
        return self._service

    def _build(self) -> JointInference:
        task, rule = self._task, self._task.rule if self._task else None
        if task is None or rule is None:
            raise UserError("the task names no hard example rule", where="edgeWorker.hardExampleAlgorithm")
        self._tell("starting", "LoadingModel", task.model.url)
        path = fetch(
            task.model.url, into=self._settings.state / "models", sha256=task.model.sha256 or None,
            max_bytes=MAX_MODEL_BYTES,
        )  # fmt: skip
        classifier = Classifier.load(path)
        dataset = None
        if task.dataset is not None:
            dataset = Files(task.dataset.url, task.dataset.format)
        return JointInference(
            classifier=classifier,
            rule=make_rule(rule.name, rule.parameters, rule.budget),
            page=self._page,
            spool=self._spool,
            notify=self._uplink.notify,
            deadline_s=task.deadline_s,
            parameters=task.parameters,
            dataset=dataset,
        )

    def _tell(self, status: Status, reason: str = "", message: str = "") -> None:
        self._status, self._reason, self._message = status, reason, message
        self._uplink.report()

    def _take_task(self, task: Task) -> None:
        """Called in the uplink's thread."""
        if self._task is None:
            self._tasks.put(task)
        elif task.hash != self._task.hash:
            os.kill(os.getpid(), signal.SIGUSR1)

    def _info(self, number: int) -> WorkerInfo:
        """Called in the uplink's thread."""
        task, service = self._task, self._service
        ledger = self._page.ledger()
        started = datetime.fromtimestamp(self._page.started_us / 1e6, UTC)
        return WorkerInfo(
            name=self._settings.worker,
            namespace=task.namespace if task else "",
            owner_name=task.name if task else "",
            owner_kind=task.kind.lower() if task else "",
            status=self._status,
            task_info=TaskInfo(
                inference_number=ledger.easy + ledger.hard,
                hard_example_number=ledger.hard,
                start_time=_rfc3339(started),
                update_time=_rfc3339(datetime.now(UTC)),
            ),
            service=self._settings.service,
            node=self._settings.node,
            boot=self._boot,
            number=number,
            task_hash=task.hash if task else "",
            ledger=ledger,
            models=[
                ModelOutput(
                    format=task.model.format, url=task.model.url, name=task.model.name, digest=service.classifier.digest
                )
            ]
            if task and service
            else [],
            stream=self._page.stream,
            accepted=self._uplink.accepted,
            reason=self._reason,
            message=self._message,
        )


def _rfc3339(time_: datetime) -> str:
    return time_.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _raise_stop(_number: int, _frame: FrameType | None) -> None:
    raise Stop


def _raise_new_task(_number: int, _frame: FrameType | None) -> None:
    raise NewTask
