# SPDX-License-Identifier: Apache-2.0
"""``nereid delete``: by manifest, by name, by labels; waits until the objects are gone."""

import sys
import time
from collections.abc import Sequence
from typing import Annotated, Final, Literal

import typer

from nereid_cloud.cli import manifests
from nereid_cloud.cli.apply import ref_of
from nereid_cloud.cli.follow import changes
from nereid_cloud.cli.options import cluster_of, options_of
from nereid_cloud.cli.problems import FAILED, note, told
from nereid_cloud.cli.targets import DEFAULT_NAMESPACE, name_of, ref, singular, targets
from nereid_cloud.cluster.port import Cluster, Ref
from nereid_shared.errors import NereidError, NotFound, UserError
from nereid_shared.quantities import duration_s

_PROPAGATION: dict[str, Literal["Background", "Foreground", "Orphan"]] = {
    "background": "Background",
    "foreground": "Foreground",
    "orphan": "Orphan",
}
_FOREVER_S = 7 * 86400.0
_QUIET_S: Final = 1.0
"""Most objects go at once; whoever waits longer is told for what."""


def delete(
    ctx: typer.Context,
    words: Annotated[list[str] | None, typer.Argument(help="KIND NAME…, KIND/NAME…, or KIND with -l or --all.")] = None,
    filename: Annotated[list[str] | None, typer.Option("-f", "--filename", help="What these manifests name.")] = None,
    namespace: Annotated[str, typer.Option("-n", "--namespace", help="Namespace.")] = "",
    selector: Annotated[str, typer.Option("-l", "--selector", help="Those with these labels.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="All of the kind in the namespace.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until they are gone.")] = True,
    timeout: Annotated[str, typer.Option(help="How long to wait, such as 30s; 0s: as long as it takes.")] = "0s",
    grace_period: Annotated[int, typer.Option(help="Seconds that Pods get to stop; -1: as they say.")] = -1,
    cascade: Annotated[
        Literal["background", "foreground", "orphan"], typer.Option(help="What they own.")
    ] = "background",
    ignore_not_found: Annotated[
        bool, typer.Option("--ignore-not-found/--no-ignore-not-found", help="What is absent is no error.")
    ] = False,
) -> None:
    """Delete objects."""
    limit_s = seconds(timeout) or _FOREVER_S
    if bool(words) == bool(filename):
        raise UserError("name what to delete", mend="Give -f FILE, KIND/NAME, or KIND with -l or --all")
    documents = manifests.documents(filename) if filename else []
    cluster = cluster_of(ctx)
    if documents:
        refs = [ref_of(document, namespace) for document in documents]
    else:
        refs = _named(cluster, words or [], namespace or DEFAULT_NAMESPACE, labels=selector, everything=everything)
    code = 0
    going: list[tuple[Ref, str]] = []
    for each in refs:
        try:
            uid = cluster.get(each)["metadata"]["uid"]
            cluster.delete(
                each, uid=uid, grace_s=None if grace_period < 0 else grace_period, propagation=_PROPAGATION[cascade]
            )
        except NereidError as error:
            if not (ignore_not_found and isinstance(error, NotFound)):
                code = told(error)
            continue
        going.append((each, uid))
        place = f" from {each.namespace} namespace" if each.kind.namespaced else ""
        sys.stdout.write(f'{singular(each.kind)} "{each.name}" deleted{place}\n')
        sys.stdout.flush()
    if options_of(ctx).is_down:
        # Nobody is there who would let it go: it goes at the next `up`.
        _tell_of_what_stays(cluster, going)
    elif wait:
        code = _wait_until_gone(cluster, going, limit_s) or code
    if code:
        raise typer.Exit(code)


def seconds(text: str) -> float:
    """Return the duration of an option; a bare number counts seconds.

    Raises:
        UserError: it is none.
    """
    try:
        return duration_s(f"{text}s" if text.isdigit() else text)
    except ValueError as error:
        raise UserError(str(error), where="--timeout", mend="Write it like 30s or 5m") from error


def _named(cluster: Cluster, words: Sequence[str], namespace: str, *, labels: str, everything: bool) -> list[Ref]:
    refs: list[Ref] = []
    for target in targets(words):
        names = target.names
        if not names and not labels and not everything:
            raise UserError("no name is given", where=" ".join(words), mend="Name them, or give -l or --all")
        if not names:
            place = namespace if target.kind.namespaced else None
            names = tuple(map(name_of, cluster.list(target.kind, namespace=place, labels=labels).items))
        refs += [ref(target.kind, name, namespace) for name in names]
    return refs


def _tell_of_what_stays(cluster: Cluster, going: Sequence[tuple[Ref, str]]) -> None:
    for each, uid in going:
        kept = _kept_by(cluster, each, uid)
        if kept:
            note(f"{_called(each)} is Terminating: {kept}; it goes when the system is up: nereid up")


def _wait_until_gone(cluster: Cluster, going: Sequence[tuple[Ref, str]], limit_s: float) -> int:
    end = time.monotonic() + limit_s
    code = 0
    for each, uid in going:
        if gone(cluster, each, uid, min(end, time.monotonic() + _QUIET_S)):
            continue
        kept = _kept_by(cluster, each, uid)
        if kept and time.monotonic() < end:
            note(f"waiting for {_called(each)}: {kept} (it goes without this command too: --wait=false)")
        if not gone(cluster, each, uid, end):
            problem = UserError(
                f"timed out waiting for it to go{f': {kept}' if kept else ''}",
                where=_called(each),
                mend=f"See what keeps it: nereid describe {_called(each)}",
            )
            told(problem)
            code = FAILED
    return code


def _called(each: Ref) -> str:
    """Return an object's name as one types it."""
    return f"{(each.kind.kind.lower(), *each.kind.short_names)[-1]}/{each.name}"


def _kept_by(cluster: Cluster, each: Ref, uid: str) -> str:
    """Return what keeps a deleted object: its finalizers, and the nodes that hold its task; "" where it is gone."""
    try:
        obj = cluster.get(each)
    except NotFound:
        return ""
    if obj["metadata"]["uid"] != uid:
        return ""
    finalizers = ", ".join(obj["metadata"].get("finalizers") or ()) or "it has not stopped yet"
    nodes = ", ".join((obj.get("status") or {}).get("heldBy") or ())
    return f"{finalizers}, held by {nodes}" if nodes else finalizers


def gone(cluster: Cluster, each: Ref, uid: str, end: float) -> bool:
    """Wait until an object is gone, or another of its name is there; tell whether that came before the `end`."""
    try:
        if cluster.get(each)["metadata"]["uid"] != uid:
            return True
    except NotFound:
        return True
    place = each.namespace if each.kind.namespaced else None
    fields = f"metadata.name={each.name}"
    for batch in changes(cluster, each.kind, namespace=place, fields=fields, timeout_s=end - time.monotonic()):
        deleted = any(event.type == "DELETED" and event.object["metadata"]["uid"] == uid for event in batch)
        # The first batch is what is there: an object that went before the list is not in it.
        if deleted or not any(event.object["metadata"]["uid"] == uid for event in batch):
            return True
    return False
