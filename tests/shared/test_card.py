# SPDX-License-Identifier: Apache-2.0
import copy
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nereid_shared.card import Card, card_path, model_path
from nereid_shared.errors import ModelInvalid

WHOLE: dict[str, Any] = {
    "schema": "nereid.io/model-card/v1",
    "name": "m",
    "version": "1",
    "task": "classification",
    "description": "",
    "input": {
        "layout": "NHWC", "colorOrder": "RGB", "resize": "letterbox", "interpolation": "linear", "letterboxValue": 0,
        "exif": True, "normalization": {"unit": "unit", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    },
    "output": {"kind": "logits", "labels": ["a", "b"], "minScore": "0"},
    "file": {"name": "m.tflite", "sha256": "0" * 64, "bytes": 1},
    "golden": [{"input": "golden/0.png", "output": [1, 0.5], "tolerance": 0.001}],
    "metrics": [{"key": "accuracy", "value": "0.9"}],
    "data": {"anything": [1, {"goes": None}]},
}  # fmt: skip
ROOT = Path(__file__).parents[2]


def written(folder: Path, body: object) -> Path:
    (folder / "model.json").write_text(json.dumps(body))
    return folder


def changed(field: str, value: object) -> dict[str, Any]:
    body = copy.deepcopy(WHOLE)
    *way, last = field.split(".")
    at: Any = body
    for step in way:
        at = at[int(step) if step.isdigit() else step]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return body


def test_a_whole_card_reads_and_writes_the_same(tmp_path: Path) -> None:
    card = Card.load(written(tmp_path, WHOLE))
    assert card.input.channels == 3
    assert json.loads(msgspec.json.encode(card)) == WHOLE


@pytest.mark.parametrize("field", ["description", "file", "golden", "metrics", "data", "input.exif", "output.minScore"])
def test_what_has_a_default_may_be_absent(tmp_path: Path, field: str) -> None:
    assert Card.load(written(tmp_path, changed(field, None))).name == "m"


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("schema", "nereid.io/model-card/v2", "schema: "),
        ("colorOrder", "RGB", "colorOrder: unknown field"),
        ("input.colourOrder", "RGB", "input.colourOrder: unknown field"),
        ("input.normalization.std", None, "input.normalization.std: missing"),
        ("input.normalization.std", [0], "input.normalization.std.0: "),
        ("input.normalization.mean", [1, 2], "input: normalization.mean should have 1 or 3 figures"),
        ("input.layout", "HWC", "input.layout: should be 'NHWC' or 'NCHW', not 'HWC'"),
        ("input.letterboxValue", 256, "input.letterboxValue: "),
        ("input.exif", "yes", "input.exif: "),
        ("output.labels", [], "output.labels: "),
        ("output.labels", ["a", "a"], "'a' stands more than once"),
        ("output.labels", ["", "b"], "output.labels.0: "),
        ("output.minScore", "1.5", "output.minScore: should be a decimal from 0 to 1"),
        ("output.minScore", 0, "output.minScore: "),
        ("output.minScore", "nan", "output.minScore: should be a decimal from 0 to 1"),
        ("file.sha256", "abc", "file.sha256: "),
        ("file.name", "/etc/passwd", "file.name: should be a path below"),
        ("golden.0.input", "../secret.png", "golden.0.input: should be a path below"),
        ("golden.0.tolerance", -1, "golden.0.tolerance: "),
        ("golden.0.output", [], "golden.0.output: "),
        ("input.normalization.mean", [], "input.normalization.mean: "),
        ("file.bytes", 0, "file.bytes: "),
        ("file.sha256", "0" * 64 + "\n", "file.sha256: "),
        ("name", "", "name: "),
        ("task", "detection", "task: should be 'classification', not 'detection'"),
    ],
)
def test_a_wrong_card_is_refused_with_file_field_and_mend(tmp_path: Path, field: str, value: object, says: str) -> None:
    body = changed(field, value)
    with pytest.raises(ModelInvalid) as caught:
        Card.load(written(tmp_path, body))
    assert caught.value.reason == "CardInvalid"
    assert str(tmp_path / "model.json") in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff\xfe", b'{"schema": NaN}', b'{"name": "\xff"}', b"[" * 9999])
def test_what_is_no_card_at_all_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "model.json").write_bytes(text)
    with pytest.raises(ModelInvalid) as caught:
        Card.load(tmp_path)
    assert caught.value.reason == "CardInvalid"


def test_a_missing_card_names_where_it_belongs(tmp_path: Path) -> None:
    with pytest.raises(ModelInvalid, match="nereid new") as caught:
        Card.load(tmp_path / "m.tflite")
    assert caught.value.reason == "CardMissing"
    assert str(tmp_path / "model.json") in str(caught.value)


def test_a_card_and_its_model_are_found_from_the_model_the_folder_and_the_card(tmp_path: Path) -> None:
    model = tmp_path / "m.tflite"
    model.write_bytes(b"x")
    card = Card.load(written(tmp_path, WHOLE))
    for path in (model, tmp_path, tmp_path / "model.json"):
        assert card_path(path) == tmp_path / "model.json"
        assert model_path(path, card) == model


def test_a_folder_with_two_models_needs_a_card_that_names_one(tmp_path: Path) -> None:
    for name in ("m.tflite", "n.tflite"):
        (tmp_path / name).write_bytes(b"x")
    assert model_path(tmp_path, Card.load(written(tmp_path, WHOLE))).name == "m.tflite"
    with pytest.raises(ModelInvalid, match="several") as caught:
        model_path(tmp_path)
    assert caught.value.reason == "ModelMissing"


@pytest.mark.parametrize("card", sorted((ROOT / "examples").glob("**/model.json")), ids=lambda p: p.parent.name)
def test_the_shipped_cards_are_valid(card: Path) -> None:
    assert model_path(card.parent, Card.load(card)).is_file()
