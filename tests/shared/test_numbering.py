# SPDX-License-Identifier: Apache-2.0
"""The numbers of one boot: only what is later counts, and no foreign number stops them for good."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nereid_shared.errors import MessageInvalid
from nereid_shared.numbering import MAX_STEP, REDELIVERED, RUN, Numbers


def taken(numbers: Numbers, *some: int) -> list[bool]:
    return [numbers.take(number, boot="b") for number in some]


def test_only_what_is_later_counts() -> None:
    assert taken(Numbers(), 0, 1, 1, 0, 5, 4, 6) == [True, True, False, False, True, False, True]


def test_what_a_broker_sends_again_does_not_go_back() -> None:
    numbers = Numbers()
    taken(numbers, *range(100))
    assert not any(taken(numbers, *range(99 - REDELIVERED, 100)))
    assert taken(numbers, 100) == [True]


def test_a_number_that_no_boot_reaches_is_refused() -> None:
    numbers = Numbers()
    taken(numbers, 7)
    with pytest.raises(MessageInvalid, match="number 4294967304 after 7 of boot b: not believed"):
        taken(numbers, 7 + MAX_STEP + 1)
    assert taken(numbers, 8) == [True]


@given(st.integers(0, 1000), st.integers(REDELIVERED + RUN + 1, MAX_STEP))
def test_after_a_forged_number_the_boot_is_heard_again_at_its_third_message(last: int, ahead: int) -> None:
    numbers = Numbers()
    taken(numbers, last)
    assert taken(numbers, last + ahead) == [True]
    assert taken(numbers, *range(last + 1, last + RUN + 2)) == [False] * (RUN - 1) + [True, True]


def test_old_messages_in_no_order_are_no_run() -> None:
    numbers = Numbers()
    taken(numbers, 1000)
    assert not any(taken(numbers, 5, 5, 5, 4, 3, 6, 2))


def test_a_forgery_that_is_repeated_does_not_break_the_run() -> None:
    numbers = Numbers()
    assert taken(numbers, 5000, 1, 5000, 2, 5000, 3, 4) == [True, False, False, False, False, True, True]
