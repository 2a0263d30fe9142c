# SPDX-License-Identifier: Apache-2.0
r"""The part of Kubernetes' JSONPath that printer columns and ``-o jsonpath=`` live on.

Fields (``.a.b``, ``['a.b']``, ``.a\.b``), indices (``[0]``, ``[-1]``), ``[*]`` and filters by equality
(``[?(@.type=="Ready")]``).
"""

import json
import re
from collections import deque
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import Any, Final

from nereid_shared.errors import UserError

_Step = Callable[[Any], Iterable[Any]]

_PIECE: Final = re.compile(r"""\{((?:[^{}"]|"[^"]*")*)\}|((?:(?!\{(?:[^{}"]|"[^"]*")*\})[\s\S])+)""")
"""Of a template: what stands in braces, or text up to the next of them."""

_TOKEN: Final = re.compile(
    r"""\.(?P<field>(?:[^.\[\]\\]|\\.)+)
      | \[(?P<quote>['"])(?P<quoted>.*?)(?P=quote)\]
      | \[(?P<index>-?\d+)\]
      | (?P<all>\[\*\]|\.\*)
      | \[\?\(\s*@(?P<inner>\.[^=]+?)\s*==\s*(?P<q>["'])(?P<value>.*?)(?P=q)\s*\)\]""",
    re.VERBOSE,
)


def find(path: str, obj: Any) -> list[Any]:
    """Return what a path finds in an object; nothing where a part of it is missing.

    Raises:
        UserError: the path is more than this knows.
    """
    found = [obj]
    for step in _steps(path):
        found = [value for each in found for value in step(each)]
    return found


def fill(template: str, obj: Any) -> str:
    """Return a template such as ``{.metadata.name}: {.status.active}`` with what its paths find, joined by spaces.

    What stands between ``{range .items[*]}`` and ``{end}`` comes once for each that the path finds.

    Raises:
        UserError: a path is more than this knows, or a range has no end.
    """
    pieces = deque(_PIECE.findall(template))
    filled = _filled(pieces, obj)
    if pieces:
        raise UserError("an {end} without its {range}", where=template, mend="Write {range .items[*]}…{end}")
    return filled


def _filled(pieces: deque[tuple[str, str]], obj: Any) -> str:
    """Fill up to the end of the range that was begun, which stays, or of the template."""
    filled = []
    while pieces and pieces[0][0].strip() != "end":
        inner, plain = pieces.popleft()
        inner = inner.strip()
        if plain:
            filled.append(plain)
        elif inner.startswith("range "):
            each = find(inner.removeprefix("range ").strip().removeprefix("$"), obj)
            # Once more than there are objects: so its pieces are gone, and checked, where there are none, too.
            filled += [_filled(pieces.copy(), one) for one in each]
            _filled(pieces, None)
            if not pieces:
                raise UserError("a range without its end", where=f"{{{inner}}}", mend="Write {range .items[*]}…{end}")
            pieces.popleft()
        elif len(inner) > 1 and inner[0] == inner[-1] == '"':
            filled.append(str(json.loads(inner)))
        else:
            filled.append(" ".join(shown(value) for value in find(inner.removeprefix("$"), obj)))
    return "".join(filled)


def shown(value: Any) -> str:
    """Return a value as a table or a template shows it: text as it is, all else as compact JSON."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), sort_keys=True)


@lru_cache
def _steps(path: str) -> tuple[_Step, ...]:
    steps: list[_Step] = []
    position = 0
    text = path if path.startswith((".", "[")) else f".{path}"
    if text == ".":
        return ()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise UserError(
                "this JSONPath is not understood", where=path, mend='Use fields, [index], [*] and [?(@.field=="text")]'
            )
        steps.append(_step(match))
        position = match.end()
    return tuple(steps)


def _step(match: re.Match[str]) -> _Step:
    if match["all"]:
        return _all
    if match["field"] == "*":
        return _all
    if match["field"] is not None:
        return partial(_field, re.sub(r"\\(.)", r"\1", match["field"]))
    if match["quoted"] is not None:
        return partial(_field, match["quoted"])
    if match["index"] is not None:
        return partial(_index, int(match["index"]))
    return partial(_where, match["inner"], match["value"])


def _field(name: str, value: Any) -> Iterable[Any]:
    return [value[name]] if isinstance(value, dict) and name in value else []


def _index(index: int, value: Any) -> Iterable[Any]:
    return [value[index]] if isinstance(value, list) and -len(value) <= index < len(value) else []


def _all(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else []


def _where(inner: str, wanted: str, value: Any) -> Iterable[Any]:
    return [each for each in _all(value) if wanted in map(shown, find(inner, each))]
