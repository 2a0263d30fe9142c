# SPDX-License-Identifier: Apache-2.0
"""Accuracy, precision, recall and F1, against figures that others have published, and by their definitions."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nereid_worker.scoring import percentile, score


def said(truth: str, answers: str) -> Counter[tuple[str, str]]:
    return Counter(zip(truth, answers, strict=True))


def test_the_figures_are_those_of_scikit_learns_own_example() -> None:
    # precision_recall_fscore_support's page: cat, dog, pig, macro average.
    found = score(said("cdpcdp", "cpdccd"))
    assert found.accuracy == pytest.approx(2 / 6)
    assert [found.precision, found.recall, found.f1] == pytest.approx([0.2222, 0.3333, 0.2667], abs=1e-4)


def test_a_class_that_is_never_said_and_one_that_never_is_count() -> None:
    found = score(said("aab", "aac"))
    assert [found.precision, found.recall] == pytest.approx([1 / 3, 1 / 3])


def test_an_answer_without_a_class_is_wrong_and_no_class() -> None:
    found = score(Counter({("a", "a"): 1, ("a", ""): 1}))
    assert (found.accuracy, found.precision, found.recall) == (0.5, 1.0, 0.5)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1))
def test_all_are_shares_and_accuracy_is_that_of_right_answers(pairs: list[tuple[str, str]]) -> None:
    found = score(Counter(pairs))
    assert found.accuracy == pytest.approx(sum(truth == answer for truth, answer in pairs) / len(pairs))
    for figure in (found.accuracy, found.precision, found.recall, found.f1):
        assert 0 <= figure <= 1
    assert (found.accuracy == 1) == (found.f1 == pytest.approx(1))


def test_a_percentile_is_one_of_the_values() -> None:
    assert [percentile([3.0, 1.0, 2.0], share) for share in (0.0, 0.5, 0.99, 1.0)] == [1.0, 2.0, 3.0, 3.0]
