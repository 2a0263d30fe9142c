# SPDX-License-Identifier: Apache-2.0
"""The forms in which objects are printed: YAML, JSON, names, a JSONPath template."""

import json
from collections.abc import Sequence
from typing import Any, Final

from nereid_cloud.cli.jsonpath import fill
from nereid_cloud.cli.targets import called, name_of
from nereid_cloud.cluster.kinds import kind_of
from nereid_cloud.cluster.port import Object
from nereid_shared.errors import UserError

TABLES: Final = ("", "table", "wide")
_JSONPATH: Final = "jsonpath="


def check_form(form: str) -> None:
    """Refuse a form that there is not.

    Raises:
        UserError.
    """
    if form not in {*TABLES, "json", "yaml", "name"} and not form.startswith(_JSONPATH):
        raise UserError(
            f"there is no output {form!r}", where="-o", mend="Use table, wide, json, yaml, name or jsonpath={.path}"
        )


def printed(objects: Sequence[Object], form: str, *, one: bool) -> str:
    """Return objects in a form that is no table.

    Args:
        objects: what to print.
        form: ``json``, ``yaml``, ``name`` or ``jsonpath=…``.
        one: whether the user asked for one object by its name, so that no List goes around it.
    """
    if form == "name":
        return "".join(f"{called(kind_of(obj), name_of(obj))}\n" for obj in objects)
    clean = [_without_managed_fields(obj) for obj in objects]
    value: Any = clean[0] if one else {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": clean}
    if form.startswith(_JSONPATH):
        return fill(form.removeprefix(_JSONPATH), value)
    if form == "json":
        return json.dumps(value, indent=4, ensure_ascii=False) + "\n"
    import yaml  # noqa: PLC0415 - a table needs none

    return str(yaml.safe_dump(value, sort_keys=True, allow_unicode=True, default_flow_style=False))


def _without_managed_fields(obj: Object) -> Object:
    metadata = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    return {**obj, "metadata": metadata}
