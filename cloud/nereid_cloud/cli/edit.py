# SPDX-License-Identifier: Apache-2.0
"""``nereid edit``: one object in the user's editor, which opens again until the API takes what was written."""

import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import yaml

from nereid_cloud.cli import manifests
from nereid_cloud.cli.apply import refusals
from nereid_cloud.cli.manifests import Document
from nereid_cloud.cli.options import cluster_of
from nereid_cloud.cli.problems import note
from nereid_cloud.cli.targets import DEFAULT_NAMESPACE, called, named_targets, ref
from nereid_cloud.cluster.merge import merge_diff
from nereid_cloud.cluster.port import Cluster, Object, Ref
from nereid_shared.errors import Invalid, UserError

_HEADER: Final = (
    "# Edit the object below; lines that begin with # are left out. An empty file changes nothing.\n"
    "# What the API refuses opens this file again, with the reasons here.\n#\n"
)
_SYSTEM: Final = ("managedFields", "generation", "resourceVersion", "uid", "creationTimestamp")


def edit(
    ctx: typer.Context,
    words: Annotated[list[str], typer.Argument(help="KIND/NAME or KIND NAME.")],
    namespace: Annotated[str, typer.Option("-n", "--namespace", help="Namespace.")] = DEFAULT_NAMESPACE,
    editor: Annotated[
        str, typer.Option(envvar=["KUBE_EDITOR", "VISUAL", "EDITOR"], help="The editor, with its arguments.")
    ] = "vi",
) -> None:
    """Change an object in an editor."""
    targets = named_targets(words)
    cluster = cluster_of(ctx)
    for target in targets:
        for name in target.names:
            word = _edited(cluster, ref(target.kind, name, namespace), editor)
            sys.stdout.write(f"{called(target.kind, name)} {word}\n")
            sys.stdout.flush()


def _edited(cluster: Cluster, address: Ref, editor: str) -> str:
    """Let the user edit one object and return what became of it.

    Raises:
        UserError: the editor does not start, or what was refused was given back unchanged; the file stays then.
    """
    before = _editable(cluster.get(address))
    original = text = str(yaml.safe_dump(before, sort_keys=False, allow_unicode=True))
    problems: list[str] = []
    with tempfile.NamedTemporaryFile("w", prefix="nereid-edit-", suffix=".yaml", delete=False) as made:
        file = Path(made.name)
    while True:
        comments = "".join(f"# {line}\n" for problem in problems for line in problem.splitlines())
        file.write_text(_HEADER + comments + text)
        _open(editor, file)
        written = _without_comments(file.read_text())
        if written == original or not written.strip():
            file.unlink()
            return "unchanged"
        if problems and written == text:
            note("\n".join(problems))
            raise UserError(
                "still refused; your text is kept", where=str(file), mend=f"Mend it: nereid apply -f {file}"
            )
        text = written
        try:
            (document,) = manifests.documents([str(file)])
            problems = _apply(cluster, address, before, document)
        except UserError as error:
            problems = [f"error: {error}"]
        except ValueError:
            problems = ["error: the file must hold this one object"]
        if not problems:
            file.unlink()
            return "edited"


def _apply(cluster: Cluster, address: Ref, before: Object, document: Document) -> list[str]:
    """Write the change that the user made, and nothing else: a status written meanwhile is no conflict."""
    change = merge_diff(before, document.obj)
    if touched := [key for key in ("apiVersion", "kind") if key in change] + [
        f"metadata.{key}" for key in ("name", "namespace") if key in change.get("metadata", {})
    ]:
        return [f"error: {', '.join(touched)} cannot be changed: it would be another object"]
    try:
        cluster.patch(address, change)
    except Invalid as error:
        return refusals(document, error)
    return []


def _editable(obj: Object) -> dict[str, Any]:
    metadata = {key: value for key, value in obj["metadata"].items() if key not in _SYSTEM}
    return {key: value for key, value in obj.items() if key != "status"} | {"metadata": metadata}


def _without_comments(text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))


def _open(editor: str, file: Path) -> None:
    try:
        code = subprocess.run([*shlex.split(editor), str(file)], check=False).returncode
    except (OSError, ValueError) as error:
        raise UserError(
            f"the editor does not start: {error}", where=editor, mend="Set EDITOR, or give --editor"
        ) from error
    if code:
        raise UserError(f"the editor ended with {code}", where=editor, mend="Nothing was changed; try again")
