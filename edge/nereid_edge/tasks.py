# SPDX-License-Identifier: Apache-2.0
"""The node's tasks: what each worker is to run, what it says, and what of that goes to the GlobalManager.

`apply` makes the edge broker's retained ``task`` topics equal to the desired rows, what is not desired cleared;
workers' infos and dataset counts come in; states and statuses are made of both. Publishing is `run`'s, which repeats
until the broker has taken everything.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from nereid_edge import models, serving, spec
from nereid_edge.dataset_files import DatasetCount, DatasetMonitor
from nereid_edge.preparing import Preparing
from nereid_edge.relay import Relay
from nereid_edge.retained import Retained
from nereid_edge.running import Running, planned
from nereid_edge.served import ServedBook
from nereid_edge.worker_folders import WorkerFolders
from nereid_edge.workers import WorkerView
from nereid_shared import topics
from nereid_shared.errors import MessageInvalid
from nereid_shared.link import Link, Message
from nereid_shared.messages import (
    MODEL_SWAPPING,
    PRUNE_HELD,
    Ledger,
    ModelOutput,
    Output,
    Task,
    TaskInfo,
    TaskRow,
    TaskState,
    TaskStatus,
    WorkerInfo,
)
from nereid_shared.times import rfc3339_millis

logger = logging.getLogger(__name__)

_CONDITIONS: Final = {"running": "Running", "completed": "Completed", "failed": "Failed"}


class Tasks:
    """The node's tasks.

    Args:
        folders: those of the workers.
        cache: folder of the files that are fetched, and what it may take.
        served: what workers were told last.
        on_change: called on the loop when a state or status has changed in more than its counts.
    """

    def __init__(
        self, *, relay: Relay, folders: WorkerFolders, cache: tuple[Path, int], served: ServedBook,
        datasets: Path | None = None, on_change: Callable[[], None],
    ) -> None:  # fmt: skip
        self._relay, self._served, self._on_change = relay, served, on_change
        self._folders = folders
        self._preparing = Preparing(cache[0], max_bytes=cache[1], on_change=self._prepared)
        self._unsaved = False
        self._tasks: dict[str, Running] = {}
        self._workers: dict[str, WorkerView] = {}
        self._retained = Retained()
        self._edge_problem = ""
        self._known = False
        self._told: dict[str, tuple[str, ...]] = {}
        loop = asyncio.get_running_loop()
        self._datasets = DatasetMonitor(lambda uid, count: _post(loop, self._counted, uid, count), known=datasets)

    def attach(self, edge: Link) -> None:
        """Set the link to the edge broker."""
        self._retained.attach(edge)

    def close(self) -> None:
        """End the dataset monitor and the downloads."""
        self._datasets.stop()
        self._preparing.close()

    def apply(self, rows: Mapping[str, TaskRow], *, known: bool) -> None:
        """Run these tasks and no others.

        Args:
            rows: the desired tasks by uid.
            known: False before any document was applied: then nothing that a broker or the outbox holds is cleared.
        """
        self._known = known
        former, self._tasks = self._tasks, {}
        for uid, row in rows.items():
            old = former.get(uid)
            self._tasks[uid] = old if old is not None and old.row == row else planned(uid, row, old)
        for uid, one in self._tasks.items():
            self._settle(uid, one)
        if known:
            self._served.keep(rows)
            self._folders.serve([t.service for t in self._tasks.values() if t.row.kind == spec.SERVED and t.service])
        self._prepare()
        settings = {t.service: t.settings for t in self._tasks.values() if t.settings is not None}
        self._relay.configure(settings, prune=known)
        self._datasets.watch({uid: t.source for uid, t in self._tasks.items() if t.source is not None})
        wanted = {topics.TASK.of(worker=t.worker): t.task.encode() for t in self._tasks.values() if t.task is not None}
        names = {t.worker for t in self._tasks.values()}
        # A worker that still runs says goodbye later, and is cleared then.
        gone = [topics.WORKER_INFO.of(worker=name) for name in self._workers if name not in names]
        self._retained.hold(wanted, cleared=gone)
        self._workers = {name: view for name, view in self._workers.items() if name in names}
        self._told = {uid: told for uid, told in self._told.items() if uid in rows}
        self._on_change()

    def _prepare(self) -> None:
        wanted = [artefact for one in self._tasks.values() for artefact in one.wanted]
        infos = [view.info for view in self._workers.values() if view.info is not None]
        # A worker that could not take several models in turn goes on with one that is in no task any more.
        in_use = {model.digest for info in infos for model in info.models if model.digest}
        self._preparing.want(wanted, keep=self._served.keys() | in_use)

    def _settle(self, uid: str, one: Running) -> None:
        key = one.settle(self._preparing.of, former=self._served.task(uid))
        if key is not None and isinstance(one.task, Task):
            self._unsaved = self._served.note(uid, one.task, key=key) or self._unsaved

    def _prepared(self) -> None:
        """Take in that files are further on their way."""
        for uid, one in self._tasks.items():
            former = one.task
            self._settle(uid, one)
            if one.task is not None and one.task != former:
                self._retained.put(topics.TASK.of(worker=one.worker), one.task.encode())
        self._prepare()
        self._on_change()

    def edge_connected(self) -> None:
        """Publish everything again: a broker may have lost it, or hold what is no longer desired."""
        self._retained.publish_again()
        self._edge_is("")

    def edge_lost(self, problem: str) -> None:
        """Say of every service that its edge broker is down, whatever its worker said before."""
        self._edge_is(problem)

    def _edge_is(self, problem: str) -> None:
        if problem != self._edge_problem:
            self._edge_problem = problem
            self._on_change()

    async def run(self) -> None:
        """Publish what is wanted of the edge broker, again until it has it; on disk before."""
        await self._retained.run(before=self._save)

    async def _save(self) -> None:
        if self._unsaved:
            self._unsaved = False
            try:
                await asyncio.to_thread(self._served.save)
            except OSError as error:
                logger.warning("what workers were told is not on disk", extra={"problem": str(error)})

    def on_task_topic(self, message: Message) -> None:
        """See what the edge broker holds as ``task``: what is not desired is cleared, what is not ours replaced."""
        # What a worker has while its model is not here yet, it keeps until then.
        awaited = {topics.TASK.of(worker=one.worker) for one in self._tasks.values() if one.is_awaited}
        is_ours = self._known and message.topic not in awaited
        self._retained.seen(message.topic, message.payload, is_ours=is_ours)

    def on_info(self, message: Message) -> None:
        """Take a worker's info.

        Raises:
            MessageInvalid, MessageTooLarge: a dead letter.
        """
        if not message.payload:
            return
        info = WorkerInfo.decode(message.payload, max_bytes=topics.WORKER_INFO.max_bytes, topic=message.topic)
        name = (topics.WORKER_INFO.match(message.topic) or {}).get("worker", "")
        owner = next((t for t in self._tasks.values() if t.worker == name), None)
        if owner is None:
            if self._known and info.status in {"offline", "failed"}:
                self._retained.put(message.topic, b"")
            return
        view = self._workers.setdefault(name, WorkerView())
        if not view.take(info):
            return
        if owner.plan is not None and owner.artefact is not None:
            self._preparing.doubt(owner.artefact, is_wrong=models.is_found_wrong(owner.plan.model, info.models))
        counts = info.ledger
        fit = counts is None or info.accepted + sum(counts.dropped.values()) <= counts.hard
        if fit and counts is not None:
            self._relay.worker_reported(owner.service, stream=info.stream, accepted=info.accepted, counts=counts)
        self._note_changes()
        if not fit:
            # Its state counts, its figures cannot: they would make the ledger one of samples that never were.
            raise MessageInvalid(f"{message.topic}: more samples accepted and dropped than were hard")

    def states(self, held: frozenset[str]) -> dict[str, TaskState]:
        """Return what `state` says of each task; `held` are those that another cluster's document would remove."""
        states = {}
        for uid, one in self._tasks.items():
            status, reason, message = self._condition(one)
            condition = PRUNE_HELD if uid in held else _CONDITIONS.get(status, "Applied")
            states[uid] = TaskState(generation=one.row.generation, condition=condition, reason=reason, message=message)
        return states

    def statuses(self) -> dict[str, TaskStatus]:
        """Return each task's status by uid, without the sender's boot and number."""
        return {uid: self._status(uid, one) for uid, one in self._tasks.items() if one.row.kind in spec.PLURALS}

    def status_topic(self, uid: str, *, node: str) -> str:
        """Return the topic of a task's status."""
        row = self._tasks[uid].row
        return topics.STATUS.of(node=node, namespace=row.namespace, plural=spec.PLURALS[row.kind], name=row.name)

    def _counted(self, uid: str, count: DatasetCount) -> None:
        one = self._tasks.get(uid)
        if one is not None:
            one.count = count
            logger.info(
                "dataset counted", extra={"dataset": one.row.name, "samples": count.samples, "reason": count.reason}
            )
            self._on_change()

    def _note_changes(self) -> None:
        told: dict[str, tuple[str, ...]] = {
            uid: (*self._condition(one)[:2], self._serves(one)) for uid, one in self._tasks.items()
        }
        if told != self._told:
            self._told = told
            self._on_change()

    def _condition(self, one: Running) -> tuple[str, str, str]:
        """Return a task's status, reason and message."""
        if one.problem is not None:
            return "failed", one.problem.reason, str(one.problem)
        if one.source is not None:
            return _dataset_condition(one.count)
        if self._edge_problem:
            return "offline", "EdgeBrokerDown", self._edge_problem
        found, lacks = one.missing(self._preparing.of), one.on_its_way(self._preparing.of)
        if found is not None and lacks is not None and one.task is None:
            return "failed" if found.status == "failed" else "starting", *lacks
        view = self._workers.get(one.worker)
        if view is None or view.info is None:
            return "starting", "WorkerNotSeen", f"worker {one.worker} has not been heard of"
        status, reason, message = self._worker_condition(one, view, view.info)
        if found is not None and lacks is not None and status in ("running", "completed"):
            if not one.is_current:
                status, reason, message = "failed" if found.status == "failed" else "starting", *lacks
            elif not reason:
                reason, message = lacks
        return status, reason, message

    def _worker_condition(self, one: Running, view: WorkerView, info: WorkerInfo) -> tuple[str, str, str]:
        if view.lost:
            return "offline", "WorkerLost", f"worker {one.worker} has no connection to the edge broker"
        swaps = bool(one.swapped_from) and info.task_hash == one.swapped_from
        if isinstance(one.task, Task) and swaps and info.status in ("running", "completed"):
            return info.status, MODEL_SWAPPING, f"worker {one.worker} tries model {one.task.model.name}"
        if one.task is not None and info.task_hash not in ("", one.task.hash):
            return "starting", "WorkerUpdating", f"worker {one.worker} still runs an older task"
        if info.status == "completed" and self._relay.ledger(one.service).pending:
            pending = "AnswersPending", "all samples are taken; answers of the cloud are still to come"
            # What the worker has to say itself is worth more: it may be for this moment only.
            return "running", *((info.reason, info.message) if info.reason else pending)
        return info.status, info.reason, info.message

    def _status(self, uid: str, one: Running) -> TaskStatus:
        status, reason, message = self._condition(one)
        row = one.row
        if one.source is not None:
            count = one.count or DatasetCount()
            changed_at = rfc3339_millis(count.changed_at) if count.changed_at else None
            return TaskStatus(
                phase="dataset", status=status, uid=uid, generation=row.generation,
                number_of_samples=count.samples, statistics=count.statistics, update_time=changed_at, reason=reason,
                message=message,
            )  # fmt: skip
        view = self._workers.get(one.worker)
        info = view.info if view else None
        if row.kind == spec.SERVED:
            return self._served_status(one, view, TaskStatus(
                phase="serving", status=status, uid=uid, generation=row.generation, worker=one.worker, reason=reason,
                message=message,
            ))  # fmt: skip
        ledger = self._relay.ledger(one.service)
        return TaskStatus(
            phase="inference", status=status, uid=uid, generation=row.generation,
            output=Output(models=self._models(one, info), task_info=_task_info(ledger, info)), worker=one.worker,
            ledger=ledger, reason=reason, message=message,
        )  # fmt: skip

    def _served_status(self, one: Running, view: WorkerView | None, status: TaskStatus) -> TaskStatus:
        """Return the status of an InferenceModel with what is told of its versions."""
        if one.versions is None:
            return status
        said = view.info.models if view is not None and view.info is not None else []
        told = serving.outputs(one.versions, one.artefacts, self._preparing.of, said)
        return replace(status, serving_version=self._serves(one), output=Output(models=told))

    def _serves(self, one: Running) -> str:
        """Return the version that a task's worker answers with, if it is one that serves."""
        view = self._workers.get(one.worker)
        return view.info.serving_version if view is not None and view.info is not None and not view.lost else ""

    def _models(self, one: Running, info: WorkerInfo | None) -> list[ModelOutput]:
        if one.plan is None:
            return []
        model, found = one.plan.model, None if one.artefact is None else self._preparing.of(one.artefact)
        said = info.models if info is not None else []
        return models.outputs(model, said, found, generation=models.generation_of(one.row, model))


def _dataset_condition(count: DatasetCount | None) -> tuple[str, str, str]:
    if count is None:
        return "starting", "Counting", ""
    return ("failed", count.reason, count.message) if count.reason else ("running", "", "")


def _task_info(ledger: Ledger, info: WorkerInfo | None) -> TaskInfo:
    inferences = ledger.easy + ledger.hard
    said = info.task_info if info is not None else None
    return TaskInfo(
        inference_number=inferences,
        hard_example_number=ledger.hard,
        upload_cloud_ratio=round(ledger.answered / inferences, 6) if inferences else 0.0,
        start_time=said.start_time if said else None,
        current_time=rfc3339_millis(),
        update_time=said.update_time if said else None,
    )


def _post(
    loop: asyncio.AbstractEventLoop, call: Callable[[str, DatasetCount], None], uid: str, count: DatasetCount
) -> None:
    """Call on the loop from another thread; a loop that has ended needs no counts."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(call, uid, count)
