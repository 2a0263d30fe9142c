# SPDX-License-Identifier: Apache-2.0
"""Evaluates both models as the worker runs them, and writes cards, golden files, `rule.json` and the README's figures.

The rule's threshold comes from the validation stream alone. Intervals resample original scans, never single frames:
frames of one scan show the same stroke and are not independent.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter

from streams import (
    FAMILY_SEEDS,
    FIRST_FAMILY,
    FORMS,
    HOME,
    PARTS,
    REPEATS,
    SECOND_FAMILY,
    SEEDS,
    SIDES,
    Stream,
    encoded,
    preprocessed,
    stream,
)

Floats = npt.NDArray[np.float64]

BUDGET = 0.2
STEP = 0.02  # of the steered threshold, per frame
DRAWS = 2000
GOLDEN = 4
TOLERANCE = 0.001
DESCRIPTIONS = {
    "little": "Three-convolution network for handwritten digits on a poor camera; runs on the device.",
    "big": "Six-convolution network for handwritten digits on a poor camera; runs in the cloud.",
}


def logits(model: Path, images: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.float32]:
    """The model's output for each frame, one frame at a time on one thread."""
    interpreter = Interpreter(str(model), num_threads=1)
    interpreter.allocate_tensors()
    entry, exit_ = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    rows = []
    for frame in preprocessed(images, side):
        interpreter.set_tensor(entry, frame[None])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(exit_)[0])
    return np.array(rows)


def margins(rows: npt.NDArray[np.float32]) -> Floats:
    """Largest less second largest probability of each row of logits."""
    powers = np.exp(rows.astype(np.float64) - rows.max(axis=1, keepdims=True))
    ordered = np.sort(powers / powers.sum(axis=1, keepdims=True), axis=1)
    return ordered[:, -1] - ordered[:, -2]


def steered(margin: Floats, threshold: float) -> npt.NDArray[np.bool_]:
    """Which frames go when the threshold falls after each sent frame and rises after each kept one."""
    sent = np.zeros(len(margin), np.bool_)
    for n, value in enumerate(margin):
        sent[n] = value < threshold
        threshold = min(1.0, max(0.0, threshold - STEP * (sent[n] - BUDGET)))
    return sent


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Per frame: its scan, whether each model is right and the little model's margin, in order of arrival."""

    scans: npt.NDArray[np.int64]
    little: npt.NDArray[np.bool_]
    big: npt.NDArray[np.bool_]
    margin: Floats

    def figures(self, threshold: float) -> dict[str, float]:
        """Accuracies of each way to answer, and the share of frames that each rule sends."""
        fixed = self.margin < threshold
        ranked = np.zeros_like(fixed)
        ranked[np.argsort(self.margin, kind="stable")[: round(BUDGET * len(ranked))]] = True
        little, big = self.little.mean(), self.big.mean()
        moving = steered(self.margin, threshold)
        at_budget = np.where(ranked, self.big, self.little).mean()
        helpful = min(BUDGET, float(np.mean(self.big & ~self.little)))
        return {
            "little": little,
            "big": big,
            "jointAtBudget": at_budget,
            "gapRecovered": (at_budget - little) / (big - little),
            "jointSteered": np.where(moving, self.big, self.little).mean(),
            "sentSteered": moving.mean(),
            "jointAtThreshold": np.where(fixed, self.big, self.little).mean(),
            "sentAtThreshold": fixed.mean(),
            "random": little + BUDGET * (big - little),
            "oracle": little + helpful,
        }

    def intervals(self, threshold: float) -> dict[str, tuple[float, float]]:
        """95 % percentile intervals of the figures over bootstrap draws of scans."""
        frames_of = [np.flatnonzero(self.scans == scan) for scan in np.unique(self.scans)]
        rng = np.random.default_rng(5)
        draws = []
        for _ in range(DRAWS):
            drawn = rng.integers(len(frames_of), size=len(frames_of))
            chosen = np.sort(np.concatenate([frames_of[n] for n in drawn]))
            resampled = Outcome(
                scans=self.scans[chosen], little=self.little[chosen], big=self.big[chosen], margin=self.margin[chosen]
            )
            draws.append(resampled.figures(threshold))
        return {key: tuple(np.percentile([draw[key] for draw in draws], [2.5, 97.5])) for key in draws[0]}


def outcome(frames: Stream) -> Outcome:
    """Both models' answers to a stream."""
    rows = {name: logits(_file(name), frames.images, side) for name, side in SIDES.items()}
    right = {name: row.argmax(axis=1) == frames.labels for name, row in rows.items()}
    return Outcome(scans=frames.scans, little=right["little"], big=right["big"], margin=margins(rows["little"]))


def _file(name: str) -> Path:
    return HOME / "models" / name / f"{name}.tflite"


def _decimal(value: float) -> str:
    return f"{value:.3f}"


def provenance() -> dict[str, str]:
    """Where the data came from, under which licence, and what was done to it."""
    parts = [
        f"{part}: scans {scans.start}-{scans.stop - 1}, {FORMS[part]} forms, {REPEATS[part]} frames each"
        for part, scans in PARTS.items()
    ]
    return {
        "dataset": "Optical Recognition of Handwritten Digits, UCI (its test part, 1797 scans, as in scikit-learn)",
        "citation": "E. Alpaydin and C. Kaynak (1998), UCI Machine Learning Repository, doi:10.24432/C50P49",
        "licence": "CC BY 4.0",
        "changes": "scans enlarged to 32x32 grey frames, simulated camera faults added",
        "split": "; ".join(parts),
        "faults": f"trained on {FIRST_FAMILY}; second family {SECOND_FAMILY}, never trained on",
        "seeds": ", ".join(f"{key} {seed}" for key, seed in (SEEDS | FAMILY_SEEDS).items()),
        "interval": f"95 %, bootstrap over original scans, {DRAWS} draws",
    }


def write_card(name: str, metrics: list[dict[str, str]], examples: Stream) -> None:
    """`model.json` and its golden inputs, which come from the validation stream."""
    path = _file(name)
    golden = path.parent / "golden"
    golden.mkdir(exist_ok=True)
    outputs = logits(path, examples.images[:GOLDEN], SIDES[name])
    for n in range(GOLDEN):
        (golden / f"{n}.png").write_bytes(encoded(examples.images[n]))
    card: dict[str, Any] = {
        "schema": "nereid.io/model-card/v1",
        "name": f"digits-{name}",
        "version": "1",
        "task": "classification",
        "description": DESCRIPTIONS[name],
        "input": {
            "layout": "NHWC",
            "colorOrder": "GRAY",
            "resize": "stretch",
            "interpolation": "linear",
            "exif": True,
            "normalization": {"unit": "unit", "mean": [0.0], "std": [1.0]},
        },
        "output": {"kind": "logits", "labels": [str(digit) for digit in range(10)], "minScore": "0"},
        "file": {
            "name": path.name,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "bytes": path.stat().st_size,
        },
        "golden": [
            {
                "input": f"golden/{n}.png",
                "output": [round(float(value), 6) for value in outputs[n]],
                "tolerance": TOLERANCE,
            }
            for n in range(GOLDEN)
        ],
        "metrics": metrics,
        "data": provenance(),
    }
    (path.parent / "model.json").write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n")


def table(figures: dict[str, dict[str, float]], intervals: dict[str, dict[str, tuple[float, float]]]) -> str:
    """The README's table, in per cent."""
    names = {
        "little": "little alone",
        "big": "big alone",
        "random": "joint, 20 % sent at random (expected)",
        "jointAtBudget": "**joint, the 20 % of smallest margin sent**",
        "gapRecovered": "part of the gap recovered by it",
        "oracle": "joint, an oracle chooses at most 20 %",
        "jointSteered": f"joint, threshold steered to a budget of 20 % (step {STEP})",
        "sentSteered": "share that the steered threshold sends",
        "jointAtThreshold": "joint, fixed threshold without budget",
        "sentAtThreshold": "share that the fixed threshold sends",
    }
    lines = [f"| | {' | '.join(figures)} |", f"|---|{'---|' * len(figures)}"]
    for key, name in names.items():
        cells = [
            "{:.1f} ({:.1f} to {:.1f})".format(*(100 * value for value in (figures[part][key], *intervals[part][key])))
            for part in figures
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Chooses the threshold on validation, reports on test, writes what depends on either."""
    validation = stream("validation")
    outcomes = {
        "validation": outcome(validation),
        "test": outcome(stream("test")),
        "second family": outcome(stream("test", SECOND_FAMILY)),
    }
    candidates = np.arange(1, 100) / 100
    shares = [(outcomes["validation"].margin < candidate).mean() for candidate in candidates]
    threshold = float(candidates[np.argmin(np.abs(np.array(shares) - BUDGET))])
    figures = {part: result.figures(threshold) for part, result in outcomes.items()}
    intervals = {part: result.intervals(threshold) for part, result in outcomes.items()}

    for name in SIDES:
        metrics = []
        for part, key in (("test", "accuracy"), ("second family", "accuracySecondFamily")):
            low, high = intervals[part][name]
            values = {key: figures[part][name], f"{key}Low": low, f"{key}High": high}
            metrics += [{"key": which, "value": _decimal(value)} for which, value in values.items()]
        write_card(name, metrics, validation)

    rule = {
        "name": "Margin",
        "parameters": {"threshold": f"{threshold:.2f}"},
        "budget": str(BUDGET),
        "validation": {key: _decimal(value) for key, value in figures["validation"].items()},
    }
    (HOME / "rule.json").write_text(json.dumps(rule, indent=2) + "\n")

    readme = HOME / "README.md"
    before, _, rest = readme.read_text().partition("<!-- figures -->\n")
    _, _, after = rest.partition("<!-- end -->")
    readme.write_text(f"{before}<!-- figures -->\n{table(figures, intervals)}\n<!-- end -->{after}")
    print(f"threshold {threshold:.2f}\n{table(figures, intervals)}")


if __name__ == "__main__":
    main()
