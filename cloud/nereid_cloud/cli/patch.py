# SPDX-License-Identifier: Apache-2.0
"""``nereid patch``: changes the fields of one object that a merge patch names."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
import yaml

from nereid_cloud.cli.apply import essence
from nereid_cloud.cli.options import cluster_of
from nereid_cloud.cli.targets import DEFAULT_NAMESPACE, called, named_targets, ref
from nereid_shared.errors import UserError


def patch(
    ctx: typer.Context,
    words: Annotated[list[str], typer.Argument(help="KIND/NAME or KIND NAME.")],
    text: Annotated[str, typer.Option("-p", "--patch", help="The patch, as JSON or YAML; null removes a field.")] = "",
    file: Annotated[Path | None, typer.Option("--patch-file", help="A file with the patch.")] = None,
    form: Annotated[Literal["merge"], typer.Option("--type", help="merge: a JSON merge patch (RFC 7386).")] = "merge",
    namespace: Annotated[str, typer.Option("-n", "--namespace", help="Namespace.")] = DEFAULT_NAMESPACE,
) -> None:
    """Change some fields of an object."""
    del form  # the only one: custom resources take no strategic patches, and nobody writes JSON patches by hand
    change = _change(text, file)
    cluster = cluster_of(ctx)
    for target in named_targets(words):
        for name in target.names:
            address = ref(target.kind, name, namespace)
            before = cluster.get(address)
            after = cluster.patch(address, change)
            unchanged = " (no change)" if essence(before) == essence(after) else ""
            sys.stdout.write(f"{called(target.kind, name)} patched{unchanged}\n")
            sys.stdout.flush()


def _change(text: str, file: Path | None) -> dict[str, Any]:
    if bool(text) == (file is not None):
        raise UserError("give the patch once", mend="Use -p '{\"spec\": …}', or --patch-file FILE")
    try:
        found = yaml.safe_load(file.read_text() if file else text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"it cannot be read: {error}", where=str(file or "-p"), mend="Write JSON or YAML") from error
    if not isinstance(found, dict) or not found:
        raise UserError("a patch is an object", where=str(file or "-p"), mend='Write it like {"spec": {…}}')
    return found
