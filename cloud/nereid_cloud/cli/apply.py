# SPDX-License-Identifier: Apache-2.0
"""``nereid apply -f``: makes the cluster's objects what the manifests say."""

import re
import sys
from typing import Annotated, Any, Final, Literal

import typer

from nereid_cloud.cli import manifests
from nereid_cloud.cli.manifests import Document
from nereid_cloud.cli.options import cluster_of
from nereid_cloud.cli.problems import FAILED, MENDABLE, note, told
from nereid_cloud.cli.targets import DEFAULT_NAMESPACE, called
from nereid_cloud.cluster import kinds
from nereid_cloud.cluster.port import Cluster, Object, Ref
from nereid_shared.errors import FieldCause, Invalid, NereidError, NotFound, UserError
from nereid_shared.kinds import KINDS
from nereid_shared.quantities import FRACTION_PATTERN, matches

MANAGER: Final = "nereid"
Files = Annotated[list[str], typer.Option("-f", "--filename", help="Manifest: a file, a folder, or - for stdin.")]
Namespace = Annotated[str, typer.Option("-n", "--namespace", help="Namespace.")]


def apply(
    ctx: typer.Context,
    filename: Files,
    namespace: Namespace = "",
    dry_run: Annotated[Literal["none", "server"], typer.Option(help="server: check, change nothing.")] = "none",
) -> None:
    """Create or change the objects that manifests describe."""
    documents = manifests.documents(filename)
    cluster = cluster_of(ctx)
    codes = [_apply(cluster, document, namespace, dry_run=dry_run == "server") for document in documents]
    if any(codes):
        raise typer.Exit(MENDABLE if MENDABLE in codes else FAILED)


def _apply(cluster: Cluster, document: Document, namespace: str, *, dry_run: bool) -> int:
    """Apply one document, say so, and return its exit code: one that is refused does not keep the others."""
    try:
        ref = ref_of(document, namespace)
        word = _done(cluster, document.obj, ref, dry_run=dry_run)
    except Invalid as error:
        return refused(document, error)
    except NotFound as error:
        return told(UserError(str(error), where=document.where()))
    except NereidError as error:
        return told(error)
    sys.stdout.write(f"{called(ref.kind, ref.name)} {word}{' (server dry run)' if dry_run else ''}\n")
    sys.stdout.flush()
    return 0


def refused(document: Document, error: Invalid) -> int:
    """Say why a document is refused and return the exit code."""
    for line in refusals(document, error):
        note(line)
    return MENDABLE


def refusals(document: Document, error: Invalid) -> list[str]:
    """Return why a document is refused: a line per field, with the place where it stands."""
    return [
        f"error: {document.where(cause.field)}: {cause.field}: {_with_mend(document.obj, cause)}"
        for cause in error.causes
    ]


def ref_of(document: Document, namespace: str) -> Ref:
    """Return the address of a document's object, whose namespace is filled in.

    Raises:
        UserError: its kind is unknown, or it names another namespace than the command line.
    """
    obj, metadata = document.obj, document.obj["metadata"]
    try:
        kind = kinds.kind_of(obj)
    except NotFound as error:
        known = ", ".join(f"{kind.kind} ({kind.api_version})" for kind in KINDS.values())
        raise UserError(str(error), where=document.where("kind"), mend=f"Nereid's kinds are {known}") from error
    if not kind.namespaced:
        return Ref(kind=kind, name=metadata["name"])
    own = metadata.get("namespace")
    if own and namespace and own != namespace:
        raise UserError(
            f'its namespace "{own}" is not the "{namespace}" of the command line',
            where=document.where("metadata.namespace"),
            mend="Leave out -n",
        )
    metadata["namespace"] = own or namespace or DEFAULT_NAMESPACE
    return Ref(kind=kind, name=metadata["name"], namespace=metadata["namespace"])


def _done(cluster: Cluster, obj: Object, ref: Ref, *, dry_run: bool) -> str:
    before = found(cluster, ref)
    if before and before["metadata"].get("deletionTimestamp"):
        note(f"Warning: {called(ref.kind, ref.name)} is being deleted; apply it again when it is gone")
    after = cluster.apply(obj, manager=MANAGER, dry_run=dry_run)
    if before is None:
        return "created"
    return "unchanged" if essence(before) == essence(after) else "configured"


def found(cluster: Cluster, ref: Ref) -> Object | None:
    """Return an object, None where there is none."""
    try:
        return cluster.get(ref)
    except NotFound:
        return None


def essence(obj: Object) -> Object:
    """Return what a manifest can change: what a controller wrote in between is no change."""
    metadata = {key: obj["metadata"].get(key) for key in ("labels", "annotations", "finalizers", "ownerReferences")}
    return {key: value for key, value in obj.items() if key not in {"metadata", "status"}} | {"metadata": metadata}


def _with_mend(obj: Object, cause: FieldCause) -> str:
    """Return the API's message, with what belongs there where the message does not say it."""
    if "must be of type string" in cause.message:
        return f"{cause.message}. Write it in quotes"
    # Only an error needs the schemas.
    from nereid_cloud.cluster.schema import unknown_fields  # noqa: PLC0415
    from nereid_cloud.definitions import schema_of  # noqa: PLC0415

    kind = KINDS.get(obj["kind"])
    if kind is None or kind.api_version != obj["apiVersion"]:
        return cause.message
    schema = schema_of(f"{kind.plural}.{kind.group}") or {}
    if "unknown field" in cause.message:
        # An API server does not say which field was meant.
        meant = (unknown.message for unknown in unknown_fields(schema, obj) if unknown.field == cause.field)
        return next(meant, cause.message)
    if cause.message.startswith('Invalid value: "object"'):
        # A rule over several fields: its message says what is wrong, and what the whole is for mends nothing.
        return cause.message + _out_of_range(obj, cause)
    description = _description(schema, cause.field)
    return f"{cause.message}. It is: {description}" if description else cause.message


def _out_of_range(obj: Object, cause: FieldCause) -> str:
    """Return which of a hard example rule's parameters are wrong, where that is what the API says of them."""
    from nereid_shared.resources.mining import FRACTION_WANTED  # noqa: PLC0415 - only an error needs the resources

    if FRACTION_WANTED not in cause.message:
        return ""
    part: Any = obj
    for name in cause.field.split("."):
        part = part.get(name) or {}
    wrong = [
        f"{one['key']} is {one['value']!r}"
        for one in part.get("parameters") or ()
        if not matches(FRACTION_PATTERN, one["value"])
    ]
    return f": {', '.join(wrong)}"


def _description(schema: dict[str, Any], field: str) -> str:
    node = schema
    for part in re.split(r"\.|\[", field):
        node = node.get("items", {}) if part.rstrip("]").isdigit() else node.get("properties", {}).get(part, {})
    return str(node.get("description", ""))
