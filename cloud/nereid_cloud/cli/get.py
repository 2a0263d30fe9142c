# SPDX-License-Identifier: Apache-2.0
"""``nereid get``: objects in kubectl's tables, or whole; once, or as they change."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from nereid_cloud.cli.ages import now
from nereid_cloud.cli.follow import changes
from nereid_cloud.cli.options import cluster_of
from nereid_cloud.cli.problems import FAILED, note, told
from nereid_cloud.cli.show import TABLES, check_form, printed
from nereid_cloud.cli.silence import warn_of_silence
from nereid_cloud.cli.tables import Column, columns_of, line, row_of, table, widths_of
from nereid_cloud.cli.targets import DEFAULT_NAMESPACE, Target, called, name_of, ref, targets
from nereid_cloud.cluster.kinds import CATEGORIES
from nereid_cloud.cluster.port import Cluster, Kind, Object
from nereid_shared.errors import NotFound, UserError
from nereid_shared.kinds import CATEGORY

Words = Annotated[list[str] | None, typer.Argument(help="KIND, KIND NAME…, KIND/NAME… or nereid for all of ours.")]
Namespace = Annotated[str, typer.Option("-n", "--namespace", help="Namespace.")]
AllNamespaces = Annotated[bool, typer.Option("-A", "--all-namespaces/--no-all-namespaces", help="In all namespaces.")]
Labels = Annotated[str, typer.Option("-l", "--selector", help="Only those with these labels: key=value,…")]
Fields = Annotated[str, typer.Option("--field-selector", help="Only those with these fields: metadata.name=x,…")]


def get(
    ctx: typer.Context,
    words: Words = None,
    namespace: Namespace = DEFAULT_NAMESPACE,
    all_namespaces: AllNamespaces = False,
    selector: Labels = "",
    field_selector: Fields = "",
    output: Annotated[str, typer.Option("-o", "--output", help="table|wide|json|yaml|name|jsonpath={.path}")] = "",
    watch: Annotated[bool, typer.Option("-w", "--watch/--no-watch", help="Go on with what changes.")] = False,
    headers: Annotated[bool, typer.Option("--headers/--no-headers", help="Print the headings.")] = True,
    show_labels: Annotated[bool, typer.Option("--show-labels", help="Add a column of labels.")] = False,
    ignore_not_found: Annotated[
        bool, typer.Option("--ignore-not-found/--no-ignore-not-found", help="What is absent is no error.")
    ] = False,
) -> None:
    """Print objects, sorted by name."""
    check_form(output)
    asked = targets(words or [])
    query = Query(
        cluster=cluster_of(ctx), namespace=None if all_namespaces else namespace, labels=selector, fields=field_selector
    )
    view = View(
        form=output,
        headers=headers,
        labels=show_labels,
        namespaces=all_namespaces,
        kinds=len({target.kind for target in asked}) > 1,
        watched=watch,
    )
    warn_of_silence(ctx, query.cluster, {target.kind for target in asked})
    if watch:
        _watch(query, asked, view)
        return
    found, missing = _found(query, asked, ignore_not_found=ignore_not_found)
    _print(found, asked, view, namespace="" if all_namespaces else namespace)
    if missing:
        raise typer.Exit(FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Where objects are looked for; namespace None means all of them."""

    cluster: Cluster
    namespace: str | None
    labels: str
    fields: str

    def of(self, kind: Kind) -> list[Object]:
        """Return all objects of a kind that match, by namespace and name."""
        place = self.namespace if kind.namespaced else None
        found = self.cluster.list(kind, namespace=place, labels=self.labels, fields=self.fields).items
        return sorted(found, key=lambda obj: (obj["metadata"].get("namespace", ""), name_of(obj)))

    def one(self, kind: Kind, name: str) -> Object:
        """Return one object.

        Raises:
            NotFound, UserError: the user asks for one name in all namespaces.
        """
        if self.namespace is None and kind.namespaced:
            raise UserError("a resource cannot be asked for by name in all namespaces", mend="Use -n NAMESPACE")
        return self.cluster.get(ref(kind, name, self.namespace or ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How objects are printed.

    Attributes:
        form: what follows ``-o``.
        labels: with a column of labels.
        namespaces: with a column of namespaces.
        kinds: names as kind/name, where several kinds are shown.
        watched: with the counts of our kinds, which are most of what changes.
    """

    form: str
    headers: bool
    labels: bool
    namespaces: bool
    kinds: bool
    watched: bool = False

    def columns(self, kind: Kind) -> list[Column]:
        """Return all columns of a kind, NAME included."""
        named = Column(heading="NAME", cell=lambda obj, _: called(kind, name_of(obj)) if self.kinds else name_of(obj))
        wide = self.form == "wide" or (self.watched and kind in CATEGORIES[CATEGORY])
        found = [named, *(column for column in columns_of(kind) if wide or not column.wide)]
        if self.namespaces and kind.namespaced:
            found.insert(0, Column(heading="NAMESPACE", cell=lambda obj, _: obj["metadata"].get("namespace", "")))
        if kind.kind == "Event":
            found.remove(named)
        if self.labels:
            found.append(Column(heading="LABELS", cell=lambda obj, _: _labels(obj)))
        return found


def _labels(obj: Object) -> str:
    labels = obj["metadata"].get("labels") or {}
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items())) or "<none>"


def _found(query: Query, asked: Sequence[Target], *, ignore_not_found: bool) -> tuple[list[tuple[Kind, Object]], bool]:
    """Return what was found in the order asked, and whether something was missing, which has then been said."""
    found: list[tuple[Kind, Object]] = []
    missing = False
    for target in asked:
        if not target.names:
            found += [(target.kind, obj) for obj in query.of(target.kind)]
        for name in target.names:
            try:
                found.append((target.kind, query.one(target.kind, name)))
            except NotFound as error:
                if not ignore_not_found:
                    missing = bool(told(error))
    return found, missing


def _print(found: Sequence[tuple[Kind, Object]], asked: Sequence[Target], view: View, *, namespace: str) -> None:
    if view.form not in TABLES:
        one = len(asked) == 1 and len(asked[0].names) == 1
        if found or not one:
            sys.stdout.write(printed([obj for _, obj in found], view.form, one=one))
        return
    if not found and not any(target.names for target in asked):
        scoped = namespace and any(target.kind.namespaced for target in asked)
        note(f"No resources found in {namespace} namespace." if scoped else "No resources found")
    # One table per kind, also where the user named them mixed.
    blocks: list[list[str]] = []
    for kind in dict.fromkeys(kind for kind, _ in found):
        columns, time = view.columns(kind), now()
        rows = [row_of(obj, columns, time) for other, obj in found if other == kind]
        lines = table([column.heading for column in columns], rows) if view.headers else _bare(rows)
        blocks.append(lines)
    sys.stdout.write("\n".join("".join(f"{text}\n" for text in lines) for lines in blocks))


def _bare(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = widths_of(rows)
    return [line(row, widths) for row in rows]


def _watch(query: Query, asked: Sequence[Target], view: View) -> None:
    if len(asked) != 1 or len(asked[0].names) > 1:
        raise UserError("one kind, or one object, can be watched", mend="Use `nereid get -w` once for each")
    kind, names = asked[0].kind, asked[0].names
    fields = query.fields
    if names:
        query.one(kind, names[0])
        fields = ",".join(filter(None, (fields, f"metadata.name={names[0]}")))
    columns = view.columns(kind)
    headings = [column.heading for column in columns]
    widths = widths_of([headings])
    first = view.headers
    place = query.namespace if kind.namespaced else None
    for batch in changes(query.cluster, kind, namespace=place, labels=query.labels, fields=fields):
        objects = [event.object for event in batch]
        if view.form not in TABLES:
            for obj in objects:
                text = printed([obj], view.form, one=True)
                sys.stdout.write(f"---\n{text}" if view.form == "yaml" else text.rstrip("\n") + "\n")
        else:
            rows = [row_of(obj, columns, now()) for obj in objects]
            if first and rows:
                rows.insert(0, headings)
                first = False
            if rows:
                widths = [max(pair) for pair in zip(widths, widths_of(rows), strict=True)]
            sys.stdout.writelines(f"{line(row, widths)}\n" for row in rows)
        sys.stdout.flush()
