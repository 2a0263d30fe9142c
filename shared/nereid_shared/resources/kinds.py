# SPDX-License-Identifier: Apache-2.0
"""The kinds: how the API addresses each, what kubectl prints of it, and the rules that it is held to."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

from pydantic import ValidationError

from nereid_shared.errors import FieldCause, Invalid
from nereid_shared.resources.data import Dataset, Model
from nereid_shared.resources.jointinference import JointInferenceService
from nereid_shared.resources.parts import Part, Resource
from nereid_shared.resources.rules import Rule, broken

CATEGORY: Final = "nereid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One printer column."""

    name: str
    type: Literal["string", "integer", "date"]
    json_path: str
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceKind:
    """A kind with its names and columns.

    Attributes:
        model: the pydantic model; its ``spec`` and ``status`` become the schema.
        columns: the seeds' own first, in the seeds' order.
    """

    group: str
    version: str
    kind: str
    plural: str
    short_names: tuple[str, ...] = ()
    columns: tuple[Column, ...]
    model: type[Resource]

    @property
    def singular(self) -> str:
        """The name of one."""
        return self.kind.lower()

    @property
    def api_version(self) -> str:
        """The manifest's ``apiVersion``."""
        return f"{self.group}/{self.version}"


_READY = (
    Column(
        name="Ready",
        type="string",
        description="Whether it does its work now",
        json_path='.status.conditions[?(@.type=="Ready")].status',
    ),
    Column(
        name="Reason",
        type="string",
        description="Why it is, or is not, ready",
        json_path='.status.conditions[?(@.type=="Ready")].reason',
    ),
)

DATASET: Final = ResourceKind(
    group="edgeai.io",
    version="v1alpha1",
    kind="Dataset",
    plural="datasets",
    columns=(
        Column(
            name="NumberOfSamples",
            type="integer",
            description="The number of samples in the dataset",
            json_path=".status.numberOfSamples",
        ),
        Column(name="Node", type="string", description="The node name of the dataset", json_path=".spec.nodeName"),
        Column(name="spec", type="string", description="The spec of the dataset", json_path=".spec"),
        *_READY,
    ),
    model=Dataset,
)

# Models have no controller (seed 1), hence no conditions to show.
MODEL: Final = ResourceKind(
    group="edgeai.io",
    version="v1alpha1",
    kind="Model",
    plural="models",
    columns=(
        Column(name="updateAGE", type="date", description="The update age", json_path=".status.updateTime"),
        Column(name="metrics", type="string", description="The metrics", json_path=".status.metrics"),
    ),
    model=Model,
)

JOINT_INFERENCE_SERVICE: Final = ResourceKind(
    group="neptune.io",
    version="v1alpha1",
    kind="JointInferenceService",
    plural="jointinferenceservices",
    short_names=("jointinferenceservice", "jis"),
    columns=(
        Column(
            name="status",
            type="string",
            description="The status of the jointinference service",
            json_path=".status.conditions[-1].type",
        ),
        Column(name="active", type="integer", description="The number of active worker", json_path=".status.active"),
        Column(name="failed", type="integer", description="The number of failed worker", json_path=".status.failed"),
        Column(name="Age", type="date", json_path=".metadata.creationTimestamp"),
        *_READY,
    ),
    model=JointInferenceService,
)

KINDS: Final[Mapping[str, ResourceKind]] = MappingProxyType(
    {kind.kind: kind for kind in (DATASET, MODEL, JOINT_INFERENCE_SERVICE)}
)


def rules_of(kind: str) -> list[Rule]:
    """Return the rules of a kind with paths from the object's root; none for a kind that is not ours."""
    return list(_rules_under("", KINDS[kind].model)) if kind in KINDS else []


def _rules_under(path: str, model: type[Part]) -> Iterator[Rule]:
    for rule in model.rules:
        yield rule._replace(path=".".join(filter(None, (path, rule.path))))
    for name, field in model.model_fields.items():
        for part in _models_in(field.annotation):
            yield from _rules_under(".".join(filter(None, (path, field.alias or name))), part)


def _models_in(annotation: Any) -> Iterator[type[Part]]:
    """Yield the models of a field that is a model or an optional one; rules reach into lists by CEL's own macros."""
    candidates = (annotation, *getattr(annotation, "__args__", ()))
    if getattr(annotation, "__origin__", None) is not list:
        yield from (part for part in candidates if isinstance(part, type) and issubclass(part, Part))


def broken_rules(kind: str, obj: Mapping[str, Any], old: Mapping[str, Any] | None = None) -> tuple[FieldCause, ...]:
    """Return one cause per rule that the object breaks.

    Args:
        kind: the object's kind.
        obj: the object, of a valid schema and with its defaults filled in.
        old: the object that it replaces, at an update.
    """
    return tuple(FieldCause(field=r.path, message=r.message) for r in broken(iter(rules_of(kind)), obj, old))


def parse(obj: Mapping[str, Any]) -> Resource:
    """Return a custom resource as its model.

    Raises:
        Invalid: it is not of a known kind, not of its schema, or breaks a rule.
    """
    known = KINDS.get(str(obj.get("kind")))
    if known is None or obj.get("apiVersion") != known.api_version:
        what = f"{obj.get('apiVersion')}/{obj.get('kind')}"
        raise Invalid(what, (FieldCause(field="kind", message=f"{what} is not a kind of Nereid's"),))
    name = f"{known.kind} {(obj.get('metadata') or {}).get('name', '')!r}"
    try:
        resource = known.model.model_validate(obj)
    except ValidationError as error:
        raise Invalid(name, tuple(_cause(detail["loc"], detail["msg"]) for detail in error.errors())) from error
    if causes := broken_rules(known.kind, obj):
        raise Invalid(name, causes)
    return resource


def _cause(location: tuple[int | str, ...], message: str) -> FieldCause:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return FieldCause(field=path.removeprefix("."), message=message)
