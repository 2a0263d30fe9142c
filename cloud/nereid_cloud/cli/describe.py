# SPDX-License-Identifier: Apache-2.0
"""``nereid describe``: one object for people: its spec, its conditions as a table, its Events."""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final

import typer

from nereid_cloud.cli.ages import now, since
from nereid_cloud.cli.events import found_events
from nereid_cloud.cli.options import cluster_of
from nereid_cloud.cli.problems import FAILED, note, told
from nereid_cloud.cli.silence import warn_of_silence
from nereid_cloud.cli.tables import last_seen, table
from nereid_cloud.cli.targets import DEFAULT_NAMESPACE, name_of, ref, targets
from nereid_cloud.cluster.port import Cluster, Kind, Object
from nereid_shared.errors import NotFound

_INDENT: Final = "  "
_APART: Final = {"apiVersion", "kind", "metadata", "status", "spec"}


def describe(
    ctx: typer.Context,
    words: Annotated[list[str], typer.Argument(help="KIND, KIND NAME… or KIND/NAME…")],
    namespace: Annotated[str, typer.Option("-n", "--namespace", help="Namespace.")] = DEFAULT_NAMESPACE,
    selector: Annotated[str, typer.Option("-l", "--selector", help="Those with these labels.")] = "",
) -> None:
    """Print objects in full."""
    cluster = cluster_of(ctx)
    found: list[tuple[Kind, Object]] = []
    missing = False
    for target in targets(words):
        if not target.names:
            place = namespace if target.kind.namespaced else None
            objects = cluster.list(target.kind, namespace=place, labels=selector).items
            found += [(target.kind, obj) for obj in sorted(objects, key=name_of)]
        for name in target.names:
            try:
                found.append((target.kind, cluster.get(ref(target.kind, name, namespace))))
            except NotFound as error:
                missing = bool(told(error))
    if not found and not missing:
        note(f"No resources found in {namespace} namespace.")
    warn_of_silence(ctx, cluster, {kind for kind, _ in found})
    blocks = ("".join(f"{text}\n" for text in description(cluster, kind, obj)) for kind, obj in found)
    sys.stdout.write("\n\n".join(blocks))
    if missing:
        raise typer.Exit(FAILED)


def description(cluster: Cluster, kind: Kind, obj: Object) -> Iterator[str]:
    """Yield the lines of one object's description."""
    metadata, status = obj["metadata"], dict(obj.get("status") or {})
    conditions = status.pop("conditions", None)
    head = {
        "Name": metadata["name"],
        "Namespace": metadata.get("namespace", ""),
        "Labels": _pairs(metadata.get("labels")),
        "Annotations": _pairs(metadata.get("annotations")),
        "API Version": kind.api_version,
        "Kind": kind.kind,
        "Created": _time(metadata.get("creationTimestamp")),
        "Deleted": _time(metadata.get("deletionTimestamp")) if metadata.get("deletionTimestamp") else "",
        "Generation": str(metadata.get("generation", "")),
        "Controlled By": ", ".join(f"{o['kind']}/{o['name']}" for o in metadata.get("ownerReferences") or ()),
    }
    for title, text in head.items():
        if text:
            yield from _titled(title, text)
    for key in ("spec", *(key for key in obj if key not in _APART)):
        if obj.get(key):
            yield f"{_title(key)}:"
            yield from _nested(obj[key], _INDENT)
    if status:
        yield "Status:"
        yield from _nested(status, _INDENT)
    if conditions:
        yield "Conditions:"
        yield from _conditions(conditions)
    yield from _events(cluster, kind, obj)


def _titled(title: str, text: str) -> Iterator[str]:
    first, *others = text.split("\n")
    yield f"{title + ':':<15}{first}"
    yield from (" " * 15 + other for other in others)


def _pairs(values: Mapping[str, str] | None) -> str:
    return "\n".join(f"{key}={value}" for key, value in sorted((values or {}).items())) or "<none>"


def _time(time: Any) -> str:
    return f"{time} ({since(time, now())} ago)"


def _title(key: str) -> str:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", key)
    return words[:1].upper() + words[1:]


def _nested(value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, dict):
        titles = {key: f"{_title(key) if re.fullmatch(r'[A-Za-z0-9]+', key) else key}:" for key in value}
        flat = [titles[key] for key, child in value.items() if not isinstance(child, (dict, list))]
        width = max(map(len, flat), default=0) + 2
        for key, child in sorted(value.items()):
            if isinstance(child, (dict, list)) and child:
                yield f"{indent}{titles[key]}"
                yield from _nested(child, indent + _INDENT)
            else:
                yield f"{indent}{titles[key]:<{width}}{_flat(child)}"
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, dict) and set(item) == {"key", "value"}:
                yield f"{indent}{item['key']}: {item['value']}"
            elif isinstance(item, (dict, list)):
                yield from _item(item, indent)
            else:
                yield f"{indent}{_flat(item)}"


def _item(item: Any, indent: str) -> Iterator[str]:
    lines = list(_nested(item, ""))
    yield f"{indent}- {lines[0]}" if lines else f"{indent}-"
    yield from (f"{indent}  {text}" for text in lines[1:])


def _flat(value: Any) -> str:
    if value in ("", [], {}, None):
        return "<none>"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _conditions(conditions: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    time = now()
    rows = [
        [
            str(each.get("type", "")),
            str(each.get("status", "")),
            str(each.get("reason", "")),
            since(each.get("lastTransitionTime"), time),
            str(each.get("message", "")),
        ]
        for each in conditions
    ]
    yield from (_INDENT + text for text in table(["Type", "Status", "Reason", "Age", "Message"], rows))


def _events(cluster: Cluster, kind: Kind, obj: Object) -> Iterator[str]:
    metadata = obj["metadata"]
    fields = f"involvedObject.kind={kind.kind},involvedObject.name={metadata['name']}"
    namespace = metadata.get("namespace") if kind.namespaced else None
    found = [
        event
        for event in found_events(cluster, namespace, fields)
        # A former object of the same name had another uid; Events of nodes carry none or the name.
        if event.get("involvedObject", {}).get("uid") in (None, "", metadata["name"], metadata["uid"])
    ]
    if not found:
        yield from _titled("Events", "<none>")
        return
    time = now()
    rows = [[e.get("type", ""), e.get("reason", ""), _seen(e, time), _source(e), e.get("message", "")] for e in found]
    yield "Events:"
    yield from (_INDENT + text for text in table(["Type", "Reason", "Age", "From", "Message"], rows))


def _seen(event: Object, time: Any) -> str:
    last = since(last_seen(event), time)
    count = int(event.get("count") or 1)
    return f"{last} (x{count} over {since(event.get('firstTimestamp'), time)})" if count > 1 else last


def _source(event: Object) -> str:
    source = event.get("source") or {}
    return str(source.get("component") or event.get("reportingComponent") or "")
