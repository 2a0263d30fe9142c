# SPDX-License-Identifier: Apache-2.0
"""TensorFlow Serving's REST, with bodies as https://www.tensorflow.org/tfx/serving/api_rest writes them."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.worker.serving.http import get, post
from tests.worker.serving.served import MODEL, model_in, png, serving, task_of, url, version_of

WHITE = [[[1.0]] * 8] * 8
B64 = {"b64": base64.b64encode(png(255)).decode()}

ROWS: list[tuple[str, list[Any]]] = [
    ("figures", [WHITE, WHITE]),
    ("figures by the input's name", [{"t0": WHITE}, {"t0": WHITE}]),
    ("pictures", [B64, B64]),
    ("pictures by the input's name", [{"t0": B64}, {"t0": B64}]),
    ("pictures by a name", [{"image_bytes": B64}, {"image_bytes": B64}]),
]
COLUMNS: list[tuple[str, Any, int]] = [
    ("figures", [WHITE, WHITE], 2),
    ("figures by the input's name", {"t0": [WHITE, WHITE]}, 2),
    ("pictures", [B64, B64], 2),
    ("pictures by a name", {"image": [B64, B64]}, 2),
    ("one picture", {"image": B64}, 1),
    ("a bare picture", B64, 1),
]


async def test_predict_takes_rows_and_answers_in_rows(tmp_path: Path) -> None:
    async with serving(task_of(version_of(model_in(tmp_path), "4"))) as process:
        for path in ("", "/versions/4", "/labels/stable"):
            for what, instances in ROWS:
                body = {"signature_name": "serving_default", "instances": instances}
                status, said = await post(url(process, f"/v1/models/{MODEL}{path}:predict"), body)
                assert (status, list(said)) == (200, ["predictions"]), (what, said)
                np.testing.assert_allclose(said["predictions"], [[-8, 8]] * 2, atol=1e-5)


async def test_predict_takes_columns_and_answers_in_columns(tmp_path: Path) -> None:
    async with serving(task_of(version_of(model_in(tmp_path), "4"))) as process:
        for what, inputs, rows in COLUMNS:
            status, said = await post(url(process, f"/v1/models/{MODEL}:predict"), {"inputs": inputs})
            assert (status, list(said)) == (200, ["outputs"]), (what, said)
            np.testing.assert_allclose(said["outputs"], [[-8, 8]] * rows, atol=1e-5)


async def test_classify_answers_labels_with_probabilities(tmp_path: Path) -> None:
    body = {"signature_name": "serving_default", "context": {}, "examples": [{"image": B64}, {"t0": B64}]}
    async with serving(task_of(version_of(model_in(tmp_path), "4"))) as process:
        status, said = await post(url(process, f"/v1/models/{MODEL}:classify"), body)
        assert status == 200
        for example in said["result"]:
            assert [label for label, _ in example] == ["bright", "dark"]
            assert sum(score for _, score in example) == pytest.approx(1.0)
            assert example[0][1] == pytest.approx(1.0, abs=1e-4)


async def test_status_and_metadata_are_those_of_a_servable(tmp_path: Path) -> None:
    versions = [version_of(model_in(tmp_path / n, shift=float(n)), n) for n in ("3", "4")]
    bad = version_of(tmp_path / "missing.tflite", "5")
    async with serving(task_of(*versions, bad, target="4")) as process:
        await process.versions.until(lambda: process.versions.problem is not None)
        status, said = await get(url(process, f"/v1/models/{MODEL}"))
        assert status == 200
        assert {one["version"]: one["state"] for one in said["model_version_status"]} == {
            "4": "AVAILABLE", "3": "AVAILABLE", "5": "END",
        }  # fmt: skip
        status, said = await get(url(process, f"/v1/models/{MODEL}/versions/5"))
        assert "ModelMissing" in said["model_version_status"][0]["status"]["error_message"]
        status, said = await get(url(process, f"/v1/models/{MODEL}/metadata"))
        assert said["model_spec"] == {"name": MODEL, "signature_name": "", "version": "4"}
        signature = said["metadata"]["signature_def"]["signature_def"]["serving_default"]
        assert signature["inputs"]["t0"]["dtype"] == "DT_FLOAT"
        assert [one["size"] for one in signature["inputs"]["t0"]["tensor_shape"]["dim"]] == ["-1", "8", "8", "1"]


async def test_errors_are_said_as_tensorflow_serving_says_them(tmp_path: Path) -> None:
    async with serving(task_of(version_of(model_in(tmp_path), "4"))) as process:
        model = url(process, f"/v1/models/{MODEL}")
        wrong: list[tuple[str, bytes | dict[str, Any], int, str]] = [
            (f"{model}:predict", b"{", 400, "JSON Parse error"),
            (f"{model}:predict", {"signature_name": "x", "instances": [WHITE]}, 400, "signature name"),
            (f"{model}:predict", {}, 400, "'inputs' or 'instances'"),
            (f"{model}:predict", {"instances": [WHITE], "inputs": [WHITE]}, 400, "not both"),
            (f"{model}:predict", {"instances": []}, 400, "none"),
            (f"{model}:predict", {"instances": [1.0]}, 400, "FP32 of shape [-1, 8, 8, 1]"),
            (f"{model}:predict", {"instances": [{"x": WHITE}]}, 400, "the model has one, 't0'"),
            (f"{model}:predict", {"instances": [B64, WHITE]}, 400, "instances: Expected"),
            (f"{model}:predict", {"instances": [{"b64": "AAAA"}]}, 400, "not a picture"),
            (f"{model}:predict", {"inputs": {"t0": [WHITE], "x": 1}}, 400, "the model has one, 't0'"),
            (f"{model}:classify", {"examples": []}, 400, "none"),
            (f"{model}/versions/9:predict", {"instances": [WHITE]}, 404, f"Specific({MODEL}, 9)"),
            (f"{model}/labels/canary:predict", {"instances": [WHITE]}, 404, f"Label({MODEL}, canary)"),
            (url(process, "/v1/models/x:predict"), {"instances": [WHITE]}, 404, "Latest(x)"),
            (f"{model}:regress", {}, 404, "Malformed request: POST"),
        ]
        for path, body, code, words in wrong:
            status, said = await post(path, body)
            assert (status, words in said["error"]) == (code, True), (path, said)
        assert (await get(f"{model}/versions/9"))[0] == 404
