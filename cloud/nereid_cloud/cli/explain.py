# SPDX-License-Identifier: Apache-2.0
"""``nereid explain``: what a kind's fields are, from the definitions' own descriptions."""

import sys
import textwrap
from collections.abc import Iterator
from typing import Annotated, Any, Final

import typer

from nereid_cloud.cli.targets import kind_by_word
from nereid_cloud.cluster.kinds import CATEGORIES
from nereid_cloud.cluster.port import Kind
from nereid_shared.errors import UserError
from nereid_shared.kinds import CATEGORY

_WIDTH: Final = 100
_INDENT: Final = "  "
_BOUNDS: Final = (
    "default", "enum", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems",
)  # fmt: skip


def explain(
    path: Annotated[str, typer.Argument(help="KIND or KIND.field.field, such as jis.spec.edgeWorker.")],
    recursive: Annotated[bool, typer.Option("--recursive", help="Name all fields below, without their texts.")] = False,
) -> None:
    """Say what the fields of a kind are."""
    word, *fields = path.split(".")
    kind = kind_by_word(word)
    node = _node(kind, fields)
    sys.stdout.writelines(f"{line}\n" for line in _explanation(kind, fields, node, recursive=recursive))


def _node(kind: Kind, fields: list[str]) -> dict[str, Any]:
    from nereid_cloud.definitions import schema_of  # noqa: PLC0415 - `nereid --help` reads no definitions

    schema = schema_of(kind.resource)
    if schema is None:
        known = ", ".join(each.plural for each in CATEGORIES[CATEGORY])
        raise UserError(
            f"{kind.plural} are Kubernetes' own",
            where="KIND",
            mend=f"Those explained here are {known}; else: kubectl explain",
        )
    node: dict[str, Any] = schema
    for number, field in enumerate(fields):
        below = _below(node)
        if field not in below:
            where = ".".join([kind.kind, *fields[:number]])
            there = f"There are {', '.join(sorted(below))}" if below else "It has no fields of its own"
            raise UserError(f"there is no field {field!r}", where=where, mend=there)
        node = below[field]
    return node


def _below(node: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = (node.get("items") or node).get("properties") or {}
    return found


def _explanation(kind: Kind, fields: list[str], node: dict[str, Any], *, recursive: bool) -> Iterator[str]:
    yield f"KIND:     {kind.kind}"
    yield f"VERSION:  {kind.api_version}"
    if fields:
        yield f"FIELD:    {'.'.join(fields)} <{_type(node)}>"
    yield ""
    if text := _text(node):
        yield from (*_wrapped(text, ""), "")
    if below := _below(node):
        yield "FIELDS:"
        required = (node.get("items") or node).get("required") or ()
        yield from _fields(below, required, _INDENT, recursive=recursive)


def _fields(below: dict[str, Any], required: Any, indent: str, *, recursive: bool) -> Iterator[str]:
    for name, child in below.items():
        yield f"{indent}{name} <{_type(child)}>{' -required-' if name in required else ''}"
        if recursive:
            inner = child.get("items") or child
            yield from _fields(_below(child), inner.get("required") or (), indent + _INDENT, recursive=True)
        elif text := _text(child):
            yield from _wrapped(text, indent + _INDENT)


def _type(node: dict[str, Any]) -> str:
    kind = node.get("type", "any")
    if kind == "array":
        return f"[]{_type(node.get('items') or {})}"
    if isinstance(node.get("additionalProperties"), dict):
        return f"map[string]{_type(node['additionalProperties'])}"
    return str(kind)


def _text(node: dict[str, Any]) -> str:
    """Return a field's description, then its bounds, then the rules that it is held to."""
    bounds = [f"{name}: {_shown(node[name])}" for name in _BOUNDS if name in node]
    rules = [str(rule["message"]) for rule in node.get("x-kubernetes-validations") or ()]
    parts = (str(node.get("description", "")), "; ".join(bounds), "; ".join(rules))
    return "\n".join(part for part in parts if part)


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _wrapped(text: str, indent: str) -> Iterator[str]:
    for line in text.splitlines():
        yield from textwrap.wrap(line, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False)
