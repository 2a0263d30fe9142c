# SPDX-License-Identifier: Apache-2.0
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tests import tiny_models

CARD: dict[str, Any] = {
    "schema": "nereid.io/model-card/v1", "name": "brightness", "version": "1", "task": "classification",
    "input": {
        "layout": "NHWC", "colorOrder": "GRAY", "resize": "stretch", "interpolation": "linear",
        "normalization": {"unit": "unit", "mean": [0], "std": [1]},
    },
    "output": {"kind": "logits", "labels": ["dark", "bright"]},
}  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> Path:
    file = tmp_path / "m.tflite"
    file.write_bytes(tiny_models.brightness(quantised_input=tiny_models.Quantised()))
    (tmp_path / "model.json").write_text(json.dumps(CARD))
    for name, value in (("black", 0), ("white", 255)):
        assert cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((8, 8), value, np.uint8))
    return file


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nereid_worker.predict", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("by_folder", [True, False])
def test_each_picture_gets_a_line(model: Path, by_folder: bool) -> None:
    pictures = [model.parent / "black.png", model.parent / "white.png"]
    done = run(model.parent if by_folder else model, *pictures)
    assert done.returncode == 0
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["path"], line["label"]) for line in lines] == [
        (str(pictures[0]), "dark"),
        (str(pictures[1]), "bright"),
    ]
    assert lines[0]["score"] == pytest.approx(0.99966, abs=1e-4)
    assert [name for name, _ in lines[0]["top"]] == ["dark", "bright"]
    assert lines[1]["output"] == pytest.approx([-4, 4], abs=1e-4)
    assert "NoGoldenSamples" in done.stderr


def test_a_picture_without_an_answer_is_a_line_too(model: Path) -> None:
    broken = model.parent / "broken.png"
    broken.write_bytes(b"x")
    done = run(model, broken, model.parent / "none.png", model.parent / "white.png")
    assert done.returncode == 1
    assert [json.loads(line).get("error") for line in done.stdout.splitlines()] == ["undecodable", "unreadable", None]


def test_describe_needs_no_card(model: Path) -> None:
    (model.parent / "model.json").unlink()
    done = run(model, "--describe")
    told = json.loads(done.stdout)
    assert done.returncode == 0
    assert told["file"]["bytes"] == model.stat().st_size
    assert told["input"]["shape"] == [1, 8, 8, 1]
    assert told["input"]["dtype"] == "uint8"
    assert told["input"]["scale"] == pytest.approx(1 / 255)
    assert told["output"]["shape"] == [1, 2]
    assert told["output"]["quantised"] is False


def test_a_model_that_cannot_be_run_says_why_without_a_traceback(model: Path) -> None:
    (model.parent / "model.json").unlink()
    done = run(model, model.parent / "white.png")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith("CardMissing: ")
    assert "Traceback" not in done.stderr
