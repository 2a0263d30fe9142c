# SPDX-License-Identifier: Apache-2.0
"""Label and field selectors in Kubernetes' grammar, as predicates over objects."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from nereid_shared.errors import FieldCause, Invalid

Predicate = Callable[[Mapping[str, Any]], bool]

_KEY: Final = r"[A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9])?"
_VALUE: Final = r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
_EXISTS: Final = re.compile(rf"(?P<absent>!\s*)?(?P<key>{_KEY})")
_EQUALS: Final = re.compile(rf"(?P<key>{_KEY})\s*(?P<op>==|=|!=)\s*(?P<value>{_VALUE})")
_SET: Final = re.compile(rf"(?P<key>{_KEY})\s+(?P<op>in|notin)\s*\((?P<values>[^()]*)\)")
# A comma inside the parentheses of `in (a, b)` separates values, not requirements.
_COMMA: Final = re.compile(r",(?![^(]*\))")

_SHARED_FIELDS: Final = ("metadata.name", "metadata.namespace")
_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "Pod": ("spec.nodeName", "spec.restartPolicy", "status.phase"),
    "Node": ("spec.unschedulable",),
    "Namespace": ("status.phase",),
    "Event": (
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "type",
    ),
}


def label_selector(text: str) -> Predicate:
    """Return the predicate of a label selector such as ``app=digits,tier in (edge, cloud),!canary``.

    Raises:
        Invalid: it does not parse.
    """
    tests = [_requirement(part.strip(), text) for part in _COMMA.split(text)] if text.strip() else []

    def matches(obj: Mapping[str, Any]) -> bool:
        labels = obj["metadata"].get("labels") or {}
        return all(test(labels) for test in tests)

    return matches


def _requirement(part: str, whole: str) -> Predicate:
    if found := _EQUALS.fullmatch(part):
        key, value = found["key"], found["value"]
        if found["op"] == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if found := _SET.fullmatch(part):
        key, values = found["key"], {value.strip() for value in found["values"].split(",")}
        if found["op"] == "notin":
            return lambda labels: labels.get(key) not in values
        return lambda labels: labels.get(key) in values
    if found := _EXISTS.fullmatch(part):
        key, absent = found["key"], bool(found["absent"])
        return lambda labels: (key in labels) != absent
    raise Invalid("label selector", (FieldCause(field="labelSelector", message=f"unable to parse {whole!r}"),))


def field_selector(text: str, kind: str) -> Predicate:
    """Return the predicate of a field selector such as ``spec.nodeName=edge-0,status.phase!=Failed``.

    Raises:
        Invalid: it does not parse, or the API cannot select this kind by such a field.
    """
    tests = [_field_requirement(part.strip(), kind) for part in text.split(",")] if text.strip() else []
    return lambda obj: all(test(obj) for test in tests)


def _field_requirement(part: str, kind: str) -> Predicate:
    found = re.fullmatch(r"(?P<path>[A-Za-z.]+)\s*(?P<op>==|=|!=)\s*(?P<value>.*)", part)
    if found is None:
        raise Invalid("field selector", (FieldCause(field="fieldSelector", message=f"unable to parse {part!r}"),))
    path, value = found["path"], found["value"]
    if path not in (*_SHARED_FIELDS, *_FIELDS.get(kind, ())):
        message = f'"{path}" is not a known field selector of {kind}'
        raise Invalid("field selector", (FieldCause(field="fieldSelector", message=message),))
    if found["op"] == "!=":
        return lambda obj: field_text(obj, path) != value
    return lambda obj: field_text(obj, path) == value


def field_text(obj: Mapping[str, Any], path: str) -> str:
    """Return the field at a dotted path as text; empty where it is absent."""
    value: Any = obj
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return ""
        value = value[part]
    return str(value).lower() if isinstance(value, bool) else str(value)
