# SPDX-License-Identifier: Apache-2.0
"""Structural schemas, as a CustomResourceDefinition holds them: unknown fields, defaults and validation.

A structural schema is a small part of JSON Schema, and defaulting needs a walk of its own; so this is one walk in the
API server's order and words rather than a validator whose messages would have to be translated.
"""

import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from nereid_shared.errors import FieldCause

Schema = Mapping[str, Any]

_TYPES: Final[Mapping[str, Callable[[Any], bool]]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
}


def unknown_fields(schema: Schema, value: Any, path: str = "") -> Iterator[FieldCause]:
    """Yield the fields that the schema does not name, each with the name that was probably meant."""
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from unknown_fields(schema.get("items", {}), item, f"{path}[{index}]")
    if not isinstance(value, dict):
        return
    properties, additional = schema.get("properties", {}), schema.get("additionalProperties")
    for key, child in value.items():
        where = _join(path, key)
        if key in properties:
            yield from unknown_fields(properties[key], child, where)
        elif isinstance(additional, Mapping):
            yield from unknown_fields(additional, child, where)
        elif additional is None:
            yield FieldCause(field=where, message=f'unknown field "{where}"{_mend(key, path, properties)}')


def _mend(key: str, path: str, properties: Schema) -> str:
    near = difflib.get_close_matches(key.lower(), {name.lower(): name for name in properties}, n=1)
    meant = [name for name in properties if near and name.lower() == near[0]]
    return f'; did you mean "{_join(path, meant[0])}"?' if meant else ""


def with_defaults(schema: Schema, value: Any) -> Any:
    """Return `value` with every default filled in; nulls that the schema does not allow count as absent."""
    if isinstance(value, list):
        return [with_defaults(schema.get("items", {}), item) for item in value]
    if not isinstance(value, dict):
        return value
    properties, additional = schema.get("properties", {}), schema.get("additionalProperties")
    result: dict[str, Any] = {}
    for key, child in value.items():
        known = properties.get(key, additional if isinstance(additional, Mapping) else None)
        if child is None and known is not None and not known.get("nullable"):
            continue
        result[key] = child if known is None else with_defaults(known, child)
    for key, known in properties.items():
        if key not in result and "default" in known:
            result[key] = with_defaults(known, known["default"])
    return result


def violations(schema: Schema, value: Any, path: str = "") -> Iterator[FieldCause]:
    """Yield what in `value` breaks the schema, in the API server's words."""
    if value is None and schema.get("nullable"):
        return
    expected = schema.get("type")
    if schema.get("x-kubernetes-int-or-string"):
        if not (_TYPES["integer"](value) or isinstance(value, str)):
            yield _wrong_type(path, value, "integer,string")
        return
    if expected and not _TYPES[expected](value):
        yield _wrong_type(path, value, expected)
        return
    allowed = schema.get("enum")
    if allowed is not None and value not in allowed:
        choices = ", ".join(_shown(choice) for choice in allowed)
        yield FieldCause(field=path, message=f"Unsupported value: {_shown(value)}: supported values: {choices}")
    if isinstance(value, dict):
        yield from _object(schema, value, path)
    elif isinstance(value, list):
        yield from _array(schema, value, path)
    elif isinstance(value, str):
        yield from _string(schema, value, path)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield from _number(schema, value, path)


def _object(schema: Schema, value: dict[str, Any], path: str) -> Iterator[FieldCause]:
    for key in schema.get("required", ()):
        if key not in value:
            yield FieldCause(field=_join(path, key), message="Required value")
    least, most = schema.get("minProperties"), schema.get("maxProperties")
    if least is not None and len(value) < least:
        yield _out_of_bounds(path, value, f"should have at least {least} properties")
    if most is not None and len(value) > most:
        yield FieldCause(field=path, message=f"Too many: {len(value)}: must have at most {most} items")
    properties, additional = schema.get("properties", {}), schema.get("additionalProperties")
    for key, child in value.items():
        known = properties.get(key, additional if isinstance(additional, Mapping) else None)
        if known is not None:
            yield from violations(known, child, _join(path, key))


def _array(schema: Schema, value: list[Any], path: str) -> Iterator[FieldCause]:
    least, most = schema.get("minItems"), schema.get("maxItems")
    if least is not None and len(value) < least:
        yield _out_of_bounds(path, value, f"should have at least {least} items")
    if most is not None and len(value) > most:
        yield FieldCause(field=path, message=f"Too many: {len(value)}: must have at most {most} items")
    for index, item in enumerate(value):
        yield from violations(schema.get("items", {}), item, f"{path}[{index}]")


def _string(schema: Schema, value: str, path: str) -> Iterator[FieldCause]:
    least, most = schema.get("minLength"), schema.get("maxLength")
    if least is not None and len(value) < least:
        yield _out_of_bounds(path, value, f"should be at least {least} chars long")
    if most is not None and len(value) > most:
        yield FieldCause(field=path, message=f"Too long: may not be more than {most} bytes")
    pattern = schema.get("pattern")
    if pattern is not None and not _compiled(pattern).search(value):
        yield _out_of_bounds(path, value, f"should match '{pattern}'")
    if schema.get("format") == "date-time" and not _is_time(value):
        yield FieldCause(
            field=path,
            message=f"Invalid value: {_shown(value)}: {path} in body must be of type date-time: {_shown(value)}",
        )


def _number(schema: Schema, value: float, path: str) -> Iterator[FieldCause]:
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None and value < least:
        yield _out_of_bounds(path, value, f"should be greater than or equal to {least}")
    if most is not None and value > most:
        yield _out_of_bounds(path, value, f"should be less than or equal to {most}")


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> re.Pattern[str]:
    # In the API server's regular expressions `$` is the very end; Python's also matches before a last newline.
    if pattern.endswith("$") and not pattern.endswith("\\$"):
        pattern = pattern[:-1] + r"\Z"
    return re.compile(pattern)


def _is_time(value: str) -> bool:
    try:
        return "T" in value and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def hinders_rules(cause: FieldCause) -> bool:
    """Whether rules over the object cannot be asked after this refusal, as the API server decides it."""
    words = ("Required value", "Unsupported value", "Too long", "Too many")
    return cause.message.startswith(words) or " in body must be of type " in cause.message


def invalid_value(path: str, value: Any, message: str) -> FieldCause:
    """Return the cause of a value that is of the right type and nevertheless wrong."""
    return FieldCause(field=path, message=f"Invalid value: {_shown(value)}: {message}")


def _out_of_bounds(path: str, value: Any, message: str) -> FieldCause:
    return invalid_value(path, value, f"{path} in body {message}")


def _wrong_type(path: str, value: Any, expected: str) -> FieldCause:
    actual = _shown(_type_name(value))
    return FieldCause(
        field=path, message=f"Invalid value: {actual}: {path} in body must be of type {expected}: {actual}"
    )


def _type_name(value: Any) -> str:
    if value is None:
        return "null"
    return next((name for name in ("boolean", "integer", *_TYPES) if _TYPES[name](value)), type(value).__name__)


def _shown(value: Any) -> str:
    return f'"{_type_name(value)}"' if isinstance(value, (dict, list)) else json.dumps(value, ensure_ascii=False)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
