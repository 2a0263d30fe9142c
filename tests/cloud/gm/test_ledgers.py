# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nereid_cloud.gm.ledgers import is_behind, metrics_of, retired, total
from nereid_shared.messages import Ledger

COUNT = st.integers(0, 1000)
REASONS = st.dictionaries(st.sampled_from(["expired", "undecodable"]), st.integers(1, 50))


@st.composite
def ledgers(draw: st.DrawFn) -> Ledger:
    easy, answered, pending, failed, dropped = draw(COUNT), draw(COUNT), draw(COUNT), draw(REASONS), draw(REASONS)
    hard = answered + pending + sum(dropped.values())
    return Ledger(
        seen=easy + hard + sum(failed.values()), easy=easy, hard=hard, failed=failed, answered=answered,
        pending=pending, dropped=dropped, latency={"edge": {80: easy}},
    )  # fmt: skip


def is_balanced(ledger: Ledger) -> bool:
    return (
        ledger.seen == ledger.easy + ledger.hard + sum(ledger.failed.values())
        and ledger.hard == ledger.answered + sum(ledger.dropped.values()) + ledger.pending
    )


@given(st.lists(ledgers(), max_size=4))
def test_a_sum_is_balanced_where_its_parts_are(parts: list[Ledger]) -> None:
    assert is_balanced(total(parts))
    assert is_balanced(total(map(retired, parts)))
    assert total(map(retired, parts)).pending == 0


@given(ledgers(), ledgers())
def test_a_sum_is_never_behind_its_part(one: Ledger, other: Ledger) -> None:
    assert not is_behind(total([one, other]), metrics_of(one))
    assert is_behind(one, metrics_of(total([one, Ledger(seen=1, easy=1)])))


@pytest.mark.parametrize(
    ("fresh", "shown"),
    [
        (Ledger(seen=2, easy=2), Ledger(seen=2, easy=1, failed={"undecodable": 1})),
        (Ledger(seen=2, hard=2, answered=2), Ledger(seen=2, hard=2, answered=1, dropped={"expired": 1})),
        (
            Ledger(seen=2, hard=2, dropped={"expired": 2}),
            Ledger(seen=2, hard=2, dropped={"expired": 1, "poison": 1}),
        ),
    ],
)
def test_a_sum_that_lacks_only_some_failed_or_dropped_samples_is_behind(fresh: Ledger, shown: Ledger) -> None:
    assert is_behind(fresh, metrics_of(shown))
    assert not is_behind(shown, metrics_of(shown))


def test_metrics_are_decimal_texts_under_the_seeds_names() -> None:
    ledger = Ledger(
        seen=10,
        easy=6,
        hard=3,
        failed={"undecodable": 1},
        answered=2,
        pending=1,
        bytes_up=70,
        latency={"cloud": {80: 3}},
    )
    shown = {metric["key"]: metric["value"] for metric in metrics_of(ledger)}
    assert shown["inferenceNumber"] == "9"
    assert shown["hardExampleNumber"] == "3"
    assert shown["uploadCloudRatio"] == "0.2222"
    assert shown["bytesUp"] == "70"
    assert shown["cloudLatencyP50Ms"] == shown["cloudLatencyP99Ms"] == "1.02"
    assert "edgeLatencyP50Ms" not in shown
