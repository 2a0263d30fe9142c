# SPDX-License-Identifier: Apache-2.0
"""``nereid new``: two models and a folder of pictures become manifests that run."""

import re
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from nereid_cloud import scaffold
from nereid_cloud.cli.problems import note
from nereid_cloud.scaffold import NORMALIZATIONS, Answers, Scaffold, Tensors
from nereid_shared.errors import NereidError, UserError

_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?")
_QUESTIONS: Final = {
    "--color-order": ("colour order of the input", ("RGB", "BGR")),
    "--normalization": ("what the model takes pixels as", tuple(NORMALIZATIONS)),
    "--output": ("what the model gives", ("logits", "probabilities")),
}


def new(
    name: Annotated[str, typer.Argument(help="Name of the service.")],
    little: Annotated[Path, typer.Option("--little", help="The edge's .tflite file.")],
    big: Annotated[Path, typer.Option("--big", help="The cloud's .tflite file.")],
    images: Annotated[Path, typer.Option("--images", help="Folder of JPEG or PNG files.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write; ./NAME if not given.")] = None,
    color_order: Annotated[str, typer.Option("--color-order", help="RGB or BGR; GRAY is seen by itself.")] = "",
    normalization: Annotated[str, typer.Option("--normalization", help=" | ".join(NORMALIZATIONS))] = "",
    labels: Annotated[str, typer.Option("--labels", help="File with one label a line, or a,b,c.")] = "",
    output: Annotated[str, typer.Option("--output", help="logits or probabilities.")] = "",
    node: Annotated[str, typer.Option("--node", help="The edge node.")] = "edge-0",
    cloud_node: Annotated[str, typer.Option("--cloud-node", help="The cloud worker's node.")] = "cloud",
) -> None:
    """Write cards and manifests for two models of your own."""
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} cannot be a name", where="NAME", mend="Use a-z, 0-9 and '-', at most 48 characters")
    given = {"--color-order": color_order, "--normalization": normalization, "--labels": labels, "--output": output}
    pictures = scaffold.pictures_in(images)
    models = {"little": little.absolute(), "big": big.absolute()}
    tensors = {role: scaffold.look_into(model) for role, model in models.items()}
    answers = _ask(models, tensors, given)
    made = Scaffold((out or Path(name)).absolute(), name=name)
    try:
        folders = {role: made.add_model(role, model, tensors[role], answers[role]) for role, model in models.items()}
        for role, folder in folders.items():
            _show(role, made.try_out(folder, pictures))
        index = made.add_pictures(images, pictures)
        made.write_manifest(
            pictures=len(pictures),
            little=folders["little"],
            big=folders["big"],
            index=index,
            edge_node=node,
            cloud_node=cloud_node,
        )
    except NereidError:
        shutil.rmtree(made.folder)
        raise
    sys.stdout.write(
        f"\nAre these answers right? If not, remove {made.folder} and answer otherwise.\n"
        f"Next:\n  nereid up -d\n  nereid apply -f {made.manifest}\n"
        f"  nereid wait jis/{name} --for=condition=Ready\n  nereid describe jis/{name}\n"
    )


def _ask(models: dict[str, Path], tensors: dict[str, Tensors], given: dict[str, str]) -> dict[str, Answers | None]:
    """Return per model what its owner says of it; None where it has a card."""
    found: dict[str, Answers | None] = {}
    before: dict[str, str] = {}
    for role, model in models.items():
        if scaffold.has_card(model):
            found[role] = None
            continue
        told = {flag: _answer(flag, role, given[flag], before, tensors[role]) for flag in _flags(tensors[role])}
        before = told
        found[role] = Answers(
            color_order="GRAY" if tensors[role].channels == 1 else told["--color-order"],  # type: ignore[arg-type]
            normalization=told["--normalization"],
            labels=scaffold.read_labels(told["--labels"], classes=tensors[role].classes),
            output=told["--output"],  # type: ignore[arg-type]
        )
    return found


def _flags(tensors: Tensors) -> list[str]:
    flags = [*_QUESTIONS, "--labels"]
    return flags if tensors.channels > 1 else flags[1:]


def _answer(flag: str, role: str, given: str, before: dict[str, str], tensors: Tensors) -> str:
    """Return a flag's value, asked for where it is not given.

    Raises:
        UserError: it is none of the choices, or nobody is there to ask.
    """
    what, choices = _QUESTIONS.get(flag, (f"the {tensors.classes} labels, as a file or a,b,c", ()))
    if tensors.channels == 1:
        choices = tuple(choice for choice in choices if choice != "imagenet")
    problem = _problem(flag, given, choices, tensors)
    if given and problem is not None:
        raise problem
    if not given and not sys.stdin.isatty():
        one_of = f" ({' | '.join(choices)})" if choices else ""
        raise UserError(f"the {role} model's tensors do not tell {what}", where=flag, mend=f"Give {flag}{one_of}")
    hint = f" [{' | '.join(choices)}]" if choices else ""
    while not given:
        given = typer.prompt(f"{role}: {what}{hint}", default=before.get(flag), err=True)
        problem = _problem(flag, given, choices, tensors)
        if problem is not None:
            note(str(problem))
            given = ""
    return given


def _problem(flag: str, given: str, choices: tuple[str, ...], tensors: Tensors) -> UserError | None:
    """Return what is wrong with an answer."""
    if choices:
        wrong = UserError(f"{given!r} is none of {', '.join(choices)}", where=flag)
        return None if given in choices else wrong
    try:
        scaffold.read_labels(given, classes=tensors.classes)
    except UserError as error:
        return error
    return None


def _show(role: str, rows: list[dict[str, Any]]) -> None:
    sys.stdout.write(f"\n{role} model:\n")
    for row in rows:
        said = f"{row['label']} ({row['score']:.0%})" if "label" in row else f"no answer: {row['message']}"
        sys.stdout.write(f"  {Path(row['path']).name:<32} {said}\n")
