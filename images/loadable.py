# SPDX-License-Identifier: Apache-2.0
"""``loadable.py ARCHIVE IMAGE``: let an OCI archive be read by ``docker load`` too, which wants a manifest.json."""

import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any


def add_manifest(archive: Path, image: str) -> None:
    """Append Docker's manifest.json, which names the same blobs as the archive's OCI manifest."""
    with tarfile.open(archive) as tar:
        if "manifest.json" in tar.getnames():
            return
        manifest = _read(tar, "index.json")["manifests"][0]
        inner = _read(tar, _blob(manifest["digest"]))
    entry = {
        "Config": _blob(inner["config"]["digest"]),
        "RepoTags": [image.removeprefix("docker.io/library/")],
        "Layers": [_blob(layer["digest"]) for layer in inner["layers"]],
    }
    data = json.dumps([entry]).encode()
    member = tarfile.TarInfo("manifest.json")
    member.size = len(data)
    with tarfile.open(archive, "a") as tar:
        tar.addfile(member, io.BytesIO(data))


def _read(tar: tarfile.TarFile, name: str) -> Any:
    file = tar.extractfile(name)
    if file is None:
        raise SystemExit(f"{tar.name}: {name} is no file")
    return json.load(file)


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


if __name__ == "__main__":
    add_manifest(Path(sys.argv[1]), sys.argv[2])
