# SPDX-License-Identifier: Apache-2.0
"""What measurements infer on: pictures of a given size, and a model that costs next to nothing."""

import json
from pathlib import Path

import cv2
import numpy as np
from tests.tiny_models import brightness


def frame(size_bytes: int) -> bytes:
    """Return a JPEG of exactly this size, of noise as dense as a camera's picture."""
    rng = np.random.default_rng(1)
    side = max(8, int((size_bytes * 2.6) ** 0.5) // 8 * 8)
    while True:
        coarse = rng.integers(0, 256, (max(1, side // 16), max(1, side // 16)), np.uint8)
        picture = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC).astype(np.int16)
        noisy = np.clip(picture + rng.normal(0, 8, picture.shape), 0, 255).astype(np.uint8)
        body = bytes(cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes())
        if len(body) <= size_bytes:
            # What follows the end of the image is nobody's: decoders stop there.
            return body + b"\0" * (size_bytes - len(body))
        side -= 8


def card(folder: Path) -> Path:
    """Write a trivial model with its card, and return its path."""
    (folder / "tiny.tflite").write_bytes(brightness())
    said = {
        "schema": "nereid.io/model-card/v1", "name": "tiny", "version": "1", "task": "classification",
        "input": {
            "layout": "NHWC", "colorOrder": "GRAY", "resize": "stretch", "interpolation": "linear",
            "normalization": {"unit": "unit", "mean": [0.0], "std": [1.0]},
        },
        "output": {"kind": "logits", "labels": ["dark", "bright"]},
    }  # fmt: skip
    (folder / "model.json").write_text(json.dumps(said))
    return folder / "tiny.tflite"
