# SPDX-License-Identifier: Apache-2.0
"""``nereid wait``: until a condition holds, an object is gone, or it is there."""

import re
import sys
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from nereid_cloud.cli.delete import gone, seconds
from nereid_cloud.cli.follow import changes
from nereid_cloud.cli.jsonpath import find, shown
from nereid_cloud.cli.options import cluster_of
from nereid_cloud.cli.problems import FAILED, note
from nereid_cloud.cli.targets import DEFAULT_NAMESPACE, Target, called, name_of, ref, targets
from nereid_cloud.cluster.port import Cluster, Object, Ref
from nereid_shared.errors import NereidError, NotFound, UserError

_Holds = Callable[[Object], bool]


def wait(
    ctx: typer.Context,
    words: Annotated[list[str], typer.Argument(help="KIND/NAME…, KIND NAME…, or KIND with -l or --all.")],
    condition: Annotated[
        str, typer.Option("--for", help="condition=NAME[=VALUE] | jsonpath={.path}=VALUE | delete | create")
    ],
    namespace: Annotated[str, typer.Option("-n", "--namespace", help="Namespace.")] = DEFAULT_NAMESPACE,
    selector: Annotated[str, typer.Option("-l", "--selector", help="Those with these labels.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="All of the kind in the namespace.")] = False,
    timeout: Annotated[str, typer.Option(help="How long to wait for all of them, such as 30s.")] = "30s",
) -> None:
    """Wait for objects."""
    holds = _condition(condition)
    end = time.monotonic() + seconds(timeout)
    cluster = cluster_of(ctx)
    refs = [
        each
        for target in targets(words)
        for each in _refs(cluster, target, namespace, labels=selector, everything=everything)
    ]
    if not refs:
        note("error: no matching resources found")
        raise typer.Exit(FAILED)
    for each in refs:
        if condition == "delete":
            met = _gone(cluster, each, end)
        else:
            met = _met(cluster, each, holds, end, absent_is_early=condition == "create")
        if not met:
            why = _why(cluster, each, condition)
            note(f"error: timed out waiting for the condition on {each.kind.plural}/{each.name}{why}")
            raise typer.Exit(FAILED)
        sys.stdout.write(f"{called(each.kind, each.name)} condition met\n")
        sys.stdout.flush()


def _refs(cluster: Cluster, target: Target, namespace: str, *, labels: str, everything: bool) -> list[Ref]:
    names = target.names
    if not names:
        if not labels and not everything:
            raise UserError("no name is given", where=target.kind.plural, mend="Name them, or give -l or --all")
        place = namespace if target.kind.namespaced else None
        names = tuple(map(name_of, cluster.list(target.kind, namespace=place, labels=labels).items))
    return [ref(target.kind, name, namespace) for name in names]


def _condition(text: str) -> _Holds:
    """Return the predicate of ``--for``.

    Raises:
        UserError: it is none.
    """
    if text in {"delete", "create"}:
        return lambda _: True
    form, _, rest = text.partition("=")
    if form == "condition" and rest:
        name, _, value = rest.partition("=")
        return lambda obj: _has_condition(obj, name, value or "True")
    if match := re.fullmatch(r"jsonpath='?\{(?P<path>[^}]+)\}'?(=(?P<value>.*))?", text):
        path, value = match["path"], match["value"]
        return lambda obj: any(value is None or shown(each) == value for each in find(path, obj))
    raise UserError(
        f"{text!r} is nothing to wait for",
        where="--for",
        mend="Use condition=Ready, condition=Ready=False, jsonpath={.status.active}=2, delete or create",
    )


def _has_condition(obj: Object, name: str, value: str) -> bool:
    """Tell whether a condition has a value; what speaks of an older generation of the spec does not count."""
    for each in (obj.get("status") or {}).get("conditions") or ():
        if each.get("type", "").lower() == name.lower():
            return not _is_stale(obj, each) and str(each.get("status", "")).lower() == value.lower()
    return False


def _is_stale(obj: Object, condition: Mapping[str, Any]) -> bool:
    return bool(0 < (condition.get("observedGeneration") or 0) < obj["metadata"].get("generation", 0))


def _why(cluster: Cluster, each: Ref, text: str) -> str:
    """Return what the object says of the condition that did not come to hold."""
    try:
        obj = cluster.get(each)
    except NereidError as error:
        return f": {error}"
    form, _, rest = text.partition("=")
    if form != "condition":
        return ""
    name = rest.partition("=")[0]
    for found in (obj.get("status") or {}).get("conditions") or ():
        if found.get("type", "").lower() == name.lower():
            said = ": ".join(filter(None, (found.get("reason"), found.get("message"))))
            age = (
                f" of generation {found['observedGeneration']}, not of the present spec"
                if _is_stale(obj, found)
                else ""
            )
            return f": {found['type']} is {found.get('status')}{age}{f' ({said})' if said else ''}"
    return f": it has no condition {name} yet"


def _gone(cluster: Cluster, each: Ref, end: float) -> bool:
    try:
        uid = cluster.get(each)["metadata"]["uid"]
    except NotFound:
        return True
    return gone(cluster, each, uid, end)


def _met(cluster: Cluster, each: Ref, holds: _Holds, end: float, *, absent_is_early: bool) -> bool:
    if not absent_is_early and holds(cluster.get(each)):
        return True
    place = each.namespace if each.kind.namespaced else None
    fields = f"metadata.name={each.name}"
    for batch in changes(cluster, each.kind, namespace=place, fields=fields, timeout_s=end - time.monotonic()):
        if any(event.type != "DELETED" and holds(event.object) for event in batch):
            return True
        if not absent_is_early and any(event.type == "DELETED" for event in batch):
            raise NotFound(f'{each.kind.plural} "{each.name}" was deleted while it was waited for')
    return False
