# SPDX-License-Identifier: Apache-2.0
"""The step that gives a server of others its version's files."""

import hashlib
import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from tests.shared.storage.file_server import serving

from nereid_shared import environment
from nereid_shared.errors import ModelInvalid
from nereid_shared.messages import ServedVersion, ServingTask
from nereid_worker.model_folder import place


def archive(*names: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(name), 0o600
            tar.addfile(entry, io.BytesIO(name.encode()))
    return packed.getvalue()


def task(url: str, sha256: str = "") -> ServingTask:
    return ServingTask(
        uid="u", namespace="default", name="digits", generation=1, hash="h", model_name="digits",
        framework="tensorflow", target="4", versions=[ServedVersion(version="4", url=url, sha256=sha256)], port=8501,
    )  # fmt: skip


def placed(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("prefix", ["", "model_emotion_4/", "a/b/"])
def test_an_archives_files_come_to_the_versions_folder(prefix: str, tmp_path: Path) -> None:
    content = archive(f"{prefix}saved_model.pb", f"{prefix}variables/variables.index")
    folder = tmp_path / "models" / "digits" / "4"
    with serving() as server:
        server.files = {"/model_4.tar.gz": content}
        given = task(server.url_of("/model_4.tar.gz"), hashlib.sha256(content).hexdigest())
        place(given, folder, scratch=tmp_path / "scratch")
    assert placed(folder) == {"saved_model.pb", "variables/variables.index"}
    assert oct((folder / "saved_model.pb").stat().st_mode & 0o777) == "0o644"
    assert [path.name for path in folder.parent.iterdir()] == ["4"]


def test_a_single_file_comes_under_its_name_and_replaces_what_was_there(tmp_path: Path) -> None:
    model, folder = tmp_path / "digits.tflite", tmp_path / "models" / "4"
    model.write_bytes(b"model")
    folder.mkdir(parents=True)
    (folder / "former").touch()
    place(task(str(model)), folder, scratch=tmp_path / "scratch")
    assert placed(folder) == {"digits.tflite"}


def test_a_wrong_digest_leaves_what_was_there(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "4"
    folder.mkdir(parents=True)
    (folder / "former").touch()
    with serving() as server:
        server.files = {"/m.tar.gz": archive("saved_model.pb")}
        with pytest.raises(ModelInvalid) as refusal:
            place(task(server.url_of("/m.tar.gz"), "0" * 64), folder, scratch=tmp_path / "scratch")
    assert refusal.value.reason == "DigestMismatch"
    assert placed(folder) == {"former"}


def run(folder: Path, given: ServingTask) -> subprocess.CompletedProcess[str]:
    env = {environment.TASK: given.encode().decode(), environment.MODELS: str(folder / "out"), "TMPDIR": str(folder)}
    argv = [sys.executable, "-m", "nereid_worker.model_folder"]
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=60)


def test_the_step_ends_with_its_reason_as_the_last_line(tmp_path: Path) -> None:
    model = tmp_path / "digits.tflite"
    model.write_bytes(b"model")
    done = run(tmp_path, task(str(model)))
    assert (done.returncode, placed(tmp_path / "out")) == (0, {"digits.tflite"})
    packed = tmp_path / "model_4.tar.gz"
    packed.write_bytes(archive("model_4/saved_model.pb"))
    done = run(tmp_path, task(str(packed)))
    assert (done.returncode, placed(tmp_path / "out")) == (0, {"saved_model.pb"})
    failed = run(tmp_path, task(str(tmp_path / "absent.tflite")))
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith("ModelMissing: ")
    assert not list(tmp_path.glob("nereid-*")), "nothing is left of the download"
