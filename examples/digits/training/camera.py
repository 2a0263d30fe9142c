# SPDX-License-Identifier: Apache-2.0
"""A pretended camera: one 8x8 scan becomes one 32x32 grey frame, with the faults of a family.

All arithmetic is NumPy in float64 and rounded once, so the same seed gives the same pixels on any machine.
Nothing here knows labels, splits or files.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Frame = npt.NDArray[np.uint8]

SIZE = 32
SCAN = 8
PIXELS_PER_CELL = 3.0  # the digit fills 24 of 32 pixels, so a shift has room before it cuts ink off
CLEAN_SHARE = 0.15

_GRID = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE), indexing="ij")).astype(np.float64)


def _ink(scan: Floats, *, shift: tuple[float, float] = (0.0, 0.0), turn: float = 0.0, scale: float = 1.0) -> Floats:
    """Ink in 0..1 on the frame's pixels: the scan moved by pixels, turned by radians, scaled, bilinear."""
    row, column = _GRID[0] - (SIZE - 1) / 2 - shift[0], _GRID[1] - (SIZE - 1) / 2 - shift[1]
    cosine, sine, cell = np.cos(turn), np.sin(turn), PIXELS_PER_CELL * scale
    y = np.clip((cosine * row + sine * column) / cell + (SCAN - 1) / 2 + 1, 0, SCAN + 1)
    x = np.clip((cosine * column - sine * row) / cell + (SCAN - 1) / 2 + 1, 0, SCAN + 1)
    padded = np.pad(scan / 16.0, 1)
    top, left = np.minimum(y.astype(int), SCAN), np.minimum(x.astype(int), SCAN)
    down, right = y - top, x - left
    upper = padded[top, left] * (1 - right) + padded[top, left + 1] * right
    lower = padded[top + 1, left] * (1 - right) + padded[top + 1, left + 1] * right
    return upper * (1 - down) + lower * down


def _photograph(ink: Floats, rng: np.random.Generator) -> Floats:
    """Dark ink on light paper under a light that falls off to one side."""
    paper, pen = rng.uniform(185, 225), rng.uniform(35, 75)
    slope = rng.uniform(-0.6, 0.6, size=2)
    light = slope[0] * (_GRID[0] - SIZE / 2) + slope[1] * (_GRID[1] - SIZE / 2)
    return paper + (pen - paper) * ink + light


def _convolve(image: Floats, kernel: Floats) -> Floats:
    """The image under a small odd kernel, edges repeated."""
    reach = kernel.shape[0] // 2
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(image, reach, mode="edge"), kernel.shape)
    return np.einsum("ijkl,kl->ij", windows, kernel)


def _blur(image: Floats, sigma: float) -> Floats:
    reach = int(np.ceil(2.5 * sigma))
    bell = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    bell /= bell.sum()
    along = np.pad(image, reach, mode="edge")
    along = np.stack([along[i : i + SIZE] for i in range(2 * reach + 1)], axis=-1) @ bell
    return np.stack([along[:, i : i + SIZE] for i in range(2 * reach + 1)], axis=-1) @ bell


def first_family(scan: Floats, rng: np.random.Generator) -> tuple[Frame, str]:
    """A frame with one to three of noise, blur, occlusion and shift (or none), and the faults' names."""
    names = (
        []
        if rng.random() < CLEAN_SHARE
        else list(rng.choice(["noise", "blur", "occlusion", "shift"], size=rng.integers(1, 4), replace=False))
    )
    shift = (0.0, 0.0)
    if "shift" in names:
        angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(2, 9)
        shift = (far * np.sin(angle), far * np.cos(angle))
    image = _photograph(_ink(scan, shift=shift), rng)
    if "blur" in names:
        image = _blur(image, rng.uniform(1.3, 3.5))
    if "occlusion" in names:
        height, width = rng.integers(7, 18, size=2)
        top, left = rng.integers(2, SIZE - 2 - height + 1), rng.integers(2, SIZE - 2 - width + 1)
        image[top : top + height, left : left + width] = rng.uniform(20, 230)
    image += rng.normal(0, rng.uniform(22, 70) if "noise" in names else 2.0, size=image.shape)
    return _finished(image), "+".join(sorted(names)) or "clean"


def second_family(scan: Floats, rng: np.random.Generator) -> tuple[Frame, str]:
    """A frame with one or two of low light, turn and scale, salt and pepper, motion blur (or none)."""
    names = (
        []
        if rng.random() < CLEAN_SHARE
        else list(
            rng.choice(["low-light", "turn-scale", "salt-pepper", "motion"], size=rng.integers(1, 3), replace=False)
        )
    )
    turn, scale = 0.0, 1.0
    if "turn-scale" in names:
        turn, scale = np.deg2rad(rng.uniform(10, 35)) * rng.choice([-1, 1]), rng.uniform(0.6, 1.25)
    image = _photograph(_ink(scan, turn=turn, scale=scale), rng)
    if "motion" in names:
        image = _convolve(image, _streak(length=rng.uniform(6, 13), angle=rng.uniform(0, np.pi)))
    if "low-light" in names:
        image = rng.uniform(5, 25) + image * rng.uniform(0.08, 0.3)
    image += rng.normal(0, 5.0 if "low-light" in names else 2.0, size=image.shape)
    if "salt-pepper" in names:
        hit = rng.random(image.shape) < rng.uniform(0.05, 0.3)
        image = np.where(hit, np.where(rng.random(image.shape) < 0.5, 0.0, 255.0), image)
    return _finished(image), "+".join(sorted(names)) or "clean"


def _streak(*, length: float, angle: float) -> Floats:
    """A motion-blur kernel: a line of the given length in pixels, drawn by dense points."""
    reach = int(np.ceil(length / 2))
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    for along in np.linspace(-length / 2, length / 2, 64):
        kernel[round(reach + along * np.sin(angle)), round(reach + along * np.cos(angle))] += 1
    return kernel / kernel.sum()


def _finished(image: Floats) -> Frame:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


FAMILIES: dict[str, Callable[[Floats, np.random.Generator], tuple[Frame, str]]] = {
    "noise-blur-occlusion-shift": first_family,
    "light-turn-pepper-motion": second_family,
}
