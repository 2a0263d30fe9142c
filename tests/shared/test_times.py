# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import hypothesis.strategies as st
import pytest
from hypothesis import given

from nereid_shared.times import rfc3339, rfc3339_micros, rfc3339_millis

MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
FORMS: dict[Callable[[float | None], str], timedelta] = {
    rfc3339: timedelta(seconds=1),
    rfc3339_millis: timedelta(milliseconds=1),
    rfc3339_micros: timedelta(microseconds=2),  # a float of today knows no less
}


def test_a_whole_second_has_all_its_digits() -> None:
    assert rfc3339(MOMENT) == "2026-01-02T03:04:05Z"
    assert rfc3339_millis(MOMENT) == "2026-01-02T03:04:05.000Z"
    assert rfc3339_micros(MOMENT) == "2026-01-02T03:04:05.000000Z"


def test_a_fraction_is_cut_off_not_rounded_up() -> None:
    assert rfc3339(MOMENT + 0.9999) == "2026-01-02T03:04:05Z"
    assert rfc3339_millis(MOMENT + 0.0625) == "2026-01-02T03:04:05.062Z"
    assert rfc3339_micros(MOMENT + 0.0625) == "2026-01-02T03:04:05.062500Z"


@pytest.mark.parametrize("form", FORMS)
@given(at=st.floats(0, 4e9))
def test_a_time_reads_back_as_the_moment_that_it_was(form: Callable[[float | None], str], at: float) -> None:
    behind = datetime.fromtimestamp(at, UTC) - datetime.fromisoformat(form(at))
    assert -timedelta(microseconds=1) <= behind <= FORMS[form]  # `fromtimestamp` rounds


@pytest.mark.parametrize("form", FORMS)
def test_without_a_moment_it_is_now(form: Callable[[float | None], str]) -> None:
    before = datetime.now(UTC) - FORMS[form]
    assert before <= datetime.fromisoformat(form(None)) <= datetime.now(UTC)
