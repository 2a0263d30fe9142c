# SPDX-License-Identifier: Apache-2.0
"""``nereid diff -f``: what applying manifests would change, the server's defaults included."""

import difflib
import sys
from collections.abc import Iterator
from typing import Annotated

import typer
import yaml

from nereid_cloud.cli import manifests
from nereid_cloud.cli.apply import MANAGER, Files, found, ref_of, refused
from nereid_cloud.cli.options import cluster_of
from nereid_cloud.cli.problems import FAILED, MENDABLE, told
from nereid_cloud.cli.targets import called
from nereid_cloud.cluster.port import Object
from nereid_shared.errors import Invalid, NereidError

_SYSTEM = {"managedFields", "resourceVersion", "generation", "uid", "creationTimestamp"}


def diff(
    ctx: typer.Context,
    filename: Files,
    namespace: Annotated[str, typer.Option("-n", "--namespace", help="Namespace.")] = "",
) -> None:
    """Print what applying would change; the exit code is 1 where it would."""
    documents = manifests.documents(filename)
    cluster = cluster_of(ctx)
    code = 0
    for document in documents:
        try:
            ref = ref_of(document, namespace)
            before = found(cluster, ref)
            after = cluster.apply(document.obj, manager=MANAGER, dry_run=True)
        except Invalid as error:
            code = refused(document, error)
            continue
        except NereidError as error:
            code = told(error)
            continue
        lines = list(_changes(called(ref.kind, ref.name), before, after))
        sys.stdout.writelines(lines)
        code = code or (FAILED if lines else 0)
    if code:
        raise typer.Exit(MENDABLE if code == MENDABLE else FAILED)


def _changes(name: str, before: Object | None, after: Object) -> Iterator[str]:
    old = _lines(before) if before else []
    return difflib.unified_diff(old, _lines(after), f"live/{name}", f"applied/{name}")


def _lines(obj: Object) -> list[str]:
    metadata = {key: value for key, value in obj["metadata"].items() if key not in _SYSTEM}
    shown = {key: value for key, value in obj.items() if key != "status"} | {"metadata": metadata}
    return str(yaml.safe_dump(shown, sort_keys=True, allow_unicode=True)).splitlines(keepends=True)
