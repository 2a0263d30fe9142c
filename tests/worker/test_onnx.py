# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests import tiny_models, tiny_onnx

from nereid_shared.errors import ModelInvalid
from nereid_worker.classifier import Classifier
from nereid_worker.litert import Interpreter
from nereid_worker.onnx import MOST_ROWS, OnnxInterpreter


@pytest.mark.parametrize("batch", ["N", "", 1])
@pytest.mark.parametrize("rows", [0, 1, 7, MOST_ROWS + 3])
def test_it_gives_what_litert_gives_for_the_same_weights(batch: int | str, rows: int) -> None:
    given = np.random.default_rng(1).random((rows, 8, 8, 1)).astype(np.float32)
    ours = OnnxInterpreter(tiny_onnx.brightness(batch=batch))
    assert ours.run(given).dtype == np.float32
    np.testing.assert_allclose(ours.run(given), Interpreter(tiny_models.brightness()).run(given), atol=1e-5)


def test_its_tensors_are_named_with_a_batch_of_one() -> None:
    model = OnnxInterpreter(tiny_onnx.brightness())
    assert (model.input.name, model.input.shape, model.input.dtype) == ("x", (1, 8, 8, 1), "float32")
    assert (model.output.name, model.output.shape, model.output.quantised) == ("y", (1, 2), False)


@pytest.mark.parametrize(
    ("content", "reason", "words"),
    [
        (b"TFL3" * 99, "ModelCorrupt", "not an ONNX model"),
        (tiny_onnx.brightness()[:200], "ModelCorrupt", "not an ONNX model"),
        (tiny_onnx.brightness(batch=4), "ModelUnsupported", "first must be the batch"),
        (tiny_onnx.dense(np.ones((2, 4)), np.ones(2), (4,), kind="Nothing"), "ModelCorrupt", "Nothing"),
    ],
)
def test_what_cannot_be_run_is_refused_with_its_reason(content: bytes, reason: str, words: str) -> None:
    with pytest.raises(ModelInvalid, match=words) as caught:
        OnnxInterpreter(content, where="m.onnx")
    assert caught.value.reason == reason
    assert "m.onnx" in str(caught.value)


def test_a_classifier_finds_an_onnx_file_and_opens_it(tmp_path: Path) -> None:
    (tmp_path / "bright.onnx").write_bytes(tiny_onnx.brightness())
    done, white = cv2.imencode(".png", np.full((8, 8), 255, np.uint8))
    assert done
    (tmp_path / "white.png").write_bytes(bytes(white))
    body = {
        "schema": "nereid.io/model-card/v1", "name": "b", "version": "1", "task": "classification",
        "input": {
            "layout": "NHWC", "colorOrder": "GRAY", "resize": "stretch", "interpolation": "linear",
            "normalization": {"unit": "unit", "mean": [0], "std": [1]},
        },
        "output": {"kind": "logits", "labels": ["dark", "bright"]},
        "golden": [{"input": "white.png", "output": [-4.0, 4.0]}],
    }  # fmt: skip
    (tmp_path / "model.json").write_text(json.dumps(body))
    assert Classifier.load(tmp_path).predict(bytes(white)).label == "bright"
