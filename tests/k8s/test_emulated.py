# SPDX-License-Identifier: Apache-2.0
"""Images of other machines under QEMU: a LocalController comes up, a worker infers what it would here."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from tests.flow.patience import until
from tests.k8s.conftest import K8S
from tests.mosquitto import Mosquitto, free_port

pytestmark = [pytest.mark.slow]

IMAGES = K8S.parent / "dist" / "images"
MODEL = K8S.parent / "examples" / "digits" / "models" / "little" / "little.tflite"
QEMU = {"arm64": "qemu-aarch64-static", "arm": "qemu-arm-static"}
START_S = 90.0  # some 10 s on an idle machine
INFER = """
import json, sys
import numpy as np
from nereid_worker.litert import Interpreter
interpreter = Interpreter(open(sys.argv[1], "rb").read())
picture = np.arange(np.prod(interpreter.input.shape)).reshape(interpreter.input.shape) % 251 / 250
print(json.dumps(interpreter.run(picture.astype(interpreter.input.dtype)).ravel().tolist()))
"""


def unpacked(folder: Path, part: str, arch: str) -> list[str]:
    """Unpack an image; returns the arguments that run its Python."""
    archive, qemu = IMAGES / arch / f"nereid-{part}.tar", shutil.which(QEMU[arch])
    if not archive.exists():
        pytest.skip(f'no image of {arch}: make images ARCH="amd64 {arch}"')
    if qemu is None or os.geteuid() != 0:
        pytest.skip("no emulation: as root, apt-get install qemu-user-static")
    with tarfile.open(archive) as tar:
        manifest = _json(tar, _json(tar, None)["manifests"][0]["digest"])
        for layer in manifest["layers"]:
            with tarfile.open(fileobj=tar.extractfile(_blob(layer["digest"]))) as files:
                files.extractall(folder, filter="tar")
    shutil.copy(qemu, folder / "qemu")
    (folder / "tmp").mkdir(exist_ok=True)
    (folder / "dev").mkdir(exist_ok=True)
    return ["chroot", str(folder), "/qemu", "/usr/bin/python3.11"]


def _json(tar: tarfile.TarFile, digest: str | None) -> dict[str, list[dict[str, str]]]:
    file = tar.extractfile(_blob(digest) if digest else "index.json")
    assert file is not None
    read: dict[str, list[dict[str, str]]] = json.load(file)
    return read


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, TimeoutError):
        return False


@pytest.mark.parametrize("arch", ["arm64", "arm"])
def test_a_localcontroller_comes_up(arch: str, tmp_path: Path, broker: Mosquitto) -> None:
    python = unpacked(tmp_path / "root", "edge", arch)
    port, edge = free_port(), Mosquitto(tmp_path / "edge")
    edge.start()
    argv = [*python, "-m", "nereid_edge", "--node=edge-0", "--state=/tmp/lc", f"--cloud-broker={broker.url}",
            f"--edge-broker={edge.url}", f"--health=127.0.0.1:{port}"]  # fmt: skip
    process = subprocess.Popen(argv, env=os.environ | {"PYTHONPATH": "/app/lib"})
    try:
        until(lambda: process.poll() is not None or is_ready(port), "a LocalController", within_s=START_S)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
        edge.stop()


def test_a_worker_infers_what_it_would_here(tmp_path: Path) -> None:
    python = unpacked(tmp_path / "root", "worker", "arm64")
    shutil.copy(MODEL, tmp_path / "root" / "tmp" / "model.tflite")
    there = infer([*python, "-c", INFER, "/tmp/model.tflite"], {"PYTHONPATH": "/app/lib"})
    here = infer([sys.executable, "-c", INFER, str(MODEL)], {})
    assert len(here) == 10
    assert there == pytest.approx(here, rel=1e-3, abs=1e-3)


def infer(argv: list[str], environment: dict[str, str]) -> list[float]:
    done = subprocess.run(
        argv, env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True, timeout=100
    )
    scores: list[float] = json.loads(done.stdout)
    return scores
