# SPDX-License-Identifier: Apache-2.0
"""What one node has of a model, from its words, and what all of that comes to; no I/O, no clock."""

from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple

from nereid_cloud.cluster.port import Object
from nereid_cloud.gm.conditions import NODE_OFFLINE
from nereid_shared.messages import MODEL_FETCHING, NO_GOLDEN_SAMPLES, ModelOutput, TaskStatus, WorkerInfo

Said = tuple[str, str, str]
"""Ready's status, reason and message."""

NOT_USED: Final = "NotUsed"
NOT_PLACED: Final = "NotPlaced"
NOT_REPORTED: Final = "NotReported"
DIGESTS_DIFFER: Final = "DigestsDiffer"
PASSING: Final = frozenset({NOT_PLACED, NOT_REPORTED})
"""Reasons that stand between two others for a moment, and make no Event."""
ROUTINE: Final = frozenset({NOT_USED, MODEL_FETCHING, *PASSING})

_LACKS: Final = {"ready": 0, "offline": 1, "pending": 2, "failed": 3}


class ModelPlace(NamedTuple):
    """A model on one node.

    Attributes:
        state: ``offline`` where nobody can tell; ``pending`` while it comes, or where nothing was said of it.
        reason: one CamelCase word; where it is ready, what is to be known of it all the same.
    """

    node: str
    state: Literal["ready", "pending", "failed", "offline"]
    reason: str = ""
    message: str = ""
    digest: str = ""
    bytes: int = 0

    @property
    def lacks(self) -> int:
        """How far it is from being ready."""
        return _LACKS[self.state]


def on_node(model: Object, node: str, *, absence: str, status: TaskStatus | None) -> ModelPlace:
    """Judge the model of an edge worker by what its LocalController says.

    Args:
        model: the Model.
        node: the edge worker's node.
        absence: why the LocalController cannot be observed, "" where it can.
        status: the last status of the service's task on that node.
    """
    if absence:
        return ModelPlace(node, "offline", NODE_OFFLINE, absence)
    output = status.output if status is not None else None
    return _place(node, _found(model, output.models if output is not None else ()))


def in_cloud(model: Object, node: str, *, is_there: bool, infos: Iterable[WorkerInfo]) -> ModelPlace:
    """Judge the model of a service's cloud workers, which are on one node, by what they say themselves."""
    if not is_there:
        return ModelPlace(node, "offline", NODE_OFFLINE, "the Node is not Ready")
    places = [_place(node, _found(model, info.models)) for info in infos if info.status != "offline"]
    return max(places, key=lambda place: place.lacks) if places else _place(node, None)


def judge(places: Sequence[ModelPlace], *, is_named: bool) -> Said:
    """Return what a Model's Ready says; `is_named`: whether a service names it, on nodes or not yet."""
    if not places and is_named:
        return "Unknown", NOT_PLACED, "a service names it, and runs on no node"
    if not places:
        return "Unknown", NOT_USED, "no service names it: no node has fetched or tried it"
    count = f"ready on {sum(place.state == 'ready' for place in places)} of {len(places)} nodes"
    worst = max(places, key=lambda place: (place.lacks, place.reason == MODEL_FETCHING))
    if worst.state == "ready":
        return _all_ready(places, count)
    alike = [place for place in places if (place.state, place.reason) == (worst.state, worst.reason)]
    more = f" (and {len(alike) - 1} more)" if len(alike) > 1 else ""
    status = "Unknown" if worst.state == "offline" else "False"
    return status, worst.reason, f"{count}; {alike[0].node}: {alike[0].message or worst.reason}{more}"


def _all_ready(places: Sequence[ModelPlace], count: str) -> Said:
    digests = sorted({place.digest for place in places if place.digest})
    if len(digests) > 1:
        those = " and ".join(digest[:12] for digest in digests[:2])
        return "True", DIGESTS_DIFFER, f"{count}, with different files ({those}): give its sha256"
    if any(place.reason == NO_GOLDEN_SAMPLES for place in places):
        return "True", NO_GOLDEN_SAMPLES, f"{count}, untried: its card names no golden inputs"
    return "True", "Ready", count


def _found(model: Object, outputs: Sequence[ModelOutput]) -> ModelOutput | None:
    """Return what is said of the model as its spec has it now."""
    metadata, spec = model["metadata"], model["spec"]
    sha256, generation = spec.get("sha256") or "", metadata.get("generation", 0)
    for one in reversed(outputs):
        if one.name != metadata["name"] or one.url != spec["modelUrl"]:
            continue
        # A file with the right digest is the right one, whenever it came; a failure may be that of the former spec.
        if (one.digest == sha256 or not sha256) if one.status == "ready" else one.generation in {0, generation}:
            return one
    return None


def _place(node: str, said: ModelOutput | None) -> ModelPlace:
    if said is None or not said.status:
        return ModelPlace(node, "pending", NOT_REPORTED, "the node has not spoken of it as it is now")
    if said.status == "ready":
        return ModelPlace(node, "ready", said.reason, said.message, said.digest, said.bytes)
    if said.status == "fetching":
        return ModelPlace(node, "pending", MODEL_FETCHING, said.message)
    return ModelPlace(node, "failed", said.reason or "ModelUnavailable", said.message)
