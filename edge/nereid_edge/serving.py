# SPDX-License-Identifier: Apache-2.0
"""An InferenceModel's versions on this node: what of them has to be fetched, and what its worker is told. No I/O.

A worker is told of a version once its file is here; of another target not before that one is.
"""

from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from nereid_edge.preparing import Artefact, Preparation, is_elsewhere
from nereid_shared.messages import MODEL_FETCHING, ModelOutput, ServedVersion, ServingTask
from nereid_shared.serving import sealed

Here = Callable[[Artefact], Preparation]
"""Returns how far an artefact is."""


def artefacts_of(plan: ServingTask) -> dict[str, Artefact]:
    """Return what is to be fetched, by version; a file of this node is used in place."""
    return {
        one.version: Artefact(one.url, one.sha256, companions=True) for one in plan.versions if is_elsewhere(one.url)
    }


def prepared(plan: ServingTask, artefacts: Mapping[str, Artefact], here: Here) -> ServingTask | None:
    """Return the task with the files of those versions that are here; None while the target is not."""
    if missing_target(plan, artefacts, here) is not None:
        return None
    versions: list[ServedVersion] = []
    for one in plan.versions:
        found = here(artefacts[one.version]) if one.version in artefacts else None
        if found is None or found.status == "ready":
            versions.append(one if found is None else replace(one, path=found.path))
    return sealed(replace(plan, versions=versions))


def missing_target(plan: ServingTask, artefacts: Mapping[str, Artefact], here: Here) -> Preparation | None:
    """Return how far the target's file is while it is not here, else None."""
    found = here(artefacts[plan.target]) if plan.target in artefacts else None
    return found if found is not None and found.status != "ready" else None


def on_its_way(plan: ServingTask, found: Preparation) -> tuple[str, str]:
    """Return reason and message while the target is not here."""
    verb = "is fetched" if found.reason == MODEL_FETCHING else "cannot be had"
    return found.reason, f"version {plan.target} {verb}: {found.message}"


def outputs(
    plan: ServingTask, artefacts: Mapping[str, Artefact], here: Here, said: Sequence[ModelOutput]
) -> list[ModelOutput]:
    """Return what is told of the versions: the worker's word, and how far those are that it was not told of."""
    told = {(one.version, one.url) for one in said}
    lacking = [
        ModelOutput(
            name=plan.model_name, version=one.version, format=plan.framework, url=one.url, status=found.status,
            reason=found.reason, message=found.message,
        )
        for one in plan.versions
        if (one.version, one.url) not in told and one.version in artefacts
        for found in (here(artefacts[one.version]),)
        if found.status != "ready"
    ]  # fmt: skip
    return [*said, *lacking]
