# SPDX-License-Identifier: Apache-2.0
"""From a desired task, in the API's camelCase, to what the LC and the worker run.

Reads the specs as dictionaries: the resources' models would double what the LC keeps in memory, and the API has
validated them. What is not as it should be becomes a reason on the task, never a crash.
"""

from collections.abc import Mapping
from typing import Any, Final

from nereid_edge.dataset_files import DatasetSource
from nereid_edge.rows import OutboxPolicy
from nereid_edge.service import ServiceSettings
from nereid_shared import kinds, serving
from nereid_shared.defaults import CLASSIFY, DEADLINE
from nereid_shared.digests import sealed
from nereid_shared.errors import MessageInvalid, PermanentError
from nereid_shared.kinds import INFERENCE_MODEL, JOINT_INFERENCE_SERVICE
from nereid_shared.messages import ServingTask, Task, TaskDataset, TaskModel, TaskRow, TaskRule
from nereid_shared.quantities import duration_s, size_bytes

SERVICE: Final = JOINT_INFERENCE_SERVICE.kind
DATASET: Final = kinds.DATASET.kind
SERVED: Final = INFERENCE_MODEL.kind
PLURALS: Final = {kind.kind: kind.plural for kind in (JOINT_INFERENCE_SERVICE, kinds.DATASET, INFERENCE_MODEL)}


class SpecProblem(PermanentError):
    """A task that this node cannot run.

    Attributes:
        reason: a CamelCase word for the task's state and status.
    """

    def __init__(self, message: str, *, reason: str = "SpecInvalid") -> None:
        self.reason = reason
        super().__init__(message)


def worker_of(row: TaskRow) -> str:
    """Return the name of the worker's Pod on this node."""
    return _text(row.refs, "worker", "refs")


def service_of(row: TaskRow) -> str:
    """Return the service's identity on topics."""
    return _text(row.refs, "service", "refs")


def edge_task(uid: str, row: TaskRow) -> Task:
    """Return what the edge worker runs.

    Its `hash` covers what the worker reads: a change elsewhere, such as the cloud's replicas, restarts nothing.

    Raises:
        SpecProblem: a field is missing or malformed, or what it names is not in the task's refs.
    """
    edge = _part(row.spec or {}, "edgeWorker", "spec")
    worker = _part(edge, "workerSpec", "spec.edgeWorker")
    try:
        task = Task(
            uid=uid,
            service=service_of(row),
            role="edge",
            kind=row.kind,
            namespace=row.namespace,
            name=row.name,
            generation=row.generation,
            hash="",
            model=_model(row, _text(_part(edge, "model", "spec.edgeWorker"), "name", "spec.edgeWorker.model")),
            script_dir=worker.get("scriptDir") or "",
            script_boot_file=worker.get("scriptBootFile") or CLASSIFY,
            parameters=_parameters(worker, "spec.edgeWorker.workerSpec"),
            rule=_rule(edge),
            dataset=_dataset(row, edge),
            deadline_s=_duration(edge, "deadline", DEADLINE),
        ).checked()
    except MessageInvalid as error:
        raise SpecProblem(str(error)) from error
    return sealed(task)


def served_task(uid: str, row: TaskRow) -> ServingTask:
    """Return what a serving worker serves, with its files where the spec says.

    Raises:
        SpecProblem: a field is missing or malformed.
    """
    where = {"namespace": row.namespace, "name": row.name}
    try:
        return serving.serving_task(row.spec or {}, uid=uid, generation=row.generation, **where)
    except KeyError as error:
        raise SpecProblem(f"spec.{error.args[0]} is missing") from error
    except (TypeError, ValueError, AttributeError, MessageInvalid) as error:
        raise SpecProblem(f"spec: {error}") from error


def relay_settings(row: TaskRow) -> ServiceSettings:
    """Return what the relay needs of a service.

    Raises:
        SpecProblem: as in `edge_task`.
    """
    edge = _part(row.spec or {}, "edgeWorker", "spec")
    box = edge.get("outbox") or {}
    known = OutboxPolicy()
    try:
        rate = box.get("maxBytesPerSecond")
        policy = OutboxPolicy(
            keep_for_s=duration_s(box["keepFor"]) if "keepFor" in box else known.keep_for_s,
            max_bytes=_size(box["maxBytes"]) if "maxBytes" in box else known.max_bytes,
            max_samples=int(box.get("maxSamples", known.max_samples)),
            max_bytes_per_s=None if rate is None else _size(rate),
            max_attempts=int(box.get("maxAttempts", known.max_attempts)),
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise SpecProblem(f"spec.edgeWorker.outbox: {error}") from error
    return ServiceSettings(worker=worker_of(row), deadline_s=_duration(edge, "deadline", DEADLINE), policy=policy)


def dataset_source(row: TaskRow) -> DatasetSource:
    """Return what the monitor watches for a Dataset task.

    Raises:
        SpecProblem: as in `edge_task`.
    """
    found = row.spec or {}
    return DatasetSource(url=_text(found, "dataUrl", "spec"), format=_text(found, "format", "spec"))


def _model(row: TaskRow, name: str) -> TaskModel:
    spec = _named(row, "models", name, reason="ModelNotFound")
    return TaskModel(
        name=name, url=_text(spec, "modelUrl", f"refs.models.{name}.spec"), format=spec.get("format") or "",
        sha256=spec.get("sha256") or "",
    )  # fmt: skip


def _dataset(row: TaskRow, edge: Mapping[str, Any]) -> TaskDataset | None:
    wanted = edge.get("dataset")
    if not wanted:
        return None
    found = _part(row.refs, "datasets", "refs") if row.refs.get("datasets") else {}
    name = wanted.get("name") or next(iter(sorted(found)), None)
    if name is None:
        raise SpecProblem("no dataset with these labels on this node", reason="DatasetNotFound")
    spec = _named(row, "datasets", name, reason="DatasetNotFound")
    where = f"refs.datasets.{name}.spec"
    return TaskDataset(name=name, url=_text(spec, "dataUrl", where), format=_text(spec, "format", where))


def _rule(edge: Mapping[str, Any]) -> TaskRule | None:
    rule = edge.get("hardExampleAlgorithm")
    if not rule:
        return None
    where = "spec.edgeWorker.hardExampleAlgorithm"
    return TaskRule(name=_text(rule, "name", where), parameters=_parameters(rule, where), budget=rule.get("budget"))


def _named(row: TaskRow, kind: str, name: str, *, reason: str) -> Mapping[str, Any]:
    found = row.refs.get(kind) or {}
    if name not in found:
        raise SpecProblem(f"{kind[:-1]} {name!r} is not there", reason=reason)
    return _part(_part(found, name, f"refs.{kind}"), "spec", f"refs.{kind}.{name}")


def _parameters(holder: Mapping[str, Any], where: str) -> dict[str, str]:
    try:
        return {str(one["key"]): str(one["value"]) for one in holder.get("parameters") or ()}
    except (KeyError, TypeError) as error:
        raise SpecProblem(f"{where}.parameters: each has a key and a value") from error


def _duration(holder: Mapping[str, Any], field: str, default: str) -> float:
    text = holder.get(field)
    try:
        return duration_s(default if text is None else text)
    except (TypeError, ValueError) as error:
        raise SpecProblem(f"spec.edgeWorker.{field}: {error}") from error


def _size(value: object) -> int:
    return value if isinstance(value, int) else size_bytes(str(value))


def _part(holder: Mapping[str, Any], field: str, where: str) -> Mapping[str, Any]:
    part = holder.get(field)
    if not isinstance(part, dict):
        raise SpecProblem(f"{where}.{field} is missing")
    return part


def _text(holder: Mapping[str, Any], field: str, where: str) -> str:
    text = holder.get(field)
    if not isinstance(text, str) or not text:
        raise SpecProblem(f"{where}.{field} is missing")
    return text
