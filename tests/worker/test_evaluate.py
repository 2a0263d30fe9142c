# SPDX-License-Identifier: Apache-2.0
"""An evaluation of a real model on real digits, and of what cannot be evaluated."""

import csv
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from nereid_worker.evaluate import MAX_OUTCOME_BYTES, main

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
LITTLE = DIGITS / "models" / "little"
COUNT = 60


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    with tarfile.open(DIGITS / "digits.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    with (DIGITS / "labels.csv").open(newline="") as rows:
        labels = [(row["path"], row["label"]) for row in csv.DictReader(rows)][:COUNT]
    write(tmp_path / "labelled.csv", labels)
    return tmp_path


def write(index: Path, rows: list[tuple[str, str]]) -> None:
    with index.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *rows])


def outcome(
    capsys: pytest.CaptureFixture[str], index: Path, *more: str, model: Path = LITTLE
) -> tuple[int, dict[str, Any]]:
    code = main(["--model", str(model), "--data", str(index), "--format", "csv", *more])
    said = capsys.readouterr().out.strip().splitlines()[-1]
    assert len(said) <= MAX_OUTCOME_BYTES
    return code, json.loads(said)


def test_a_model_is_measured_on_what_is_labelled(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [tuple(line.split(",")) for line in (pictures / "labelled.csv").read_text().splitlines()[1:]]
    (pictures / "broken.png").write_bytes(b"no picture")
    more = [("broken.png", "1"), ("images/absent.png", "2"), (rows[0][0], "")]
    write(pictures / "labelled.csv", [*((path, label) for path, label in rows), *more])
    code, found = outcome(capsys, pictures / "labelled.csv")
    assert code == 0
    assert (found["samples"], found["unlabelled"]) == (COUNT + 3, 1)
    assert found["failed"] == {"missing": 1, "undecodable": 1}
    assert found["digest"] == json.loads((LITTLE / "model.json").read_text())["file"]["sha256"]
    figures = found["metrics"]
    assert figures["samples"] == str(COUNT)
    assert figures["sizeBytes"] == str((LITTLE / "little.tflite").stat().st_size)
    assert 0.5 < float(figures["accuracy"]) < 0.9
    assert 0 < float(figures["latencyP50Ms"]) <= float(figures["latencyP99Ms"])


def test_a_limit_takes_the_first(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(capsys, pictures / "labelled.csv", "--limit", "10")[1]["samples"] == 10


def test_the_outcome_goes_into_a_file(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = tmp_path / "result"
    index = pictures / "labelled.csv"
    assert main(["--model", str(LITTLE), "--data", str(index), "--format", "csv", "--result", str(result)]) == 0
    assert capsys.readouterr().out == ""
    assert json.loads(result.read_text())["samples"] == COUNT


@pytest.mark.parametrize(
    ("rows", "why"),
    [([("images/0000.png", "")], "1 have no class"), ([("images/0000.png", "cat")], "none of its classes (cat …)"),
     ([], "none of its 0 samples")],
)  # fmt: skip
def test_what_nothing_can_be_judged_by_is_refused(
    pictures: Path, capsys: pytest.CaptureFixture[str], rows: list[tuple[str, str]], why: str
) -> None:
    write(pictures / "labelled.csv", rows)
    code, found = outcome(capsys, pictures / "labelled.csv")
    assert (code, found["reason"]) == (2, "UserError")
    assert why in found["message"]
    assert str(pictures / "labelled.csv") in found["message"]


def test_a_model_that_is_not_there_is_said_with_its_reason(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = outcome(capsys, pictures / "labelled.csv", model=pictures / "absent.tflite")
    assert (code, found["reason"]) == (2, "ModelMissing")
    code, found = outcome(capsys, pictures / "labelled.csv", "--sha256", "0" * 64)
    assert (code, found["reason"]) == (2, "DigestMismatch")
