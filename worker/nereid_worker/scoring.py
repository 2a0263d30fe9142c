# SPDX-License-Identifier: Apache-2.0
"""What a classifier is worth, from what it said of pictures whose class is known.

Precision, recall and F1 are macro averages: of each class alone, then the mean, so that a rare class counts as much as
a frequent one. Classes are those that are true of some picture or were said of one; a class that was never said has
the precision 0 (scikit-learn's ``average="macro", zero_division=0``).
"""

from collections import Counter

from msgspec import Struct


class Score(Struct, frozen=True, kw_only=True):
    """Shares, 0..1.

    Attributes:
        accuracy: right answers of all.
        precision: of what was said to be of a class, how much is.
        recall: of what is of a class, how much was said to be.
        f1: the harmonic mean of both, of each class, then over the classes.
    """

    accuracy: float
    precision: float
    recall: float
    f1: float


def score(said: Counter[tuple[str, str]]) -> Score:
    """Return the score over (true class, class that was said) with their counts, of which there is one at least."""
    total = said.total()
    right = Counter({truth: count for (truth, answer), count in said.items() if truth == answer})
    true, answered = Counter[str](), Counter[str]()
    for (truth, answer), count in said.items():
        true[truth] += count
        answered[answer] += count
    # An answer below the card's minScore has no class: it is wrong, and is no class of its own.
    classes = sorted((true | answered).keys() - {""})
    precisions = [_share(right[one], answered[one]) for one in classes]
    recalls = [_share(right[one], true[one]) for one in classes]
    f1s = [_share(2 * right[one], answered[one] + true[one]) for one in classes]
    count = len(classes)
    return Score(
        accuracy=right.total() / total, precision=sum(precisions) / count, recall=sum(recalls) / count,
        f1=sum(f1s) / count,
    )  # fmt: skip


def percentile(values: list[float], share: float) -> float:
    """Return the value that `share` (0..1) of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
