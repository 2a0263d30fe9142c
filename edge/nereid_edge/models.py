# SPDX-License-Identifier: Apache-2.0
"""A task's model: what of it has to be fetched, the task once it is here, and what is told of it. No I/O."""

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from nereid_edge.preparing import Artefact, Preparation, is_elsewhere
from nereid_shared.digests import sealed
from nereid_shared.messages import MODEL_FETCHING, MODEL_SWAPPING, ROLLED_BACK, ModelOutput, Task, TaskModel, TaskRow


def artefact_of(model: TaskModel) -> Artefact | None:
    """Return what is to be fetched for a model; None for a file of this node, which is used in place."""
    return Artefact(model.url, model.sha256, companions=True) if is_elsewhere(model.url) else None


def prepared(task: Task, found: Preparation) -> Task:
    """Return a task with its model's file named."""
    return sealed(replace(task, model=replace(task.model, path=found.path)))


def generation_of(row: TaskRow, model: TaskModel) -> int:
    """Return the generation of the Model as it was resolved for this node."""
    generation = ((row.refs.get("models") or {}).get(model.name) or {}).get("generation")
    return generation if isinstance(generation, int) and generation > 0 else 0


def outputs(
    model: TaskModel, said: Sequence[ModelOutput], found: Preparation | None, *, generation: int
) -> list[ModelOutput]:
    """Return what is told of a task's models: what serves first, then what shall, where that is another.

    Args:
        model: the one that the task names now.
        said: what the worker says of its models.
        found: how far the file is; None for one that is used in place.
        generation: of the Model.
    """
    wanted: dict[str, Any] = {"format": model.format, "url": model.url, "name": model.name, "generation": generation}
    told = [replace(one, generation=generation) if _is_of(one, model) else one for one in said]
    if found is None:
        return told or [ModelOutput(**wanted, digest=model.sha256)]
    if found.status != "ready":
        others = [one for one in told if not _is_of(one, model) or one.status]
        return [*others, ModelOutput(**wanted, status=found.status, reason=found.reason, message=found.message)]
    here = ModelOutput(**wanted, status="ready", digest=found.digest, bytes=found.bytes)
    if any(_is_of(one, model) and (one.digest == found.digest or one.status == "failed") for one in told):
        return told
    others = [one for one in told if one.status]
    if not others:
        return [here]
    return [*others, replace(here, status="fetching", reason=MODEL_SWAPPING, message="it is here; its worker tries it")]


def is_found_wrong(model: TaskModel, said: Sequence[ModelOutput]) -> bool:
    """Whether a worker has tried a model in vain; one that ended with its process is no better for being fetched."""
    return any(_is_of(one, model) and one.status == "failed" and one.reason != ROLLED_BACK for one in said)


def on_its_way(model: TaskModel, found: Preparation) -> tuple[str, str]:
    """Return reason and message while a model is not here."""
    verb = "is fetched" if found.reason == MODEL_FETCHING else "cannot be had"
    return found.reason, f"model {model.name} {verb}: {found.message}"


def _is_of(one: ModelOutput, model: TaskModel) -> bool:
    return (one.name, one.url) == (model.name, model.url)
