# SPDX-License-Identifier: Apache-2.0
import struct
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nereid_shared.card import Card
from nereid_shared.errors import BadSample
from nereid_worker.image_header import read_header
from nereid_worker.litert import TensorSpec
from nereid_worker.preprocess import Preprocessor

RED_BGR = (0, 0, 255)


def card(*, mean: list[float] | None = None, std: list[float] | None = None, unit: str = "byte", **more: Any) -> Card:
    picture = {
        "layout": "NHWC", "colorOrder": "RGB", "resize": "stretch", "interpolation": "nearest",
        "normalization": {"unit": unit, "mean": mean or [0], "std": std or [1]},
    }  # fmt: skip
    body = {
        "schema": "nereid.io/model-card/v1", "name": "m", "version": "1", "task": "classification",
        "input": picture | more, "output": {"kind": "logits", "labels": ["a"]},
    }  # fmt: skip
    return msgspec.convert(body, Card)


def tensor(*shape: int, dtype: str = "float32", scale: float = 1.0, zero_point: int = 0) -> TensorSpec:
    quantised = dtype != "float32"
    return TensorSpec(name="x", shape=(1, *shape), dtype=dtype, scale=scale, zero_point=zero_point, quantised=quantised)


def encoded(pixels: np.ndarray, kind: str = ".png", *options: int) -> bytes:
    done, data = cv2.imencode(kind, pixels, options)
    assert done
    return bytes(data)


def pixels(height: int = 2, width: int = 2, colour: tuple[int, ...] = RED_BGR) -> np.ndarray:
    return np.full((height, width, len(colour)), colour, np.uint8)


def with_exif(jpeg: bytes, orientation: int) -> bytes:
    entry = struct.pack("<HHII", 0x0112, 3, 1, orientation)
    body = b"Exif\0\0" + b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 1) + entry + struct.pack("<I", 0)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


@pytest.mark.parametrize(("order", "red"), [("RGB", [255, 0, 0]), ("BGR", [0, 0, 255]), ("GRAY", [76])])
@pytest.mark.parametrize("as_file", [True, False])
def test_colours_come_in_the_card_s_order(order: str, red: list[int], as_file: bool) -> None:
    made = Preprocessor(card(colorOrder=order), tensor(2, 2, len(red)))
    frame = encoded(pixels()) if as_file else pixels()
    assert made.one(frame).tolist() == [[[red] * 2] * 2]


@pytest.mark.parametrize(("order", "channels"), [("RGB", 3), ("GRAY", 1)])
@pytest.mark.parametrize("frame", [np.full((2, 2), 9, np.uint8), np.full((2, 2, 1), 9, np.uint8),
                                   encoded(np.full((2, 2), 9, np.uint8)), np.full((2, 2, 4), 9, np.uint8)])  # fmt: skip
def test_grey_and_transparent_frames_are_taken_too(order: str, channels: int, frame: np.ndarray | bytes) -> None:
    made = Preprocessor(card(colorOrder=order), tensor(2, 2, channels))
    assert np.all(made.one(frame) == 9)


def test_planes_come_first_where_the_card_says_so() -> None:
    made = Preprocessor(card(layout="NCHW"), tensor(3, 2, 4))
    assert (made.channels, made.height, made.width) == (3, 2, 4)
    assert made.one(pixels(2, 4))[0].tolist() == [[[255] * 4] * 2, [[0] * 4] * 2, [[0] * 4] * 2]


@pytest.mark.parametrize(
    ("unit", "mean", "std", "expected"),
    [
        ("unit", [0.0], [1.0], [1.0, 0.2, 0.0]),
        ("unit", [0.5], [0.5], [1.0, -0.6, -1.0]),
        ("unit", [0.5, 0.2, 0.1], [0.5, 1.0, 0.2], [1.0, 0.0, -0.5]),
        ("byte", [127.5], [127.5], [1.0, -0.6, -1.0]),
        ("byte", [5.0, 51.0, 10.0], [2.0, 1.0, 4.0], [125.0, 0.0, -2.5]),
    ],
)
def test_pixels_are_normalised_per_channel(
    unit: str, mean: list[float], std: list[float], expected: list[float]
) -> None:
    made = Preprocessor(card(unit=unit, mean=mean, std=std), tensor(1, 1, 3))
    assert made.one(pixels(1, 1, (0, 51, 255)))[0, 0, 0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("dtype", "scale", "zero_point", "stored"),
    [
        ("uint8", 1 / 255, 0, [0, 51, 255]),
        ("int8", 1 / 255, -128, [-128, -77, 127]),
        ("uint8", 0.5, 3, [3, 3, 5]),  # 0 / 0.5 = 0, 0.2 / 0.5 = 0.4, 1 / 0.5 = 2
        ("int8", 0.001, 0, [0, 127, 127]),  # clipped, not wrapped
    ],
)
def test_pixels_are_quantised_with_rounding_and_clipping(
    dtype: str, scale: float, zero_point: int, stored: list[int]
) -> None:
    made = Preprocessor(card(unit="unit"), tensor(1, 1, 3, dtype=dtype, scale=scale, zero_point=zero_point))
    row = made.one(pixels(1, 1, (255, 51, 0)))
    assert row.dtype == dtype
    assert row[0, 0, 0].tolist() == stored


@given(st.integers(0, 255), st.floats(1e-3, 0.1), st.integers(-128, 127))
def test_what_is_quantised_is_within_half_a_step_of_the_truth(value: int, scale: float, zero_point: int) -> None:
    spec = tensor(1, 1, 1, dtype="int8", scale=scale, zero_point=zero_point)
    stored = int(Preprocessor(card(colorOrder="GRAY", unit="unit"), spec).one(np.array([[value]], np.uint8)).item())
    lowest, highest = (-128 - zero_point) * scale, (127 - zero_point) * scale
    truth = min(max(value / 255, lowest), highest)
    assert abs((stored - zero_point) * scale - truth) <= scale / 2 + 1e-9


@pytest.mark.parametrize(
    ("height", "width", "inside"),
    [(2, 4, (slice(1, 3), slice(0, 4))), (4, 2, (slice(0, 4), slice(1, 3))), (4, 4, (slice(0, 4), slice(0, 4)))],
)
def test_a_letterbox_keeps_the_proportions_and_fills_the_rest(
    height: int, width: int, inside: tuple[slice, slice]
) -> None:
    made = Preprocessor(card(resize="letterbox", letterboxValue=7), tensor(4, 4, 3))
    expected = np.full((4, 4, 3), 7)
    expected[inside] = (255, 0, 0)
    for _ in range(2):  # the buffer is used again
        assert made.one(pixels(height, width)).tolist() == [expected.tolist()]
        assert made.one(pixels(height * 2, width * 2)).tolist() == [expected.tolist()]


@pytest.mark.parametrize(("interpolation", "expected"), [("nearest", [0, 0, 0, 0]), ("area", [50, 50, 50, 50])])
def test_the_card_s_interpolation_is_used(interpolation: str, expected: list[int]) -> None:
    stripes = np.tile(np.array([[0, 100]], np.uint8), (4, 2))
    made = Preprocessor(card(colorOrder="GRAY", interpolation=interpolation), tensor(2, 2, 1))
    assert made.one(stripes).ravel().tolist() == expected


@pytest.mark.parametrize(("exif", "top"), [(True, [0, 255]), (False, [255, 255])])
def test_a_jpeg_is_turned_as_its_exif_says_unless_the_card_forbids(exif: bool, top: list[int]) -> None:
    picture = np.zeros((16, 16), np.uint8)
    picture[:8] = 255
    turned = with_exif(encoded(picture, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 100), orientation=6)  # 90 degrees clockwise
    made = Preprocessor(card(colorOrder="GRAY", exif=exif), tensor(2, 2, 1))
    assert made.one(turned)[0, 0, :, 0].tolist() == pytest.approx(top, abs=3)


def test_a_16_bit_png_is_read_by_its_high_bytes() -> None:
    made = Preprocessor(card(colorOrder="GRAY"), tensor(1, 1, 1))
    assert made.one(encoded(np.full((1, 1), 0x1234, np.uint16))).item() == 0x12


def test_the_model_s_own_size_is_not_resized() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    made = Preprocessor(card(colorOrder="BGR", interpolation="cubic"), tensor(5, 7, 3))
    assert np.array_equal(made.one(encoded(noise))[0], noise)


JPEG = encoded(np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8), ".jpg")
PNG = encoded(np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8))


def test_a_header_tells_kind_and_size() -> None:
    for data, kind in ((JPEG, "jpeg"), (PNG, "png"), (with_exif(JPEG, 6), "jpeg")):
        header = read_header(data)
        assert (header.kind, header.width, header.height) == (kind, 48, 32)


def test_a_progressive_jpeg_is_understood() -> None:
    done, data = cv2.imencode(".jpg", pixels(64, 48), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    assert done
    assert (read_header(bytes(data)).width, read_header(bytes(data)).height) == (48, 64)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xff", b"\xff\xd8", b"hello", b"GIF89a", JPEG[: len(JPEG) // 2], JPEG[:-2], PNG[: len(PNG) // 2],
        PNG[:-12], PNG[:20], with_exif(JPEG, 1)[:-2], b"\xff\xd8" + b"\xff" * 64, b"\xff\xd8\xff\xe0\0\0" * 9,
    ],
)  # fmt: skip
def test_a_file_that_is_no_whole_picture_is_refused(data: bytes) -> None:
    with pytest.raises(BadSample) as caught:
        Preprocessor(card(), tensor(4, 4, 3)).one(data)
    assert caught.value.reason == "undecodable"


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_picture() -> None:
    thumbnail = b"\xff\xe1" + struct.pack(">H", len(JPEG) + 2) + JPEG
    whole = JPEG[:2] + thumbnail + JPEG[2:]
    assert read_header(whole).width == 48
    with pytest.raises(BadSample):
        read_header(whole[:-2])


def test_a_png_with_a_flipped_bit_is_refused() -> None:
    broken = bytearray(PNG)
    broken[len(PNG) // 2] ^= 0x10
    with pytest.raises(BadSample):
        Preprocessor(card(), tensor(4, 4, 3)).one(bytes(broken))


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_a_picture_bomb_is_refused_before_it_is_decoded(kind: str) -> None:
    if kind == "png":
        bomb = PNG[:16] + struct.pack(">II", 60000, 60000) + PNG[24:]
    else:
        at = JPEG.index(b"\xff\xc0")
        bomb = JPEG[: at + 5] + struct.pack(">HH", 60000, 60000) + JPEG[at + 9 :]
    with pytest.raises(BadSample, match="60000x60000 pixels exceed the limit"):
        Preprocessor(card(), tensor(4, 4, 3)).one(bomb)


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint16), np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 2), np.uint8), np.zeros((4,), np.uint8), np.zeros((1, 4, 4, 3), np.uint8),
    ],
)  # fmt: skip
def test_pixels_of_another_kind_are_refused(frame: np.ndarray) -> None:
    with pytest.raises(BadSample) as caught:
        Preprocessor(card(), tensor(4, 4, 3)).one(frame)
    assert caught.value.reason == "undecodable"


def test_a_view_that_is_not_contiguous_is_read_right() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    made = Preprocessor(card(colorOrder="BGR"), tensor(4, 8, 3))
    assert np.array_equal(made.one(noise[::-2])[0], noise[::-2])


@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff", PNG[:40], JPEG[:300]]))
def test_no_bytes_whatever_raise_anything_else(tail: bytes, head: bytes) -> None:
    with pytest.raises(BadSample):
        read_header(head + tail.replace(b"IEND", b"").replace(b"\xff\xd9", b""))
