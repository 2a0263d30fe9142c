# SPDX-License-Identifier: Apache-2.0
"""The scans, their split by the writers' forms, and the seeded streams of frames made from each part.

The split comes before any fault: no scan, and no form, is seen in two parts.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

from camera import FAMILIES, SIZE, Frame

HOME = Path(__file__).resolve().parent.parent
FIRST_FAMILY, SECOND_FAMILY = FAMILIES

# Every writer filled in the same form, so the labels begin again with 0..9 three times over at 0, 130, 256, 386, 516,
# 646, 776, 906, 1029, 1157, 1287, 1415, 1545 and 1667: 14 forms (UCI counts 13 writers). Parts end where a form ends.
PARTS = {"train": range(1029), "validation": range(1029, 1287), "test": range(1287, 1797)}
FORMS = {"train": 8, "validation": 2, "test": 4}
REPEATS = {"train": 40, "validation": 6, "test": 3}
SEEDS = {"train": 11, "validation": 22, "test": 33}
SIDES = {"little": 16, "big": 32}  # of each model's square input
FAMILY_SEEDS = {FIRST_FAMILY: 1, SECOND_FAMILY: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Frames in the order of their arrival: images [N,32,32], and per frame its label, scan and faults."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    scans: npt.NDArray[np.int64]
    faults: list[str]


def stream(part: str, family: str = FIRST_FAMILY, *, repeats: int | None = None) -> Stream:
    """The frames of one part, shuffled so that their order does not tell the form's order of labels."""
    digits = load_digits()
    pairs = [(scan, repeat) for repeat in range(repeats or REPEATS[part]) for scan in PARTS[part]]
    np.random.default_rng([SEEDS[part], FAMILY_SEEDS[family]]).shuffle(pairs)
    images = np.empty((len(pairs), SIZE, SIZE), np.uint8)
    faults = []
    for n, (scan, repeat) in enumerate(pairs):
        rng = np.random.default_rng([SEEDS[part], FAMILY_SEEDS[family], scan, repeat])
        images[n], fault = FAMILIES[family](digits.images[scan], rng)
        faults.append(fault)
    scans = np.array([scan for scan, _ in pairs])
    return Stream(images=images, labels=digits.target[scans], scans=scans, faults=faults)


def encoded(image: Frame) -> bytes:
    """The frame as PNG, level 9."""
    done, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if not done:
        raise ValueError("OpenCV could not encode a frame")
    return data.tobytes()


def preprocessed(images: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.float32]:
    """Decoded grey frames as the worker feeds them: linear resize, unit range, float32 [N,side,side,1]."""
    resized = [cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR) for image in images]
    return (np.stack(resized).astype(np.float32) / np.float32(255.0))[..., None]
