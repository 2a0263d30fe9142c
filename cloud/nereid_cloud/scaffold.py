# SPDX-License-Identifier: Apache-2.0
"""Makes a service of two models and a folder of pictures: cards, an index, and manifests that run at once.

Models are looked into by a worker's process (``python -m nereid_worker.predict``), since only workers import LiteRT.
"""

import csv
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import yaml

from nereid_shared.card import FILE_NAME, SCHEMA, Card
from nereid_shared.defaults import CLASSIFY
from nereid_shared.errors import ModelInvalid, UserError

SUFFIXES: Final = frozenset({".jpeg", ".jpg", ".png"})
SHOWN: Final = 5
GOLDEN: Final = 3
GOLDEN_TOLERANCE: Final = 0.01
BUDGET: Final = "0.2"
THRESHOLD: Final = "0.2"
MODEL_LABELS: Final = 256
"""As many classes a Model may name; with more it is found by its task alone."""
MAX_FPS: Final = 20.0
LASTS_S: Final = 120.0
"""So that one can watch, and cut a link, before the pictures are through."""


ColorOrder = Literal["RGB", "BGR", "GRAY"]
OutputKind = Literal["logits", "probabilities"]

NORMALIZATIONS: Final[Mapping[str, dict[str, Any]]] = {
    "0..1": {"unit": "unit", "mean": [0.0], "std": [1.0]},
    "-1..1": {"unit": "unit", "mean": [0.5], "std": [0.5]},
    "0..255": {"unit": "byte", "mean": [0.0], "std": [1.0]},
    "imagenet": {"unit": "unit", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
}
"""What pixels become; ``imagenet`` are torchvision's figures, in the order RGB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensors:
    """What a model file tells of itself.

    Attributes:
        channels: of the input, 1 or 3; `layout` says where they stand.
        classes: length of the output.
        file: name, sha256 and bytes, as a card has them.
    """

    channels: int
    layout: Literal["NHWC", "NCHW"]
    classes: int
    file: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What only the model's owner knows."""

    color_order: ColorOrder
    normalization: str
    labels: list[str]
    output: OutputKind


def pace(pictures: int) -> str:
    """Return the frames per second, as text, at which so many pictures last `LASTS_S` or longer."""
    return f"{min(MAX_FPS, math.floor(pictures / LASTS_S * 1000) / 1000):g}"


def look_into(model: Path) -> Tensors:
    """Return what a model's tensors tell.

    Raises:
        UserError: it is missing, broken, or no classifier of pictures.
    """
    if not model.is_file():
        raise UserError("there is no such file", where=str(model), mend="Give the path of a .tflite file")
    found = json.loads(_predict(model, "--describe"))
    _, *size = found["input"]["shape"]
    if len(size) != 3 or not {size[0], size[-1]} & {1, 3}:
        raise UserError(f"its input {found['input']['shape']} is no picture", where=str(model))
    layout: Literal["NHWC", "NCHW"] = "NHWC" if size[-1] in {1, 3} else "NCHW"
    channels = size[-1] if layout == "NHWC" else size[0]
    return Tensors(channels=channels, layout=layout, classes=found["output"]["shape"][-1], file=found["file"])


def read_labels(text: str, *, classes: int) -> list[str]:
    """Return labels from a file with one a line, or from a list with commas.

    Raises:
        UserError: they are not as many as the model's classes.
    """
    file = Path(text)
    lines = file.read_text().splitlines() if file.is_file() else text.split(",")
    labels = [line.strip() for line in lines if line.strip()]
    if len(labels) != classes:
        raise UserError(
            f"{len(labels)} labels for {classes} classes",
            where="--labels",
            mend="Name each class once, in the order of the output: a file with one a line, or a,b,c",
        )
    return labels


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures below a folder, in the order of their paths.

    Raises:
        UserError: there are none.
    """
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if not found:
        raise UserError("there are no JPEG or PNG files", where=str(folder), mend="Name a folder with pictures")
    return found


class Scaffold:
    """The folder of one new service.

    Args:
        folder: made here; must not exist.
    """

    def __init__(self, folder: Path, *, name: str) -> None:
        self.folder, self.name = folder, name
        if folder.exists():
            raise UserError("it exists already", where=str(folder), mend="Choose another name, or another --out")
        folder.mkdir(parents=True)

    @property
    def manifest(self) -> Path:
        """The file to apply."""
        return self.folder / f"{self.name}.yaml"

    def add_model(self, role: str, model: Path, tensors: Tensors, answers: Answers | None) -> Path:
        """Copy a model, and write its card from `answers`, or copy the card beside it where that is None."""
        folder = self.folder / "models" / role
        folder.mkdir(parents=True)
        shutil.copy2(model, folder / model.name)
        if answers is None:
            shutil.copy2(model.parent / FILE_NAME, folder / FILE_NAME)
            for golden in Card.load(folder).golden:
                target = folder / golden.input
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(model.parent / golden.input, target)
        else:
            self._write_card(folder, self._card(role, tensors, answers))
        return folder

    def _card(self, role: str, tensors: Tensors, answers: Answers) -> dict[str, Any]:
        return {
            "schema": SCHEMA, "name": f"{self.name}-{role}", "version": "1", "task": "classification",
            "input": {
                "layout": tensors.layout, "colorOrder": answers.color_order, "resize": "stretch",
                "interpolation": "linear", "normalization": NORMALIZATIONS[answers.normalization],
            },
            "output": {"kind": answers.output, "labels": answers.labels},
            "file": tensors.file,
        }  # fmt: skip

    def _write_card(self, folder: Path, card: dict[str, Any]) -> None:
        (folder / FILE_NAME).write_text(json.dumps(card, indent=1) + "\n")
        Card.load(folder)

    def try_out(self, model: Path, pictures: list[Path]) -> list[dict[str, Any]]:
        """Return the model's answers to the first pictures, and keep some of them as the card's golden outputs.

        Raises:
            UserError: the model refuses its card.
        """
        rows = [json.loads(line) for line in _predict(model, *pictures[:SHOWN]).splitlines()]
        if not any("label" in row for row in rows):
            raise UserError(
                f"no picture got an answer: {rows[0]['message'] if rows else 'the model said nothing'}",
                where=f"the {model.name} model",
                mend="Answer otherwise: --output logits where figures are no probabilities, or another --normalization",
            )
        card = json.loads((model / FILE_NAME).read_text())
        if not card.get("golden"):
            card["golden"] = [
                {"input": self._keep(model, Path(row["path"])), "output": row["output"], "tolerance": GOLDEN_TOLERANCE}
                for row in rows[:GOLDEN]
                if "output" in row
            ]
            self._write_card(model, card)
        return rows

    def _keep(self, model: Path, picture: Path) -> str:
        target = model / "golden" / picture.name
        target.parent.mkdir(exist_ok=True)
        shutil.copy2(picture, target)
        return f"golden/{picture.name}"

    def add_pictures(self, root: Path, pictures: list[Path]) -> Path:
        """Link (or copy) the pictures into the service's folder and index them; returns the index."""
        data = self.folder / "data"
        index = data / "index.csv"
        data.mkdir()
        with index.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path"])
            for picture in pictures:
                place = Path("pictures") / picture.relative_to(root)
                (data / place).parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(picture.resolve(), data / place)
                except OSError:
                    shutil.copy2(picture, data / place)
                writer.writerow([str(place)])
        return index

    def write_manifest(
        self, *, pictures: int, little: Path, big: Path, index: Path, edge_node: str, cloud_node: str
    ) -> None:
        """Write the manifest of the whole service, whose worker is some minutes busy with so many `pictures`."""
        fps = pace(pictures)
        documents = [
            self._model("little", little), self._model("big", big),
            {
                "apiVersion": "edgeai.io/v1alpha1", "kind": "Dataset", "metadata": {"name": self.name},
                "spec": {"dataUrl": str(index), "format": "csv", "nodeName": edge_node},
            },
            {
                "apiVersion": "neptune.io/v1alpha1", "kind": "JointInferenceService", "metadata": {"name": self.name},
                "spec": {
                    "edgeWorker": {
                        "name": "little", "model": {"name": f"{self.name}-little"}, "nodeName": edge_node,
                        "dataset": {"name": self.name},
                        "hardExampleAlgorithm": {
                            "name": "Margin", "budget": BUDGET,
                            "parameters": [{"key": "threshold", "value": THRESHOLD}],
                        },
                        "workerSpec": {**_builtin(), "parameters": [{"key": "fps", "value": fps}]},
                    },
                    "cloudWorker": {
                        "name": "big", "model": {"name": f"{self.name}-big"}, "nodeName": cloud_node,
                        "workerSpec": _builtin(),
                    },
                },
            },
        ]  # fmt: skip
        text = yaml.safe_dump_all(documents, sort_keys=False)
        minutes = f"{pictures / float(fps) / 60:.0f} minutes"
        self.manifest.write_text(
            f"# fps {fps}: the {pictures} pictures last {minutes}, so that one can watch.\n"
            f"# Rows added to {index} are read too, also when all is through.\n{text}"
        )

    def _model(self, role: str, folder: Path) -> dict[str, Any]:
        card = Card.load(folder)
        file = folder / (card.file.name if card.file else next(folder.glob("*.tflite")).name)
        spec: dict[str, Any] = {"modelUrl": str(file), "format": "tflite", "task": card.task}
        if card.file:
            spec["sha256"] = card.file.sha256
        if len(card.output.labels) <= MODEL_LABELS:
            spec["labels"] = list(card.output.labels)
        return {
            "apiVersion": "edgeai.io/v1alpha1", "kind": "Model", "metadata": {"name": f"{self.name}-{role}"},
            "spec": spec,
        }  # fmt: skip


def _builtin() -> dict[str, Any]:
    return {
        "scriptDir": "", "scriptBootFile": CLASSIFY, "frameworkType": "tflite", "frameworkVersion": "2",
    }  # fmt: skip


def _predict(model: Path, *arguments: str | Path) -> str:
    argv = [sys.executable, "-m", "nereid_worker.predict", *(str(argument) for argument in arguments)]
    # The model stands before the pictures, options where they like.
    argv.insert(3, str(model))
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if "ModuleNotFoundError" in done.stderr:
        raise UserError("what runs models is not installed", mend="pip install 'nereid-ai[worker,vision]'")
    if done.returncode == 2:
        lines = [line for line in done.stderr.splitlines() if not line.startswith("INFO:")]
        raise UserError(" ".join(lines) or "it cannot be run", where=str(model))
    return done.stdout


def has_card(model: Path) -> bool:
    """Whether a model has a card of its own beside it.

    Raises:
        UserError: it has one that cannot be read.
    """
    if not (model.parent / FILE_NAME).exists():
        return False
    try:
        card = Card.load(model.parent)
    except ModelInvalid as error:
        raise UserError(str(error), where=str(model), mend="Mend the card, or take it away to be asked") from error
    return card.file is None or card.file.name == model.name
