# SPDX-License-Identifier: Apache-2.0
"""``nereid events``: what happened, the oldest first."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from nereid_cloud.cli.ages import now
from nereid_cloud.cli.follow import changes
from nereid_cloud.cli.options import cluster_of
from nereid_cloud.cli.problems import note
from nereid_cloud.cli.show import TABLES, check_form, printed
from nereid_cloud.cli.tables import EVENT_COLUMNS, Column, last_seen, line, row_of, table, widths_of
from nereid_cloud.cli.targets import DEFAULT_NAMESPACE, named_targets
from nereid_cloud.cluster import kinds
from nereid_cloud.cluster.port import Cluster, Object
from nereid_shared.errors import UserError

_NAMESPACE = Column(heading="NAMESPACE", cell=lambda obj, _: obj["metadata"].get("namespace", ""))


def events(
    ctx: typer.Context,
    about: Annotated[str, typer.Option("--for", help="Only those of this object: KIND/NAME.")] = "",
    namespace: Annotated[str, typer.Option("-n", "--namespace", help="Namespace.")] = DEFAULT_NAMESPACE,
    all_namespaces: Annotated[
        bool, typer.Option("-A", "--all-namespaces/--no-all-namespaces", help="In all namespaces.")
    ] = False,
    types: Annotated[str, typer.Option(help="Only these types: Normal, Warning.")] = "",
    output: Annotated[str, typer.Option("-o", "--output", help="table|json|yaml|name|jsonpath={.path}")] = "",
    watch: Annotated[bool, typer.Option("-w", "--watch/--no-watch", help="Go on with new ones.")] = False,
) -> None:
    """Print Events."""
    check_form(output)
    place = None if all_namespaces else namespace
    wanted = {word.strip().lower() for word in types.split(",") if word}
    if unknown := wanted - {"normal", "warning"}:
        raise UserError(f"there is no type {', '.join(unknown)}", where="--types", mend="Use Normal, Warning or both")
    fields = _about(about) if about else ""
    cluster = cluster_of(ctx)
    columns = [_NAMESPACE, *EVENT_COLUMNS] if all_namespaces else list(EVENT_COLUMNS)
    if watch:
        _watch(cluster, place, fields, wanted, columns)
        return
    found = [event for event in found_events(cluster, place, fields) if _is_wanted(event, wanted)]
    if output not in TABLES:
        sys.stdout.write(printed(found, output, one=False))
    elif found:
        time = now()
        rows = [row_of(event, columns, time) for event in found]
        sys.stdout.writelines(f"{text}\n" for text in table([column.heading for column in columns], rows))
    else:
        note("No events found." if all_namespaces else f"No events found in {namespace} namespace.")


def found_events(cluster: Cluster, namespace: str | None, fields: str) -> list[Object]:
    """Return the Events of a namespace that match, the oldest first."""
    return sorted(cluster.list(kinds.EVENT, namespace=namespace, fields=fields).items, key=last_seen)


def _about(text: str) -> str:
    (target,) = named_targets([text] if "/" in text else text.split())
    return f"involvedObject.kind={target.kind.kind},involvedObject.name={target.names[0]}"


def _is_wanted(event: Object, types: set[str]) -> bool:
    return not types or str(event.get("type", "")).lower() in types


def _watch(cluster: Cluster, place: str | None, fields: str, types: set[str], columns: Sequence[Column]) -> None:
    headings = [column.heading for column in columns]
    widths = [len(heading) for heading in headings]
    first = True
    for batch in changes(cluster, kinds.EVENT, namespace=place, fields=fields):
        seen = [event.object for event in batch if event.type != "DELETED" and _is_wanted(event.object, types)]
        rows = [row_of(event, columns, now()) for event in sorted(seen, key=last_seen)]
        if first:
            rows.insert(0, headings)
            first = False
        if rows:
            widths = [max(pair) for pair in zip(widths, widths_of(rows), strict=True)]
        sys.stdout.writelines(f"{line(row, widths)}\n" for row in rows)
        sys.stdout.flush()
