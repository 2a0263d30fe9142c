# SPDX-License-Identifier: Apache-2.0
"""Rules that a schema alone cannot say: each a CEL text for an API server beside a predicate with the same verdict.

The predicate is what a LocalCluster runs. A rule speaks only where its field is present, and a rule that reads
``oldSelf`` only at an update where the field was present before, as in Kubernetes.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from nereid_shared.quantities import DURATION_PATTERN, duration_s, matches


class Rule(NamedTuple):
    """One rule of a field.

    Attributes:
        path: the field; within a model's ``rules`` relative to it, "" for the model itself.
        cel: the text for ``x-kubernetes-validations``.
        message: why the field is refused and what to write instead.
        holds: predicate(self, oldSelf) over plain values as JSON has them.
    """

    path: str
    cel: str
    message: str
    holds: Callable[[Any, Any], bool]

    @property
    def is_transition(self) -> bool:
        """Whether the rule compares with the former value."""
        return "oldSelf" in self.cel


_MISSING = object()


def broken(rules: Iterator[Rule], obj: Mapping[str, Any], old: Mapping[str, Any] | None) -> Iterator[Rule]:
    """Yield the rules that the object breaks; `old` is what it replaces."""
    for rule in rules:
        now = _at(obj, rule.path)
        before = _MISSING if old is None else _at(old, rule.path)
        if now is _MISSING or (rule.is_transition and before is _MISSING):
            continue
        if not rule.holds(now, None if before is _MISSING else before):
            yield rule


def _at(obj: Any, path: str) -> Any:
    for part in path.split("."):
        if not isinstance(obj, Mapping) or obj.get(part) is None:
            return _MISSING
        obj = obj[part]
    return obj


def exactly_one_of(first: str, second: str) -> Rule:
    """Make the rule of a model that has one of two fields, never both or none."""
    return Rule(
        "",
        f"has(self.{first}) != has(self.{second})",
        f"exactly one of {first} and {second} must be set",
        lambda value, _: (value.get(first) is None) != (value.get(second) is None),
    )


def immutable(field: str, *, mend: str) -> Rule:
    """Make the rule of a field that never changes."""
    return Rule(field, "self == oldSelf", f"{field} is immutable: {mend}", lambda value, old: bool(value == old))


def duration_between(field: str, low: str, high: str) -> Rule:
    """Make the rule of a duration with bounds, both allowed; the pattern is the schema's."""

    def holds(value: Any, _: Any) -> bool:
        if not matches(DURATION_PATTERN, value):
            return True
        return duration_s(low) <= duration_s(value) <= duration_s(high)

    # A pattern that does not match is no blocking error for CEL: without the guard duration() would raise on top of it.
    guard = f"!self.matches({cel_text(DURATION_PATTERN)})"
    bounds = f"(duration(self) >= duration('{low}') && duration(self) <= duration('{high}'))"
    return Rule(field, f"{guard} || {bounds}", f"{field} must be between {low} and {high}", holds)


def path_or_url(field: str) -> Rule:
    """Make the rule of a place: an absolute path on the node, or a URL; a ``file://`` names no other host."""
    return Rule(
        field,
        "self.startsWith('/') || self.startsWith('file:///') || self.startsWith('file://localhost/') || "
        "(self.contains('://') && !self.startsWith('file:'))",
        f"{field} must be an absolute path on the node, or a URL such as https://host/file or file:///path",
        lambda value, _: (
            value.startswith(("/", "file:///", "file://localhost/"))
            or ("://" in value and not value.startswith("file:"))
        ),
    )


def distinct_keys(field: str) -> Rule:
    """Make the rule of a list of {key, value} in which no key comes twice."""
    return Rule(
        field,
        "self.all(p, self.exists_one(q, q.key == p.key))",
        f"each key in {field} must be there only once",
        lambda value, _: len({p["key"] for p in value}) == len(value),
    )


def cel_text(text: str) -> str:
    """Return a CEL string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def cel_list(texts: Iterator[str] | list[str] | tuple[str, ...]) -> str:
    """Return a CEL list literal of strings."""
    return "[" + ", ".join(cel_text(text) for text in texts) + "]"
