# SPDX-License-Identifier: Apache-2.0
"""The kinds with their models, and the rules that each is held to."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from pydantic import ValidationError

from nereid_shared.errors import FieldCause, Invalid
from nereid_shared.kinds import (
    CATEGORY,
    DATASET,
    INFERENCE_MODEL,
    JOINT_INFERENCE_SERVICE,
    KINDS,
    MODEL,
    Column,
    ResourceKind,
)
from nereid_shared.resources.data import Dataset, Model
from nereid_shared.resources.inferencemodel import InferenceModel
from nereid_shared.resources.jointinference import JointInferenceService
from nereid_shared.resources.parts import Part, Resource
from nereid_shared.resources.rules import Rule, broken

__all__ = [
    "CATEGORY", "DATASET", "INFERENCE_MODEL", "JOINT_INFERENCE_SERVICE", "KINDS", "MODEL", "MODELS", "Column",
    "ResourceKind", "broken_rules", "parse", "rules_of",
]  # fmt: skip

MODELS: Final[Mapping[str, type[Resource]]] = MappingProxyType(
    {
        DATASET.kind: Dataset,
        MODEL.kind: Model,
        JOINT_INFERENCE_SERVICE.kind: JointInferenceService,
        INFERENCE_MODEL.kind: InferenceModel,
    }
)
"""The pydantic model of each kind; its ``spec`` and ``status`` become the schema."""


def rules_of(kind: str) -> list[Rule]:
    """Return the rules of a kind with paths from the object's root; none for a kind that is not ours."""
    return list(_rules_under("", MODELS[kind])) if kind in MODELS else []


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
        resource = MODELS[known.kind].model_validate(obj)
    except ValidationError as error:
        raise Invalid(name, tuple(_cause(detail["loc"], detail["msg"]) for detail in error.errors())) from error
    if causes := broken_rules(known.kind, obj):
        raise Invalid(name, causes)
    return resource


def _cause(location: tuple[int | str, ...], message: str) -> FieldCause:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return FieldCause(field=path.removeprefix("."), message=message)
