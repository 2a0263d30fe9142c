# SPDX-License-Identifier: Apache-2.0
"""The archives of `make images`, where they were made: what they hold, as whom they run, how large they are."""

import json
import tarfile
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.fixtures import go_without
from tests.k8s.conftest import K8S

IMAGES = K8S.parent / "dist" / "images"
PARTS = ("cloud", "edge", "worker", "broker")
MIB = 1024 * 1024


class Archive:
    """An OCI archive of one image."""

    def __init__(self, file: Path) -> None:
        self.bytes = file.stat().st_size
        self.bill = json.loads(file.with_suffix(".cdx.json").read_text())
        with tarfile.open(file) as tar:
            self.index = self._json(tar, "index.json")
            self.manifest = self._json(tar, _blob(self.index["manifests"][0]["digest"]))
            self.config = self._json(tar, _blob(self.manifest["config"]["digest"]))
            self.docker = self._json(tar, "manifest.json")
            self.members = set(tar.getnames())
            self.files: set[str] = set()
            for layer in self.manifest["layers"]:
                with tarfile.open(fileobj=tar.extractfile(_blob(layer["digest"]))) as inner:
                    self.files |= set(inner.getnames())

    @staticmethod
    def _json(tar: tarfile.TarFile, name: str) -> Any:
        member = tar.extractfile(name)
        assert member is not None
        return json.load(member)


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


@pytest.fixture(scope="module", params=PARTS)
def image(request: pytest.FixtureRequest) -> tuple[str, Archive]:
    file = IMAGES / f"nereid-{request.param}.tar"
    if not file.exists():
        go_without("node", "no images: make images")
    return request.param, Archive(file)


@pytest.mark.slow
def test_an_image_says_what_it_is_and_runs_as_nobody(image: tuple[str, Archive]) -> None:
    part, archive = image
    config = archive.config["config"]
    assert config["User"] == ("1883:1883" if part == "broker" else "65532:65532")
    assert config["Labels"]["org.opencontainers.image.title"] == f"nereid-{part}"
    assert config["Labels"]["org.opencontainers.image.version"] == version("nereid-ai")


@pytest.mark.slow
def test_containerd_and_docker_find_it_under_the_name_of_the_manifests(image: tuple[str, Archive]) -> None:
    part, archive = image
    name = f"nereid-{part}:{version('nereid-ai')}"
    annotations = archive.index["manifests"][0]["annotations"]
    assert annotations["org.opencontainers.image.ref.name"] == f"docker.io/library/{name}"
    (entry,) = archive.docker
    assert entry["RepoTags"] == [name]
    assert {entry["Config"], *entry["Layers"]} <= archive.members


@pytest.mark.slow
def test_an_image_holds_its_own_part_only_and_no_shell(image: tuple[str, Archive]) -> None:
    part, archive = image
    ours = {"cloud": {"cloud", "shared"}, "edge": {"edge", "shared"}, "worker": {"worker", "shared"}, "broker": set()}
    found = {name.split("/")[2] for name in archive.files if name.startswith("app/lib/nereid_")}
    assert {name.removeprefix("nereid_") for name in found if not name.endswith(".dist-info")} == ours[part]
    assert not {"bin/sh", "usr/bin/sh", "usr/bin/dpkg", "usr/bin/apt-get"} & archive.files


@pytest.mark.slow
def test_the_localcontrollers_image_stays_small(image: tuple[str, Archive]) -> None:
    part, archive = image
    limits = {"edge": 24, "broker": 28, "cloud": 60, "worker": 160}
    assert archive.bytes < limits[part] * MIB
    if part == "edge":
        packages = {name.split("/")[2] for name in archive.files if name.startswith("app/lib/") and name.count("/") > 2}
        heavy = {"numpy", "cv2", "kubernetes", "pydantic", "ai_edge_litert"}
        assert not heavy & packages


@pytest.mark.slow
def test_an_images_bill_of_materials_lists_what_it_holds_as_locked(image: tuple[str, Archive]) -> None:
    part, archive = image
    bill = archive.bill
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["name"] == f"nereid-{part}"
    kinds: dict[str, dict[str, str]] = {"pypi": {}, "deb": {}}
    for component in bill["components"]:
        kind, name = component["purl"].removeprefix("pkg:").partition("@")[0].split("/", 1)
        kinds[kind][name.removeprefix("debian/")] = component["version"]
    inside = {name.split("/")[2] for name in archive.files if name.startswith("app/lib/")}
    assert len(kinds["pypi"]) == sum(name.endswith(".dist-info") for name in inside)
    lock = tomllib.loads((K8S.parent / "uv.lock").read_text())
    locked = {(package["name"], package["version"]) for package in lock["package"]}
    assert set(kinds["pypi"].items()) <= locked
    needed = {"broker": {"mosquitto"}, "edge": {"msgspec"}, "worker": {"ai-edge-litert"}, "cloud": {"kubernetes"}}[part]
    assert needed | {"libc6", "python3.11-minimal"} <= kinds["pypi"].keys() | kinds["deb"].keys()
