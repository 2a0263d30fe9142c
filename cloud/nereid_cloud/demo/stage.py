# SPDX-License-Identifier: Apache-2.0
"""What the demo shows: the digits, dealt out to the nodes, and the sample manifests that name them."""

import csv
import random
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from nereid_cloud import data
from nereid_cloud.laptop.system import System
from nereid_shared.environment import HOST_ROOT
from nereid_shared.errors import UserError

SERVICE: Final = "digits"
NAMESPACE: Final = "default"
SERVED: Final = "inferencemodels.yaml"
SAMPLE_ROOT: Final = f"{HOST_ROOT}/examples/digits"
"""The folder that the sample manifests name; the demo's own stands for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Files of one run.

    Attributes:
        folder: models, and per node its data.
        parts: per node the pictures' paths, relative to the node's folder, in the order in which they stream.
    """

    folder: Path
    parts: dict[str, list[str]]

    @property
    def samples(self) -> int:
        """How many pictures stream in all."""
        return sum(len(part) for part in self.parts.values())

    def pictures(self) -> Iterator[Path]:
        """Yield every picture that streams."""
        for node, part in self.parts.items():
            yield from (self.node_folder(node) / path for path in part)

    def node_folder(self, node: str) -> Path:
        """The folder of a node's dataset."""
        return self.folder / "data" / node

    @property
    def big_model(self) -> Path:
        """The big model's folder."""
        return self.folder / "models" / "big"

    def manifests(self) -> list[dict[str, Any]]:
        """Return the sample manifests with this run's folder, and one Dataset per node."""
        text = (data.path("samples") / "digits.yaml").read_text()
        found: list[dict[str, Any]] = []
        for manifest in yaml.safe_load_all(text.replace(SAMPLE_ROOT, str(self.folder))):
            if manifest["kind"] != "Dataset":
                found.append(manifest)
                continue
            for node in self.parts:
                metadata = {**manifest["metadata"], "name": f"{SERVICE}-{node}"}
                url = str(self.node_folder(node) / "index.csv")
                spec = {**manifest["spec"], "nodeName": node, "dataUrl": url}
                found.append({**manifest, "metadata": metadata, "spec": spec})
        return found

    def write_sample(self, folder: Path) -> Path:
        """Write the manifests as files that this system's user can apply; returns that of the service."""
        folder.mkdir(exist_ok=True)
        served = (data.path("samples") / SERVED).read_text()
        (folder / SERVED).write_text(served.replace(SAMPLE_ROOT, str(self.folder)))
        sample = folder / f"{SERVICE}.yaml"
        sample.write_text(yaml.safe_dump_all(self.manifests(), sort_keys=False))
        return sample


def set_up(system: System, *, samples: int | None, seed: int) -> Stage:
    """Unpack the digits into the system's state folder and deal them out to its nodes.

    Args:
        system: whose nodes get the pictures.
        samples: how many to stream; None for all of them.
        seed: shuffles which ones, and their order.

    Raises:
        UserError: there are not so many.
    """
    example = data.path("examples") / "digits"
    folder = system.state / "digits"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(example / "models", folder / "models")
    pictures = folder / "pictures"
    with tarfile.open(example / "digits.tar.gz") as archive:
        archive.extractall(pictures, filter="data")
    with (pictures / "index.csv").open(newline="") as index:
        paths = [row["path"] for row in csv.DictReader(index)]
    if samples is not None and samples > len(paths):
        raise UserError(f"there are {len(paths)} samples", where="--samples", mend=f"Take at most {len(paths)}")
    random.Random(seed).shuffle(paths)  # noqa: S311 - repeatable, not secret
    chosen = paths[:samples]
    stage = Stage(
        folder=folder,
        parts={node: chosen[number :: len(system.nodes)] for number, node in enumerate(system.nodes)},
    )
    for node, part in stage.parts.items():
        _write_part(pictures, stage.node_folder(node), part)
    shutil.rmtree(pictures)
    return stage


def _write_part(pictures: Path, folder: Path, part: list[str]) -> None:
    for path in part:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        (pictures / path).replace(target)
    with (folder / "index.csv").open("w", newline="") as index:
        writer = csv.writer(index)
        writer.writerow(["path"])
        writer.writerows([path] for path in part)


def labels() -> dict[str, str]:
    """Return the true digit of each picture, which only the evaluator has."""
    with (data.path("examples") / "digits" / "labels.csv").open(newline="") as rows:
        return {row["path"]: row["label"] for row in csv.DictReader(rows)}
