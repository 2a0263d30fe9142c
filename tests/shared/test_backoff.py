# SPDX-License-Identifier: Apache-2.0
from nereid_shared.backoff import Backoff, doubled


def test_delays_double_up_to_the_longest() -> None:
    backoff = Backoff(first_s=0.5, longest_s=3.0)
    assert [backoff.next_s() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_after_a_reset_the_first_delay_comes_again() -> None:
    backoff = Backoff(first_s=0.5, longest_s=3.0)
    backoff.next_s()
    backoff.next_s()
    backoff.reset()
    assert backoff.next_s() == 0.5


def test_a_delay_stays_the_longest_however_often_it_is_tried() -> None:
    assert doubled(0.1, 100_000, longest_s=10.0) == 10.0
