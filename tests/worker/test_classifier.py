# SPDX-License-Identifier: Apache-2.0
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tests import tiny_models

from nereid_shared.card import Card
from nereid_shared.errors import BadSample, ModelInvalid
from nereid_worker.classifier import Classifier, Prediction

ROOT = Path(__file__).parents[2]
INPUT: dict[str, Any] = {
    "layout": "NHWC", "colorOrder": "GRAY", "resize": "stretch", "interpolation": "linear",
    "normalization": {"unit": "unit", "mean": [0], "std": [1]},
}  # fmt: skip
# softmax of (4, -4): 1 / (1 + e^-8)
SURE = 0.9996646


def png(value: int, side: int = 8) -> bytes:
    done, data = cv2.imencode(".png", np.full((side, side), value, np.uint8))
    assert done
    return bytes(data)


def model_in(
    folder: Path, content: bytes, *, kind: str = "logits", labels: tuple[str, ...] = ("dark", "bright"), **more: Any
) -> Path:
    file = folder / "m.tflite"
    file.write_bytes(content)
    body = {
        "schema": "nereid.io/model-card/v1", "name": "brightness", "version": "1", "task": "classification",
        "input": INPUT | more.pop("input", {}),
        "output": {"kind": kind, "labels": labels, "minScore": more.pop("min_score", "0")},
    }  # fmt: skip
    (folder / "model.json").write_text(json.dumps(body | more))
    return file


def golden(folder: Path, output: list[float], *, value: int = 255) -> list[dict[str, Any]]:
    (folder / "golden").mkdir(exist_ok=True)
    (folder / "golden" / "0.png").write_bytes(png(value))
    return [{"input": "golden/0.png", "output": output, "tolerance": 0.001}]


@pytest.mark.parametrize(("value", "label", "score"), [(255, "bright", SURE), (0, "dark", SURE), (102, "dark", 0.8320)])
@pytest.mark.parametrize("softmax", [True, False])
def test_softmax_happens_exactly_once(tmp_path: Path, value: int, label: str, score: float, softmax: bool) -> None:
    # m = 102 / 255 = 0.4: logits (0.8, -0.8), p = 1 / (1 + e^-1.6)
    kind = "probabilities" if softmax else "logits"
    answer = Classifier.load(model_in(tmp_path, tiny_models.brightness(softmax=softmax), kind=kind)).predict(png(value))
    assert (answer.label, answer.index) == (label, ["dark", "bright"].index(label))
    assert answer.score == pytest.approx(score, abs=1e-4)
    assert answer.probabilities.tolist() == pytest.approx(
        [score, 1 - score] if label == "dark" else [1 - score, score], abs=1e-4
    )


def test_large_logits_do_not_overflow(tmp_path: Path) -> None:
    content = tiny_models.dense(np.zeros((2, 64)), np.array([1000.0, 1001.0]), (8, 8, 1))
    answer = Classifier.load(model_in(tmp_path, content)).predict(png(0))
    assert answer.probabilities.tolist() == pytest.approx([0.268941, 0.731059], abs=1e-5)  # 1 / (1 + e), e / (1 + e)


@pytest.mark.parametrize(("dtype", "zero_point"), [("uint8", 0), ("int8", -128)])
def test_a_quantised_model_answers_like_its_original(tmp_path: Path, dtype: str, zero_point: int) -> None:
    content = tiny_models.brightness(
        softmax=True,
        quantised_input=tiny_models.Quantised(dtype=dtype, zero_point=zero_point),  # type: ignore[arg-type] # a parameter
        quantised_output=tiny_models.Quantised(dtype=dtype, scale=1 / 256, zero_point=zero_point),  # type: ignore[arg-type]
    )
    model = Classifier.load(model_in(tmp_path, content, kind="probabilities"))
    assert model.predict(png(102)).score == pytest.approx(0.8320, abs=1 / 256)
    assert model.predict(png(255)).label == "bright"


def test_a_batch_answers_each_frame_as_it_would_alone(tmp_path: Path) -> None:
    model = Classifier.load(model_in(tmp_path, tiny_models.brightness()))
    frames: list[bytes | np.ndarray] = [png(20 * n) for n in range(11)]
    frames[3] = b"not a picture"
    frames[6] = np.full((4, 4, 3), 250, np.uint8)
    answers = model.predict_batch(frames)
    assert len(answers) == 11
    for number, answer in enumerate(answers):
        if number == 3:
            assert isinstance(answer, BadSample)
            assert answer.reason == "undecodable"
            continue
        alone = model.predict(frames[number])
        assert isinstance(answer, Prediction)
        assert answer.label == alone.label
        assert answer.score == pytest.approx(alone.score, abs=1e-5)


def test_a_batch_of_nothing_but_bad_frames_is_answered(tmp_path: Path) -> None:
    answers = Classifier.load(model_in(tmp_path, tiny_models.brightness())).predict_batch([b"", b"x"])
    assert [type(answer) for answer in answers] == [BadSample, BadSample]


@pytest.mark.parametrize("bias", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_scores_that_are_no_distribution_raise(tmp_path: Path, bias: float, kind: str) -> None:
    weights = np.zeros((2, 64)) if bias != 3e38 else np.full((2, 64), 3e38)
    content = tiny_models.dense(weights, np.array([0.0, bias]), (8, 8, 1))
    model = Classifier.load(model_in(tmp_path, content, kind=kind))
    with pytest.raises(BadSample) as caught:
        model.predict(png(255))
    assert caught.value.reason == "malformed-scores"
    (answer,) = model.predict_batch([png(255)])
    assert isinstance(answer, BadSample)


@pytest.mark.parametrize(("value", "fine"), [(1.0009, True), (1.0011, False), (-0.0009, True), (-0.0011, False)])
def test_probabilities_may_be_off_by_rounding_only(tmp_path: Path, value: float, fine: bool) -> None:
    content = tiny_models.dense(np.zeros((2, 64)), np.array([0.5, value]), (8, 8, 1))
    model = Classifier.load(model_in(tmp_path, content, kind="probabilities"))
    if fine:
        assert 0 <= model.predict(png(0)).score <= 1
    else:
        with pytest.raises(BadSample):
            model.predict(png(0))


def test_logits_taken_for_probabilities_are_found_out(tmp_path: Path) -> None:
    model = Classifier.load(model_in(tmp_path, tiny_models.brightness(), kind="probabilities"))
    with pytest.raises(BadSample):
        model.predict(png(255))


@pytest.mark.parametrize(("min_score", "label"), [("0.9", "bright"), ("0.90001", ""), ("0.89999", "bright")])
def test_an_answer_below_the_card_s_least_score_has_no_label(tmp_path: Path, min_score: str, label: str) -> None:
    content = tiny_models.dense(np.zeros((2, 64)), np.array([0.1, 0.9]), (8, 8, 1))
    model = Classifier.load(model_in(tmp_path, content, kind="probabilities", min_score=min_score))
    assert model.predict(png(0)).label == label


@pytest.mark.parametrize(
    ("card", "says"),
    [
        ({"labels": ("a", "b", "c")}, "output.labels has 3 names for 2 outputs"),
        ({"input": {"colorOrder": "RGB"}}, "means 3 channels, the tensor (1, 8, 8, 1) has 1"),
        ({"input": {"layout": "NCHW"}}, "means 1 channels, the tensor (1, 8, 8, 1) has 8"),
    ],
)
def test_a_card_that_contradicts_the_tensors_is_refused(tmp_path: Path, card: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelInvalid) as caught:
        Classifier.load(model_in(tmp_path, tiny_models.brightness(), **card))
    assert caught.value.reason == "CardMismatch"
    assert says in str(caught.value)
    assert str(tmp_path / "model.json") in str(caught.value)


def test_a_model_that_takes_no_picture_is_refused(tmp_path: Path) -> None:
    content = tiny_models.dense(np.zeros((2, 64)), np.zeros(2), (64,))
    with pytest.raises(ModelInvalid, match="four dimensions") as caught:
        Classifier.load(model_in(tmp_path, content))
    assert caught.value.reason == "CardMismatch"


def test_golden_inputs_that_come_out_right_leave_no_warning(tmp_path: Path) -> None:
    file = model_in(tmp_path, tiny_models.brightness(), golden=golden(tmp_path, [-4, 4]))
    assert Classifier.load(file).warnings == []


@pytest.mark.parametrize(
    "more",
    [
        {"output": [-4, 4.01]},
        {"output": [-4, 4], "input": {"normalization": {"unit": "byte", "mean": [0], "std": [1]}}},
        {"output": [-4, 4], "input": {"normalization": {"unit": "unit", "mean": [0.5], "std": [0.5]}}},
    ],
)
def test_a_golden_input_that_comes_out_wrong_is_refused(tmp_path: Path, more: dict[str, Any]) -> None:
    examples = golden(tmp_path, more.pop("output"), value=204)
    with pytest.raises(ModelInvalid, match=r"golden/0\.png") as caught:
        Classifier.load(model_in(tmp_path, tiny_models.brightness(), golden=examples, **more))
    assert caught.value.reason == "GoldenMismatch"


def test_another_model_of_the_same_shape_fails_the_golden_inputs(tmp_path: Path) -> None:
    other = tiny_models.dense(np.full((2, 64), 0.01), np.zeros(2), (8, 8, 1))
    with pytest.raises(ModelInvalid) as caught:
        Classifier.load(model_in(tmp_path, other, golden=golden(tmp_path, [-4, 4])))
    assert caught.value.reason == "GoldenMismatch"


def test_a_golden_output_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    broken = tiny_models.dense(np.zeros((2, 64)), np.array([np.nan, 4.0]), (8, 8, 1))
    with pytest.raises(ModelInvalid) as caught:
        Classifier.load(model_in(tmp_path, broken, golden=golden(tmp_path, [-4, 4])))
    assert caught.value.reason == "GoldenMismatch"


@pytest.mark.parametrize(("output", "reason"), [([1.0], "CardMismatch"), ([1.0, 2.0, 3.0], "CardMismatch")])
def test_a_golden_output_of_another_length_is_refused(tmp_path: Path, output: list[float], reason: str) -> None:
    with pytest.raises(ModelInvalid) as caught:
        Classifier.load(model_in(tmp_path, tiny_models.brightness(), golden=golden(tmp_path, output)))
    assert caught.value.reason == reason


def test_a_golden_input_that_is_missing_is_refused(tmp_path: Path) -> None:
    examples = golden(tmp_path, [-4, 4])
    (tmp_path / "golden" / "0.png").unlink()
    with pytest.raises(ModelInvalid, match=r"golden/0\.png") as caught:
        Classifier.load(model_in(tmp_path, tiny_models.brightness(), golden=examples))
    assert caught.value.reason == "CardInvalid"


def test_a_model_without_golden_inputs_runs_with_a_warning(tmp_path: Path) -> None:
    (warning,) = Classifier.load(model_in(tmp_path, tiny_models.brightness())).warnings
    assert warning.startswith("NoGoldenSamples: ")


@pytest.mark.parametrize("by", ["spec", "card"])
def test_a_file_of_another_digest_is_refused(tmp_path: Path, by: str) -> None:
    entry: dict[str, Any] = {"file": {"name": "m.tflite", "sha256": "0" * 64, "bytes": 1}} if by == "card" else {}
    file = model_in(tmp_path, tiny_models.brightness(), **entry)
    with pytest.raises(ModelInvalid, match="sha256") as caught:
        Classifier.load(file, sha256="0" * 64 if by == "spec" else "")
    assert caught.value.reason == "DigestMismatch"


def test_the_digest_is_that_of_the_file(tmp_path: Path) -> None:
    file = model_in(tmp_path, tiny_models.brightness())
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert Classifier.load(file, sha256=digest.upper()).digest == digest


@pytest.mark.parametrize(("missing", "reason"), [("m.tflite", "ModelMissing"), ("model.json", "CardMissing")])
def test_what_is_missing_is_named(tmp_path: Path, missing: str, reason: str) -> None:
    file = model_in(tmp_path, tiny_models.brightness())
    (tmp_path / missing).unlink()
    for path in (file, tmp_path):
        with pytest.raises(ModelInvalid) as caught:
            Classifier.load(path)
        assert caught.value.reason == reason


def test_a_card_may_be_given_instead(tmp_path: Path) -> None:
    file = model_in(tmp_path, tiny_models.brightness())
    card = Card.load(file)
    (tmp_path / "model.json").unlink()
    assert Classifier.load(file, card=card).predict(png(255)).label == "bright"


@pytest.mark.parametrize("name", ["little", "big"])
def test_the_shipped_models_reproduce_their_golden_outputs(name: str) -> None:
    model = Classifier.load(ROOT / "examples" / "digits" / "models" / name)
    assert model.labels == tuple("0123456789")
    assert model.warnings == []


def test_a_busy_model_is_slow_enough_to_measure_against() -> None:
    # It stands for a real little model in benches, on whatever machine: beside it what a call costs is nothing.
    from nereid_worker.litert import Interpreter  # noqa: PLC0415 - only this test runs it bare

    busy, frame = Interpreter(tiny_models.busy()), np.zeros((1, 48, 48, 3), np.float32)
    tiny, little = Interpreter(tiny_models.brightness()), np.zeros((1, 8, 8, 1), np.float32)
    pairs = [(_timed(lambda: busy.run(frame)), _timed(lambda: tiny.run(little))) for _ in range(50)]
    assert min(one for one, _ in pairs) > 10 * min(other for _, other in pairs)


def _timed(call: Any) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
