# SPDX-License-Identifier: Apache-2.0
"""The shipped digits example is whole, tells workers no labels, and its models do what their cards say."""

import csv
import hashlib
import io
import json
import tarfile
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from ai_edge_litert.interpreter import Interpreter

from nereid_shared.card import Card, model_path

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "digits"
SUBSET = 500
FLOORS = {"little": 0.63, "big": 0.83}
MODELS = tuple(FLOORS)
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def members() -> dict[str, tarfile.TarInfo]:
    with tarfile.open(EXAMPLE / "digits.tar.gz") as archive:
        found = archive.getmembers()
    assert len({member.name for member in found}) == len(found)
    return {member.name: member for member in found}


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    with tarfile.open(EXAMPLE / "digits.tar.gz") as archive:
        files = {member.name: archive.extractfile(member) for member in archive.getmembers()}
        return {name: file.read() for name, file in files.items() if file is not None}


@pytest.fixture(scope="module")
def labels() -> list[dict[str, str]]:
    with (EXAMPLE / "labels.csv").open(newline="") as rows:
        return list(csv.DictReader(rows))


def card_of(name: str) -> Card:
    return Card.load(EXAMPLE / "models" / name)


def model_of(name: str) -> Path:
    return model_path(EXAMPLE / "models" / name, card_of(name))


def decoded(data: bytes) -> npt.NDArray[np.uint8]:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert image is not None
    return image.astype(np.uint8, copy=False)


def outputs(name: str, encoded: list[bytes], *, batch: int = 1) -> npt.NDArray[np.float32]:
    """What the model answers when fed as its card says: grey, stretched linearly, divided by 255."""
    interpreter = Interpreter(str(model_of(name)), num_threads=1)
    tensor = interpreter.get_input_details()[0]
    _, height, width, channels = tensor["shape"]
    interpreter.resize_tensor_input(tensor["index"], [batch, height, width, channels])
    interpreter.allocate_tensors()
    rows = []
    for start in range(0, len(encoded), batch):
        images = [decoded(data) for data in encoded[start : start + batch]]
        resized = [cv2.resize(image, (int(width), int(height)), interpolation=cv2.INTER_LINEAR) for image in images]
        interpreter.set_tensor(tensor["index"], (np.stack(resized).astype(np.float32) / np.float32(255))[..., None])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
    return np.concatenate(rows)


def test_the_archive_holds_only_plain_relative_files_of_time_zero(members: dict[str, tarfile.TarInfo]) -> None:
    for name, member in members.items():
        path = PurePosixPath(name)
        assert member.isreg(), name
        assert not path.is_absolute(), name
        assert ".." not in path.parts, name
        assert (member.mtime, member.uid, member.gid, member.mode) == (0, 0, 0, 0o644), name


def test_index_archive_and_labels_name_the_same_images(
    contents: dict[str, bytes], labels: list[dict[str, str]]
) -> None:
    index = [row["path"] for row in csv.DictReader(io.StringIO(contents["index.csv"].decode()))]
    images = [name for name in contents if name != "index.csv"]
    assert index == images == [row["path"] for row in labels]
    assert len(index) > 1000


def test_workers_get_no_labels(contents: dict[str, bytes]) -> None:
    """Paths are the stream's own numbers, the index has no other column, and a frame has no chunk but its pixels."""
    assert contents["index.csv"].decode().splitlines()[0] == "path"
    frames = [data for name, data in contents.items() if name != "index.csv"]
    assert [name for name in contents if name != "index.csv"] == [f"images/{n:04d}.png" for n in range(len(frames))]
    for frame in frames:
        assert png_chunks(frame) <= {b"IHDR", b"IDAT", b"IEND"}


def png_chunks(data: bytes) -> set[bytes]:
    assert data.startswith(PNG)
    kinds, at = set(), len(PNG)
    while at < len(data):
        kinds.add(data[at + 4 : at + 8])
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return kinds


def test_labels_do_not_follow_the_order_of_the_stream(labels: list[dict[str, str]]) -> None:
    """The writers' form repeats 0..9; a stream in its order would give the next label away."""
    digits = np.array([int(row["label"]) for row in labels])
    assert set(digits) == set(range(10))
    for step in range(10):
        assert np.mean((digits[1:] - digits[:-1]) % 10 == step) < 0.15


def test_no_frame_of_the_stream_shows_a_scan_trained_or_tuned_on(labels: list[dict[str, str]]) -> None:
    assert min(int(row["scan"]) for row in labels) >= 1287
    by_scan: dict[str, set[str]] = {}
    for row in labels:
        by_scan.setdefault(row["scan"], set()).add(row["label"])
    assert all(len(found) == 1 for found in by_scan.values())


@pytest.mark.parametrize("name", MODELS)
def test_a_model_file_is_the_one_that_its_card_names(name: str) -> None:
    file, data = card_of(name).file, model_of(name).read_bytes()
    assert file is not None
    assert (hashlib.sha256(data).hexdigest(), len(data)) == (file.sha256, file.bytes)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("batch", [1, 2, 4])
def test_golden_outputs_come_out_again_at_any_batch_size(name: str, batch: int) -> None:
    golden = card_of(name).golden
    assert len(golden) == 4
    found = outputs(name, [(EXAMPLE / "models" / name / g.input).read_bytes() for g in golden], batch=batch)
    for row, wanted in zip(found, golden, strict=True):
        np.testing.assert_allclose(row, wanted.output, rtol=0, atol=wanted.tolerance)


def test_golden_inputs_are_not_frames_of_the_stream(contents: dict[str, bytes]) -> None:
    streamed = set(contents.values())
    for name in MODELS:
        for golden in (EXAMPLE / "models" / name / "golden").iterdir():
            assert golden.read_bytes() not in streamed


def test_both_models_reach_their_floors_and_the_big_one_is_better(
    contents: dict[str, bytes], labels: list[dict[str, str]]
) -> None:
    frames = [contents[row["path"]] for row in labels[:SUBSET]]
    truth = np.array([int(row["label"]) for row in labels[:SUBSET]])
    accuracy = {name: float(np.mean(outputs(name, frames).argmax(axis=1) == truth)) for name in MODELS}
    for name, floor in FLOORS.items():
        assert accuracy[name] > floor, accuracy
    assert accuracy["big"] > accuracy["little"] + 0.1


def test_sending_the_frames_below_the_rules_threshold_beats_the_little_model(
    contents: dict[str, bytes], labels: list[dict[str, str]]
) -> None:
    rule = json.loads((EXAMPLE / "rule.json").read_text())
    frames = [contents[row["path"]] for row in labels[:SUBSET]]
    truth = np.array([int(row["label"]) for row in labels[:SUBSET]])
    little, big = outputs("little", frames), outputs("big", frames).argmax(axis=1)
    powers = np.exp(little - little.max(axis=1, keepdims=True))
    ordered = np.sort(powers / powers.sum(axis=1, keepdims=True), axis=1)
    hard = ordered[:, -1] - ordered[:, -2] < float(rule["parameters"]["threshold"])
    joint = np.where(hard, big, little.argmax(axis=1))
    assert abs(hard.mean() - float(rule["budget"])) < 0.08
    assert np.mean(joint == truth) > np.mean(little.argmax(axis=1) == truth) + 0.03


def test_the_example_stays_small() -> None:
    files = [path for path in EXAMPLE.rglob("*") if path.is_file() and not {".venv", "__pycache__"} & set(path.parts)]
    assert sum(path.stat().st_size for path in files) < 5_000_000
