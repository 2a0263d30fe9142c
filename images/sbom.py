# SPDX-License-Identifier: Apache-2.0
"""``sbom.py ARCHIVE...``: write beside an OCI archive what the image in it holds, as CycloneDX 1.6 JSON.

It is read out of the image itself: Debian's packages from distroless' ``status.d``, Python's from their metadata. What
is compiled into a wheel (OpenCV's codecs, NumPy's OpenBLAS) is not listed apart from it.
"""

import json
import re
import sys
import tarfile
import uuid
from collections.abc import Iterator
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

DEBIAN = PurePosixPath("var/lib/dpkg/status.d")
PYTHON = PurePosixPath("app/lib")

Component = dict[str, Any]


def bill_of(archive: Path) -> dict[str, Any]:
    """Return the image's bill of materials; the same for the same image."""
    with tarfile.open(archive) as tar:
        digest = _read(tar, "index.json")["manifests"][0]["digest"]
        manifest = _read(tar, _blob(digest))
        config = _read(tar, _blob(manifest["config"]["digest"]))
        components = {
            component["bom-ref"]: component for layer in manifest["layers"] for component in _components(tar, layer)
        }
    labels = config["config"]["Labels"]
    name, version = (labels[f"org.opencontainers.image.{key}"] for key in ("title", "version"))
    purl = f"pkg:oci/{name}@{quote(digest, safe='')}?arch={config['architecture']}"
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, purl)}",
        "version": 1,
        "metadata": {
            "timestamp": config["created"],
            "component": {"type": "container", "bom-ref": purl, "name": name, "version": version, "purl": purl},
        },
        "components": sorted(components.values(), key=lambda component: str(component["bom-ref"])),
    }


def _components(tar: tarfile.TarFile, layer: dict[str, Any]) -> Iterator[Component]:
    with tarfile.open(fileobj=tar.extractfile(_blob(layer["digest"]))) as files:
        for member in files:
            path = PurePosixPath(member.name)
            debian = path.parent == DEBIAN and path.suffix != ".md5sums"
            python = path.parent.parent == PYTHON and path.parent.suffix == ".dist-info" and path.name == "METADATA"
            if not member.isfile() or not (debian or python):
                continue
            text = files.extractfile(member)
            assert text is not None  # noqa: S101 - it is a file
            fields = HeaderParser().parsestr(text.read().decode())
            yield _debian(fields) if debian else _python(fields)


def _debian(fields: Message) -> Component:
    name, version, arch = (str(fields[key]) for key in ("Package", "Version", "Architecture"))
    purl = f"pkg:deb/debian/{quote(name)}@{quote(version, safe='')}?arch={arch}&distro=debian-12"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _python(fields: Message) -> Component:
    name, version = (str(fields[key]) for key in ("Name", "Version"))
    purl = f"pkg:pypi/{re.sub('[-_.]+', '-', name).lower()}@{quote(version, safe='')}"
    component: Component = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    if (expression := fields["License-Expression"]) is not None:
        component["licenses"] = [{"expression": str(expression)}]
    return component


def _read(tar: tarfile.TarFile, name: str) -> Any:
    file = tar.extractfile(name)
    if file is None:
        raise SystemExit(f"{tar.name!r}: {name} is no file")
    return json.load(file)


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


if __name__ == "__main__":
    for given in sys.argv[1:]:
        file = Path(given).with_suffix(".cdx.json")
        file.write_text(json.dumps(bill_of(Path(given)), indent=1) + "\n")
