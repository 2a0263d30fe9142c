# SPDX-License-Identifier: Apache-2.0
"""One desired task on this node: what its worker is to run, what of that has to be fetched, what it is told. No I/O."""

import logging
from dataclasses import dataclass, field

from nereid_edge import models, serving, spec
from nereid_edge.dataset_files import DatasetCount, DatasetSource
from nereid_edge.preparing import Artefact, Preparation
from nereid_edge.service import ServiceSettings
from nereid_edge.serving import Here
from nereid_edge.spec import SpecProblem
from nereid_shared.digests import is_swap
from nereid_shared.messages import ServingTask, Task, TaskRow

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Running:
    """One desired task with what is known of it.

    Attributes:
        plan: what the worker is to run, as far as the row tells.
        artefact: what has to be fetched for it.
        versions: of an InferenceModel, what is to be served, and `artefacts` what has to be fetched for it by version.
        task: what the worker is told: the former task, while a changed model is on its way.
        swapped_from: hash of the task before, where its worker goes on with that while it tries the new model.
    """

    row: TaskRow
    worker: str = ""
    service: str = ""
    plan: Task | None = None
    artefact: Artefact | None = None
    versions: ServingTask | None = None
    artefacts: dict[str, Artefact] = field(default_factory=dict)
    task: Task | ServingTask | None = None
    swapped_from: str = ""
    settings: ServiceSettings | None = None
    source: DatasetSource | None = None
    count: DatasetCount | None = None
    problem: SpecProblem | None = None

    @property
    def wanted(self) -> list[Artefact]:
        """All that has to be fetched."""
        return [*([self.artefact] if self.artefact is not None else ()), *self.artefacts.values()]

    @property
    def is_awaited(self) -> bool:
        """Whether its worker is told nothing only because what it needs is not here yet."""
        return (self.plan or self.versions) is not None and self.task is None

    @property
    def is_current(self) -> bool:
        """Whether the worker is told of the service as it is, though perhaps not of its Model as that is."""
        return self.plan is None or (self.task is not None and self.task.generation == self.plan.generation)

    def settle(self, here: Here, *, former: Task | None) -> str | None:
        """Decide what the worker is told: what it was told last, until all that its task needs is here.

        Args:
            here: how far an artefact is.
            former: what the worker was told by an earlier run of this process.

        Returns:
            The cache's name of its model, "" for one that is not in it; None where there is nothing to take down.
        """
        if self.versions is not None:
            self.task = serving.prepared(self.versions, self.artefacts, here) or self.task
        if self.plan is None:
            return None
        if self.missing(here) is not None:
            last = self.task if isinstance(self.task, Task) else former
            self._tell(last if last is not None and last.service == self.service else None)
            return None
        found = None if self.artefact is None else here(self.artefact)
        self._tell(self.plan if found is None else models.prepared(self.plan, found))
        return "" if found is None else found.key

    def _tell(self, task: Task | None) -> None:
        if isinstance(self.task, Task) and task is not None and self.task.hash != task.hash:
            is_same = self.task.generation == task.generation and is_swap(self.task, task)
            self.swapped_from = self.task.hash if is_same else ""
        self.task = task

    def missing(self, here: Here) -> Preparation | None:
        """Return how far a task's model is while it is not here, else None."""
        if self.versions is not None:
            return serving.missing_target(self.versions, self.artefacts, here)
        found = here(self.artefact) if self.artefact is not None else None
        return found if found is not None and found.status != "ready" else None

    def on_its_way(self, here: Here) -> tuple[str, str] | None:
        """Return reason and message while a task's model is not here, else None."""
        found = self.missing(here)
        if found is None:
            return None
        if self.versions is not None:
            return serving.on_its_way(self.versions, found)
        return None if self.plan is None else models.on_its_way(self.plan.model, found)


def planned(uid: str, row: TaskRow, old: Running | None) -> Running:
    """Return a desired task, with what this node needs to run it or the reason why it cannot.

    Args:
        uid: of the resource.
        row: the task.
        old: what was made of the row before.
    """
    one = Running(row=row)
    try:
        if row.kind == spec.DATASET:
            one.source = spec.dataset_source(row)
            one.count = old.count if old is not None and old.source == one.source else None
        elif row.kind == spec.SERVICE:
            one.worker, one.service = spec.worker_of(row), spec.service_of(row)
            # The samples are kept even where the task cannot run: its settings come first.
            one.settings = spec.relay_settings(row)
            one.plan = spec.edge_task(uid, row)
            one.artefact = models.artefact_of(one.plan.model)
            if old is not None and old.service == one.service:
                one.task, one.swapped_from = old.task, old.swapped_from
        elif row.kind == spec.SERVED:
            one.worker, one.service = spec.worker_of(row), spec.service_of(row)
            one.task = old.task if old is not None and old.service == one.service else None
            one.versions = spec.served_task(uid, row)
            one.artefacts = serving.artefacts_of(one.versions)
        else:
            one.problem = SpecProblem(f"kind {row.kind} is not known here", reason="KindUnknown")
    except SpecProblem as problem:
        logger.warning("task cannot run", extra={"kind": row.kind, "task": row.name, "problem": str(problem)})
        one.problem = problem
        if one.settings is None and one.service and old is not None:
            one.settings = old.settings
        elif one.settings is None and one.service and row.kind == spec.SERVICE:
            one.settings = ServiceSettings(worker=one.worker)
    return one
