# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a body that msgspec refused: the field as it is written there, and what belongs in it."""

import re
from typing import Any, Final, Literal, get_args, get_origin

import msgspec

_ITEM: Final = re.compile(r"\[([^]]+)\]")
_AT: Final = re.compile(r"(.*) - at (?:`key` in )?`\$([^`]*)`", re.DOTALL)
_FIELD: Final = re.compile(r"Object (missing required|contains unknown) field `(.*)`", re.DOTALL)
_MENDS: Final = {
    "missing required": "missing; add it",
    "contains unknown": "unknown field; remove it, or see whether it is misspelt",
}


class WrongField(ValueError):
    """What a ``__post_init__`` raises where a single field is to blame.

    Attributes:
        field: as it is written in the body.
    """

    def __init__(self, field: str, problem: str) -> None:
        self.field = field
        super().__init__(problem)


def complaint(error: msgspec.DecodeError, kind: type[msgspec.Struct]) -> str:
    """Return ``field.path: problem`` for the first thing that is wrong with a body of this kind.

    Items of a list are named by their number, those of a map by ``*``: msgspec does not say their key.
    """
    if not isinstance(error, msgspec.ValidationError):
        return f"not JSON: {error}"
    at = _AT.fullmatch(str(error))
    said, path = at.groups() if at else (str(error), "")
    steps = _ITEM.sub(r".\1", path.replace("[...]", "[*]")).split(".")[1:]
    field = _FIELD.fullmatch(said)
    if field:
        steps, said = [*steps, field[2]], _MENDS[field[1]]
    elif isinstance(error.__cause__, WrongField):
        steps = [*steps, error.__cause__.field]
    elif said.startswith("Invalid enum value"):
        said = (
            f"should be {' or '.join(map(repr, _choices(kind, steps)))}, not {said.removeprefix('Invalid enum value ')}"
        )
    return f"{'.'.join(steps)}: {said}" if steps else said


def _choices(kind: Any, steps: list[str]) -> tuple[Any, ...]:
    """Return the values of the Literal at the end of the way through a struct."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return parts
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        parts = tuple(one.type for one in msgspec.structs.fields(kind) if [one.encode_name] == steps[:1])
        steps = steps[1:]
    elif origin in {list, dict}:
        parts, steps = parts[-1:], steps[1:]
    # Otherwise it is Annotated, or something or None: one of its parts goes on.
    return next(filter(None, (_choices(one, steps) for one in parts)), ())
