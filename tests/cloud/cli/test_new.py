# SPDX-License-Identifier: Apache-2.0
"""``nereid new``: two models and a folder become manifests that the cluster accepts."""

import json
import os
import pty
import shutil
import subprocess
import sys
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from nereid_cloud import data
from nereid_cloud.cluster.kinds import NAMESPACE
from nereid_cloud.cluster.local import LocalCluster
from nereid_cloud.scaffold import pace

pytestmark = pytest.mark.slow  # each test starts processes

ANSWERS = ("--normalization", "0..1", "--labels", "0,1,2,3,4,5,6,7,8,9", "--output", "logits")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder with two bare models and some pictures."""
    digits = data.path("examples") / "digits"
    for role in ("little", "big"):
        (tmp_path / role).mkdir()
        shutil.copy(digits / "models" / role / f"{role}.tflite", tmp_path / role)
    with tarfile.open(digits / "digits.tar.gz") as archive:
        members = [member for member in archive if member.name.endswith(".png")][:8]
        archive.extractall(tmp_path / "pictures", members, filter="data")
    return tmp_path


def new(own: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [
        sys.executable, "-m", "nereid_cloud.cli", "new", "mine", "--little", "little/little.tflite",
        "--big", "big/big.tflite", "--images", "pictures", *arguments,
    ]  # fmt: skip
    return subprocess.run(argv, cwd=own, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def test_it_writes_cards_and_manifests_that_the_cluster_takes(own: Path) -> None:
    done = new(own, *ANSWERS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(".png") == 10
    manifests = list(yaml.safe_load_all((own / "mine" / "mine.yaml").read_text()))
    cluster = LocalCluster(own / "cluster.db")
    assert cluster.list(NAMESPACE).items
    for manifest in manifests:
        manifest["metadata"]["namespace"] = "default"
        cluster.apply(manifest, manager="test")
    cluster.close()
    assert [manifest["kind"] for manifest in manifests] == ["Model", "Model", "Dataset", "JointInferenceService"]
    assert [model["spec"]["task"] for model in manifests[:2]] == ["classification"] * 2
    assert all(len(model["spec"]["labels"]) == 10 for model in manifests[:2])
    index = Path(manifests[2]["spec"]["dataUrl"])
    paths = index.read_text().splitlines()[1:]
    assert len(paths) == 8
    assert all((index.parent / path).is_file() for path in paths)
    assert "# fps 0.066: the 8 pictures last 2 minutes" in (own / "mine" / "mine.yaml").read_text()


def test_the_cards_hold_golden_outputs_that_the_models_reproduce(own: Path) -> None:
    assert new(own, *ANSWERS).returncode == 0
    for role in ("little", "big"):
        card = json.loads((own / "mine" / "models" / role / "model.json").read_text())
        assert len(card["golden"]) == 3
        argv = [sys.executable, "-m", "nereid_worker.predict", str(own / "mine" / "models" / role)]
        assert subprocess.run(argv, check=False, capture_output=True).returncode == 0


def test_a_card_beside_the_model_is_taken_and_nothing_asked(own: Path) -> None:
    digits = data.path("examples") / "digits" / "models"
    for role in ("little", "big"):
        shutil.copy(digits / role / "model.json", own / role)
        shutil.copytree(digits / role / "golden", own / role / "golden")
    assert new(own).returncode == 0


@pytest.mark.parametrize(("pictures", "fps"), [(8, "0.066"), (120, "1"), (1530, "12.75"), (100_000, "20")])
def test_a_small_folder_is_read_slowly_enough_to_watch(pictures: int, fps: str) -> None:
    assert pace(pictures) == fps


def test_at_the_prompt_a_refusal_says_why_and_asks_that_again(own: Path) -> None:
    answers = ["0..2", "0..1", "logit", "logits", "a,b", ANSWERS[3], "", "", ""]
    said, code = at_a_terminal(own, answers)
    assert code == 0, said
    for words in ("'0..2' is none of 0..1, ", "'logit' is none of logits, ", "2 labels for 10 classes"):
        assert said.count(words) == 1
    assert said.count("little: what the model takes pixels as") == 2


def at_a_terminal(own: Path, answers: list[str]) -> tuple[str, int]:
    """Answer the questions of ``nereid new`` on a terminal; return what it showed, and its exit code."""
    ours, its = pty.openpty()
    argv = [
        sys.executable, "-m", "nereid_cloud.cli", "new", "mine", "--little", "little/little.tflite",
        "--big", "big/big.tflite", "--images", "pictures",
    ]  # fmt: skip
    with subprocess.Popen(argv, cwd=own, stdin=its, stdout=its, stderr=its) as process:
        os.close(its)
        os.write(ours, "".join(f"{answer}\n" for answer in answers).encode())
        said = b""
        with suppress(OSError):  # the terminal's end, as Linux says it
            while some := os.read(ours, 65536):
                said += some
        code = process.wait(60)
    os.close(ours)
    return said.decode(), code


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("--normalization", "little", "-1..1")),
        (("--normalization", "0..2"), ("--normalization", "0..2", "-1..1")),
        (("--normalization", "0..1", "--output", "logits", "--labels", "a,b"), ("--labels", "2 labels for 10")),
    ],
)
def test_what_the_tensors_cannot_tell_is_asked_for_by_name(
    own: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    done = new(own, *arguments)
    assert done.returncode == 2
    assert all(word in done.stderr for word in words)
    assert not (own / "mine").exists()


def test_answers_that_no_picture_survives_are_refused(own: Path) -> None:
    done = new(own, "--normalization", "0..1", "--labels", "0,1,2,3,4,5,6,7,8,9", "--output", "probabilities")
    assert done.returncode == 2
    assert "--output logits" in done.stderr
    assert not (own / "mine").exists()


def test_a_broken_model_is_named(own: Path) -> None:
    (own / "big" / "big.tflite").write_bytes(b"no model")
    done = new(own, *ANSWERS)
    assert done.returncode == 2
    assert "big.tflite" in done.stderr
    assert "Traceback" not in done.stderr
