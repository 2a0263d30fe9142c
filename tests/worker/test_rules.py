# SPDX-License-Identifier: Apache-2.0
import math
import subprocess
import sys
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nereid_shared.errors import BadSample, UserError
from nereid_shared.resources import HARD_EXAMPLE_RULES
from nereid_worker.rules import IBT, RULES, STEP, Rule, make_rule


def p32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def is_hard(name: str, p: np.ndarray, *, index: int = 0, **parameters: str) -> bool:
    return make_rule(name, parameters).decide(p, index).is_hard


@pytest.mark.parametrize(
    ("name", "p", "parameters", "score", "hard"),
    [
        ("Threshold", p32(0.6, 0.3, 0.1), {}, 0.6, False),
        ("Threshold", p32(0.4, 0.35, 0.25), {}, 0.4, True),
        ("Threshold", p32(0.9, 0.1), {"threshold": "0.95"}, 0.9, True),
        ("Margin", p32(0.6, 0.3, 0.1), {"threshold": "0.2"}, 0.3, False),
        ("Margin", p32(0.4, 0.35, 0.25), {"threshold": "0.2"}, 0.05, True),
        ("Margin", p32(0.3, 0.3, 0.4), {"threshold": "0.2"}, 0.1, True),
        ("Margin", p32(1.0), {}, 1.0, False),
        # 1 + (0.5 ln 0.5 + 0.25 ln 0.25 + 0.25 ln 0.25) / ln 3 = 1 - 1.0397208 / 1.0986123
        ("CrossEntropy", p32(0.5, 0.25, 0.25), {}, 0.05360537, True),
        # 1 + (0.9 ln 0.9 + 0.1 ln 0.1) / ln 2 = 1 - 0.3250830 / 0.6931472
        ("CrossEntropy", p32(0.9, 0.1), {}, 0.53100440, False),
        ("CrossEntropy", p32(1.0, 0.0, 0.0), {}, 1.0, False),
        ("CrossEntropy", p32(1.0), {}, 1.0, False),
        ("IBT", p32(0.6, 0.4), {}, 0.6, False),
        ("IBT", p32(0.4, 0.35, 0.25), {}, 0.4, True),
        ("IBT", p32(0.9, 0.1), {"threshold_img": "1"}, 0.0, True),
        ("IBT", p32(0.4, 0.6), {"threshold_img": "0"}, 0.6, False),
        ("IBT", p32(0.45, 0.3, 0.25), {"threshold_img": "0"}, 0.45, True),
        ("CloudOnly", p32(1.0, 0.0), {}, 0.0, True),
        ("EdgeOnly", p32(0.5, 0.5), {}, 1.0, False),
    ],
)
def test_a_rule_gives_the_value_computed_by_hand(
    name: str, p: np.ndarray, parameters: dict[str, str], score: float, hard: bool
) -> None:
    verdict = make_rule(name, parameters).decide(p, 0)
    assert verdict.score == pytest.approx(score, abs=1e-6)
    assert verdict.is_hard is hard


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("tenths", range(11))
def test_a_score_that_reads_like_the_threshold_is_not_below_it(tenths: int, dtype: type[np.floating]) -> None:
    p = np.array([tenths / 10, 0.0], dtype)
    assert not is_hard("Threshold", p, threshold=f"0.{tenths}" if tenths < 10 else "1.0")
    assert is_hard("IBT", p, threshold_box=f"0.{tenths}" if tenths < 10 else "1.0")


@pytest.mark.parametrize(
    ("first", "second", "margin"),
    [(0.7, 0.3, "0.4"), (0.6, 0.1, "0.5"), (0.8, 0.1, "0.7"), (0.55, 0.45, "0.1"), (0.3, 0.1, "0.2")],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_difference_is_that_of_the_decimals(
    first: float, second: float, margin: str, dtype: type[np.floating]
) -> None:
    p = np.array([first, second], dtype)
    assert not is_hard("Margin", p, threshold=margin)
    assert is_hard("Margin", p, threshold=str(Decimal(margin) + Decimal("0.0000000001")))
    assert not is_hard("Margin", p, threshold=str(Decimal(margin) - Decimal("0.0000000001")))


@pytest.mark.parametrize(("classes", "threshold"), [(10, "0"), (7, "0"), (1000, "0")])
def test_an_even_spread_has_the_entropy_confidence_nought(classes: int, threshold: str) -> None:
    p = np.full(classes, 1 / classes, np.float64)
    assert make_rule("CrossEntropy", {"threshold_cross_entropy": threshold}).decide(p, 0).is_hard is False
    assert is_hard("CrossEntropy", p, threshold_cross_entropy="0.0000000001")


def test_three_of_ten_boxes_reach_one_minus_seven_tenths() -> None:
    assert not 3 / 10 >= 1 - 0.7  # what Sedna computes
    rule = make_rule("IBT", {"threshold_img": "0.7"})
    assert isinstance(rule, IBT)
    assert rule.reached(3, 10)
    assert not rule.reached(2, 10)


def test_lots_are_the_ratio_s_share_and_do_not_depend_on_scores() -> None:
    rule, p, q = make_rule("Random", {}, seed="service-1"), p32(1.0, 0.0), p32(0.5, 0.5)
    verdicts = [rule.decide(p, index).is_hard for index in range(4000)]
    assert sum(verdicts) / len(verdicts) == pytest.approx(0.3, abs=0.025)
    assert [rule.decide(q, index).is_hard for index in range(4000)] == verdicts


def test_lots_are_the_same_in_another_process() -> None:
    program = (
        "import numpy as np; from nereid_worker.rules import make_rule; r = make_rule('Random', {}, seed='s');"
        "print(*(int(r.decide(np.ones(1), i).is_hard) for i in range(64)), sep='')"
    )
    rule = make_rule("Random", {}, seed="s")
    here = "".join(str(int(rule.decide(np.ones(1), i).is_hard)) for i in range(64))
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    assert here == there
    other = make_rule("Random", {}, seed="t")
    assert here != "".join(str(int(other.decide(np.ones(1), i).is_hard)) for i in range(64))


@pytest.mark.parametrize(("ratio", "hard"), [("0", 0), ("1", 200)])
def test_a_ratio_at_the_end_of_its_range_means_none_or_all(ratio: str, hard: int) -> None:
    rule = make_rule("Random", {"random_ratio": ratio})
    assert sum(rule.decide(p32(1.0), index).is_hard for index in range(200)) == hard


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1.0011, -0.0011])
def test_a_malformed_probability_raises(name: str, bad: float) -> None:
    with pytest.raises(BadSample) as caught:
        make_rule(name, {}).decide(p32(0.5, bad), 0)
    assert caught.value.reason == "malformed-scores"


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("budget", [None, "0.2"])
def test_what_softmax_rounds_past_the_ends_is_accepted(name: str, budget: str | None) -> None:
    verdict = make_rule(name, {}, budget).decide(p32(1.0009, -0.0009), 0)
    assert math.isfinite(verdict.score)


@pytest.mark.parametrize("name", ["Threshold", "CrossEntropy", "IBT", "Margin", "Random", "CloudOnly"])
@pytest.mark.parametrize("budget", ["0.05", "0.2", "0.5", "1", "0"])
def test_a_budget_is_held_under_drift(name: str, budget: str) -> None:
    rng = np.random.default_rng(1)
    rule = make_rule(name, {}, budget)
    admitted = 0
    for index in range(2000):
        sharpness = 8.0 if index < 1000 else 1.0
        z = np.exp(rng.normal(size=10) * sharpness)
        admitted += rule.decide((z / z.sum()).astype(np.float32), index).is_hard
    assert admitted / 2000 == pytest.approx(float(budget), abs=(1 + 2 * STEP) / (STEP * 2000))


def test_a_budget_never_makes_edge_only_send() -> None:
    rule = make_rule("EdgeOnly", {}, "0.9")
    assert not any(rule.decide(p32(0.5, 0.5), index).is_hard for index in range(500))


def test_a_budget_moves_the_threshold_by_the_documented_step() -> None:
    rule = make_rule("Threshold", {}, "0.2")
    rule.decide(p32(0.4, 0.3), 0)
    assert rule.state == pytest.approx(0.5 - STEP * 0.8)
    rule.decide(p32(0.9, 0.1), 1)
    assert rule.state == pytest.approx(0.5 - STEP * 0.8 + STEP * 0.2)


def test_a_restored_rule_goes_on_where_it_stopped() -> None:
    first, second = make_rule("Margin", {}, "0.2"), make_rule("Margin", {}, "0.2")
    p = [p32(0.5 + i % 50 / 100, 0.5 - i % 50 / 100) for i in range(100)]
    for i in range(50):
        first.decide(p[i], i)
    second.restore(first.state)
    assert [first.decide(p[i], i) for i in range(50, 100)] == [second.decide(p[i], i) for i in range(50, 100)]


@pytest.mark.parametrize("state", [math.nan, math.inf, -math.inf])
def test_a_state_that_is_no_number_changes_nothing(state: float) -> None:
    rule = make_rule("Threshold", {}, "0.2")
    rule.restore(state)
    assert rule.state == 0.5


def test_a_state_beyond_the_bounds_is_cut_to_them() -> None:
    rule = make_rule("Threshold", {}, "0.2")
    rule.restore(1e9)
    assert rule.state == 1 + 2 * STEP


def test_without_a_budget_the_threshold_of_the_spec_stays() -> None:
    rule = make_rule("Threshold", {"threshold": "0.7"})
    rule.restore(0.1)
    rule.decide(p32(0.2, 0.2), 0)
    assert rule.state == 0.7


@pytest.mark.parametrize(
    ("name", "parameters", "budget", "where", "says"),
    [
        ("Treshold", {}, None, "hardExampleAlgorithm.name", "Threshold, CrossEntropy"),
        ("Threshold", {"treshold": "0.5"}, None, "hardExampleAlgorithm.parameters", "takes threshold"),
        ("Threshold", {"threshold": "1.5"}, None, "hardExampleAlgorithm.parameters.threshold", "from 0 to 1"),
        ("Threshold", {"threshold": "-0.1"}, None, "hardExampleAlgorithm.parameters.threshold", "from 0 to 1"),
        ("Threshold", {"threshold": "nan"}, None, "hardExampleAlgorithm.parameters.threshold", "not a decimal"),
        ("Threshold", {"threshold": "1_0"}, None, "hardExampleAlgorithm.parameters.threshold", "not a decimal"),
        ("Threshold", {"threshold": ""}, None, "hardExampleAlgorithm.parameters.threshold", "not a decimal"),
        ("Threshold", {"threshold": "9" * 999}, None, "hardExampleAlgorithm.parameters.threshold", "not a decimal"),
        ("CloudOnly", {"threshold": "0.5"}, None, "hardExampleAlgorithm.parameters", "takes no parameters"),
        ("Random", {}, "1.01", "hardExampleAlgorithm.budget", "from 0 to 1"),
        ("Random", {}, "a fifth", "hardExampleAlgorithm.budget", "not a decimal"),
    ],
)
def test_a_wrong_specification_names_field_range_and_mend(
    name: str, parameters: dict[str, str], budget: str | None, where: str, says: str
) -> None:
    with pytest.raises(UserError) as caught:
        make_rule(name, parameters, budget)
    assert caught.value.where == where
    assert says in str(caught.value)
    assert caught.value.mend


def test_admission_knows_the_same_rules_parameters_and_defaults() -> None:
    here = {name: {key: str(p.default) for key, p in rule.parameters.items()} for name, rule in RULES.items()}
    assert {name: dict(parameters) for name, parameters in HARD_EXAMPLE_RULES.items()} == here


def test_a_script_can_add_a_rule() -> None:
    class Second(Rule):
        parameters = RULES["Threshold"].parameters
        threshold_name = "threshold"
        formula = "p[1]"

        def confidence(self, p: object, index: int) -> float:
            assert isinstance(p, list)
            return float(p[1])

    RULES["Second"] = Second
    try:
        assert is_hard("Second", p32(0.6, 0.4))
        assert not is_hard("Second", p32(0.5, 0.5))
        assert make_rule("Second", {}, "0.5").decide(p32(0.6, 0.4), 0).is_hard
    finally:
        del RULES["Second"]


@st.composite
def spreads(draw: st.DrawFn) -> np.ndarray:
    weights = draw(st.lists(st.floats(0, 1e6), min_size=1, max_size=20).filter(lambda w: sum(w) > 1e-3))
    p: np.ndarray = np.array(weights) / sum(weights)
    return p.astype(draw(st.sampled_from([np.float32, np.float64])))


@given(spreads(), st.decimals(0, 1, places=6), st.sampled_from(["Threshold", "Margin", "CrossEntropy", "IBT"]))
def test_floats_and_decimals_agree_away_from_the_threshold(p: np.ndarray, t: Decimal, name: str) -> None:
    key = RULES[name].threshold_name
    rule = make_rule(name, {key: str(t)})
    verdict = rule.decide(p, 0)
    if abs(verdict.score - float(t)) > 1e-5:
        assert verdict.is_hard is (verdict.score < float(t))
    assert -1e-6 <= verdict.score <= 1 + 1e-6


@given(spreads(), st.randoms(), st.sampled_from(["Threshold", "Margin", "CrossEntropy", "IBT"]))
def test_the_order_of_the_classes_does_not_matter(p: np.ndarray, random: object, name: str) -> None:
    q = p.copy()
    np.random.default_rng(getattr(random, "randrange")(1 << 32)).shuffle(q)  # noqa: B009 - st.randoms is untyped
    first, second = make_rule(name, {}).decide(p, 0), make_rule(name, {}).decide(q, 0)
    assert first.is_hard is second.is_hard
    assert first.score == pytest.approx(second.score, abs=1e-12)


@given(spreads(), st.decimals(0, 1, places=3), st.decimals(0, 1, places=3))
def test_a_higher_threshold_never_makes_a_hard_sample_easy(p: np.ndarray, a: Decimal, b: Decimal) -> None:
    low, high = sorted((a, b))
    for name in ("Threshold", "Margin", "CrossEntropy", "IBT"):
        key = RULES[name].threshold_name
        if make_rule(name, {key: str(low)}).decide(p, 0).is_hard:
            assert make_rule(name, {key: str(high)}).decide(p, 0).is_hard
