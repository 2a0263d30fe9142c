# SPDX-License-Identifier: Apache-2.0
"""Hard example rules: which samples are worth the big model, by the little model's probabilities alone.

Every rule makes one figure of a sample, its confidence, and calls the sample hard below a threshold. Names, formulas
and defaults are those of Sedna's hard example mining (``lib/sedna/algorithms/hard_example_mining``) where it has
them, with the cases that it leaves open decided: ``0·ln 0 = 0``, and malformed probabilities raise.

Comparisons are those of the decimals that people read and write (see `nereid_worker.decimals`): 0.7 - 0.3 is not below
"0.4", although in floats it is. Floats decide while the two are far apart, decimals where they are close.

A rule never sees pixels, never waits, and keeps nothing but its threshold.
"""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar, Final

import numpy as np
from msgspec import Struct

from nereid_shared.errors import BadSample, UserError
from nereid_shared.samples import MALFORMED_SCORES
from nereid_worker.decimals import parse_decimal, shortest

# Softmax and dequantisation round; beyond this much a probability is malformed, not rounded.
SLACK: Final = 1e-3
# Step of the budget's controller: 0.02 moves a threshold across half its range in ~30 samples, and over any n samples
# the admitted share is within (1 + 2·0.02) / (0.02·n) of the budget.
STEP: Final = 0.02
# A float32 is within 6e-8 of its shortest decimal; sums and entropies of them stay far within this.
_CLOSE: Final = 1e-6
_PLACES: Final = Decimal("1e-15")
_ZERO, _ONE, _HALF = Decimal(0), Decimal(1), Decimal("0.5")


class Verdict(Struct, frozen=True, kw_only=True, gc=False):
    """What a rule says of one sample.

    Attributes:
        is_hard: worth the big model.
        score: the figure that was compared, such as p₁ - p₂.
        reason: the comparison that held, such as ``p1-p2<0.2``.
    """

    is_hard: bool
    score: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter of a rule: its default and its range, both ends included."""

    default: Decimal
    low: Decimal = _ZERO
    high: Decimal = _ONE


class Rule(ABC):
    """A rule: hard where `confidence` is below the parameter named by `threshold_name`.

    With a `budget` (share of all samples, 0..1) the threshold moves after each verdict, so that the share of hard
    samples follows the budget under drift::

        θ += η·(admitted - budget),  θ = 1 - threshold,  η = `STEP`

    (a sample is hard where its hardness, 1 - confidence, exceeds θ; admitted is 1 or 0). The threshold stays within
    [-η, 1 + 2η], wide enough for every sample to be hard, or none. It is the rule's whole state.

    To write one: derive, name the `parameters` and the `formula`, give `confidence`, and put the class into `RULES`.
    """

    parameters: ClassVar[Mapping[str, Parameter]]
    threshold_name: ClassVar[str]
    formula: ClassVar[str]
    inclusive: ClassVar[bool] = False

    def __init__(self, values: Mapping[str, Decimal], *, budget: Decimal | None = None, seed: str = "") -> None:
        """Take complete, validated `values`; `seed` distinguishes services whose rules draw lots."""
        self.values, self.budget, self.seed = dict(values), budget, seed
        self._share = None if budget is None else float(budget)
        self._exact = self.values[self.threshold_name]
        self._threshold = float(self._exact)
        below, above = ("<=", ">") if self.inclusive else ("<", ">=")
        self._below, self._above = f"{self.formula}{below}", f"{self.formula}{above}"
        self._reasons = (f"{self._above}{self._exact}", f"{self._below}{self._exact}")

    @abstractmethod
    def confidence(self, p: Sequence[float], index: int) -> float:
        """Return the figure to compare; `p` are the probabilities in the classes' order, `index` the source's."""

    def exact_confidence(self, p: Sequence[Decimal], index: int) -> Decimal:
        """Return `confidence` in decimals; asked only where floats are too close to the threshold to tell."""
        return Decimal(repr(self.confidence([float(x) for x in p], index)))

    def decide(self, probabilities: np.ndarray, index: int) -> Verdict:
        """Return the verdict over one sample.

        Args:
            probabilities: one per class, float32 or float64.
            index: the sample's place in its source, which makes lots repeatable.

        Raises:
            BadSample: ``malformed-scores``: NaN, or a probability outside [-1e-3, 1 + 1e-3].
        """
        p: list[float] = probabilities.tolist()
        for x in p:
            if not -SLACK <= x <= 1 + SLACK:  # NaN fails every comparison
                raise BadSample(f"probability {x} is not within 0..1", reason=MALFORMED_SCORES)
        return self.judge(p, index, width=probabilities.dtype.type)

    def judge(self, p: Sequence[float], index: int, *, width: type[np.floating[Any]] = np.float32) -> Verdict:
        """Return the verdict over probabilities that were checked already.

        Args:
            p: one per class.
            index: as in `decide`.
            width: the float type in which a probability is written where decimals have to decide.
        """
        score = self.confidence(p, index)
        if self._share is not None:
            return self._within_budget(score)
        if abs(score - self._threshold) > _CLOSE:
            is_hard = score < self._threshold
        else:
            is_hard = self._compare(self.exact_confidence(shortest(np.array(p, width)), index))
        return Verdict(is_hard=is_hard, score=score, reason=self._reasons[is_hard])

    @property
    def state(self) -> float:
        """The threshold as it stands; all that a restart has to bring back."""
        return self._threshold

    def restore(self, state: float) -> None:
        """Go on from an earlier `state`; without a budget, or for a figure that is none, nothing changes."""
        if self._share is not None and math.isfinite(state):
            self._threshold = min(max(state, -STEP), 1 + 2 * STEP)

    def _compare(self, score: Decimal) -> bool:
        return score <= self._exact if self.inclusive else score < self._exact

    def _within_budget(self, score: float) -> Verdict:
        assert self._share is not None  # noqa: S101 - decide() asked
        threshold = self._threshold
        is_hard = score < threshold
        moved = threshold - STEP * (is_hard - self._share)
        self._threshold = min(max(moved, -STEP), 1 + 2 * STEP)
        return Verdict(
            is_hard=is_hard, score=score, reason=f"{self._below if is_hard else self._above}{threshold:.4g} (budget)"
        )


class Threshold(Rule):
    """p₁ < threshold: the most likely class is not likely enough (Sedna's ThresholdFilter for one box)."""

    parameters: ClassVar[Mapping[str, Parameter]] = {"threshold": Parameter(default=_HALF)}
    threshold_name: ClassVar[str] = "threshold"
    formula: ClassVar[str] = "p1"

    def confidence(self, p: Sequence[float], index: int) -> float:
        """Return p₁."""
        del index
        return max(p)

    def exact_confidence(self, p: Sequence[Decimal], index: int) -> Decimal:
        """Return p₁."""
        del index
        return max(p)


class CrossEntropy(Rule):
    """1 + Σ p·ln p / ln K < threshold_cross_entropy, with 0·ln 0 = 0 (Sedna's CrossEntropyFilter).

    1 for a sure model, 0 for an even spread over the K classes; 1 where K = 1. In decimals it is rounded to 15 places.
    """

    parameters: ClassVar[Mapping[str, Parameter]] = {"threshold_cross_entropy": Parameter(default=_HALF)}
    threshold_name: ClassVar[str] = "threshold_cross_entropy"
    formula: ClassVar[str] = "1+sum(p*ln(p))/ln(K)"

    def confidence(self, p: Sequence[float], index: int) -> float:
        """Return one minus the normalised entropy."""
        del index
        if len(p) == 1:
            return 1.0
        log = math.log
        return 1.0 + sum([x * log(x) for x in p if x > 0.0]) / log(len(p))

    def exact_confidence(self, p: Sequence[Decimal], index: int) -> Decimal:
        """Return one minus the normalised entropy, to 15 places."""
        del index
        if len(p) == 1:
            return _ONE
        entropy = sum((x * x.ln() for x in p if x > 0), _ZERO)
        return (1 + entropy / Decimal(len(p)).ln()).quantize(_PLACES)


class IBT(Rule):
    """Image-box thresholds, for one box with the score p₁: [p₁ ≤ threshold_box] / 1 ≥ 1 - threshold_img.

    Sedna's IBTFilter calls an image hard where the share of boxes that score at most `threshold_box` reaches
    1 - `threshold_img`. Of one box the share is 1 or 0, so that p₁ alone decides, unless `threshold_img` is 1, where
    every image is hard. A budget moves `threshold_box`.
    """

    parameters: ClassVar[Mapping[str, Parameter]] = {
        "threshold_img": Parameter(default=_HALF),
        "threshold_box": Parameter(default=_HALF),
    }
    threshold_name: ClassVar[str] = "threshold_box"
    formula: ClassVar[str] = "p1"
    inclusive: ClassVar[bool] = True

    def confidence(self, p: Sequence[float], index: int) -> float:
        """Return p₁, or 0, which is hard at every `threshold_box`, where `threshold_img` makes every image so."""
        del index
        return 0.0 if self.reached(0, 1) else max(p)

    def exact_confidence(self, p: Sequence[Decimal], index: int) -> Decimal:
        """Return `confidence` in decimals."""
        del index
        return _ZERO if self.reached(0, 1) else max(p)

    def reached(self, hard_boxes: int, boxes: int) -> bool:
        """Return whether hard_boxes / boxes ≥ 1 - threshold_img: 3 of 10 at 0.7 do, although not in floats."""
        return hard_boxes >= (1 - self.values["threshold_img"]) * boxes


class Margin(Rule):
    """p₁ - p₂ < threshold: the two most likely classes are too close (Scheffer et al. 2001, margin sampling)."""

    parameters: ClassVar[Mapping[str, Parameter]] = {"threshold": Parameter(default=_HALF)}
    threshold_name: ClassVar[str] = "threshold"
    formula: ClassVar[str] = "p1-p2"

    def confidence(self, p: Sequence[float], index: int) -> float:
        """Return p₁ - p₂; p₂ is 0 where there is one class."""
        del index
        first, second = _two_largest(p)
        return first - second

    def exact_confidence(self, p: Sequence[Decimal], index: int) -> Decimal:
        """Return p₁ - p₂."""
        del index
        ordered = sorted(p)
        return ordered[-1] - (ordered[-2] if len(ordered) > 1 else _ZERO)


class Random(Rule):
    """u < random_ratio, u uniform in [0, 1) (Sedna's RandomFilter), drawn from the source's index.

    u is the first 64 bits of BLAKE2b of the index, keyed by the service: a source that resumes repeats its verdicts,
    in every process and on every machine.
    """

    parameters: ClassVar[Mapping[str, Parameter]] = {"random_ratio": Parameter(default=Decimal("0.3"))}
    threshold_name: ClassVar[str] = "random_ratio"
    formula: ClassVar[str] = "lot"

    def __init__(self, values: Mapping[str, Decimal], *, budget: Decimal | None = None, seed: str = "") -> None:
        """As every rule; the `seed` keys the lots."""
        super().__init__(values, budget=budget, seed=seed)
        self._key = hashlib.sha256(seed.encode()).digest()

    def confidence(self, p: Sequence[float], index: int) -> float:
        """Return the sample's lot in [0, 1)."""
        del p
        return (self._draw(index) >> 11) / (1 << 53)

    def exact_confidence(self, p: Sequence[Decimal], index: int) -> Decimal:
        """Return the sample's lot, all 64 bits of it."""
        del p
        return Decimal(self._draw(index)) / (1 << 64)

    def _draw(self, index: int) -> int:
        return int.from_bytes(hashlib.blake2b(b"%d" % index, digest_size=8, key=self._key).digest(), "big")


class CloudOnly(Rule):
    """Every sample is hard (Sedna's CloudOnlyFilter); with a budget, evenly that share of them."""

    parameters: ClassVar[Mapping[str, Parameter]] = {}
    threshold_name: ClassVar[str] = ""
    formula: ClassVar[str] = "cloud-only"

    def __init__(self, values: Mapping[str, Decimal], *, budget: Decimal | None = None, seed: str = "") -> None:
        """As every rule; the constant confidence 0 stands below the threshold 1 until a budget moves that."""
        super().__init__({**values, "": _ZERO if budget is not None else _ONE}, budget=budget, seed=seed)
        self._reasons = (self.formula, self.formula)

    def confidence(self, p: Sequence[float], index: int) -> float:
        """Return 0: no sample is good enough."""
        del p, index
        return 0.0


class EdgeOnly(Rule):
    """No sample is hard (Sedna's EdgeOnlyFilter); a budget is an allowance that it never uses."""

    parameters: ClassVar[Mapping[str, Parameter]] = {}
    threshold_name: ClassVar[str] = ""
    formula: ClassVar[str] = "edge-only"

    def __init__(self, values: Mapping[str, Decimal], *, budget: Decimal | None = None, seed: str = "") -> None:
        """As every rule; the constant confidence 1 stands above the threshold 0."""
        del budget
        super().__init__({**values, "": _ZERO}, seed=seed)
        self._reasons = (self.formula, self.formula)

    def confidence(self, p: Sequence[float], index: int) -> float:
        """Return 1: every sample is good enough."""
        del p, index
        return 1.0


# From a spec's name to its class; a script adds its own before it starts the pipeline.
RULES: dict[str, type[Rule]] = {
    rule.__name__: rule for rule in (Threshold, CrossEntropy, IBT, Margin, Random, CloudOnly, EdgeOnly)
}


def make_rule(name: str, parameters: Mapping[str, str], budget: str | None = None, *, seed: str = "") -> Rule:
    """Return the rule that a spec asks for.

    Args:
        name: a key of `RULES`.
        parameters: decimal strings by the rule's own names; what is absent takes its default.
        budget: the share of samples that may be hard, "0".."1", or None.
        seed: the service's id, so that two services draw different lots.

    Raises:
        UserError: an unknown rule, an unknown parameter, or a value that is no decimal in its range.
    """
    where = "hardExampleAlgorithm"
    kind = RULES.get(name)
    if kind is None:
        raise UserError(f"there is no rule {name!r}", where=f"{where}.name", mend=f"Use one of {', '.join(RULES)}.")
    unknown = sorted(set(parameters) - set(kind.parameters))
    if unknown:
        takes = f"takes {', '.join(kind.parameters)}" if kind.parameters else "takes no parameters"
        raise UserError(
            f"{name} has no parameter {unknown[0]!r}", where=f"{where}.parameters", mend=f"Remove it; {name} {takes}."
        )
    values = {
        key: parse_decimal(parameters[key], where=f"{where}.parameters.{key}", low=p.low, high=p.high)
        if key in parameters
        else p.default
        for key, p in kind.parameters.items()
    }
    share = None if budget is None else parse_decimal(budget, where=f"{where}.budget", low=_ZERO, high=_ONE)
    return kind(values, budget=share, seed=seed)


def _two_largest(p: Sequence[float]) -> tuple[float, float]:
    first, second = -math.inf, -math.inf
    for x in p:
        if x > first:
            first, second = x, first
        elif x > second:
            second = x
    return first, (second if len(p) > 1 else 0.0)
