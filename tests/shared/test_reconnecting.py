# SPDX-License-Identifier: Apache-2.0
"""How a fleet comes back, also to a broker that is slow to take it: a model of one, on a clock of its own."""

import heapq
from collections.abc import Callable

import pytest

from nereid_shared.reconnecting import BACKOFF_MAX_S, TLS_PATIENCE_S, Reconnects

HANDSHAKES_PER_S = 350.0
PATIENCE_S = 5.0


def first_pauses(*, tls: bool, nodes: int = 1000) -> list[float]:
    return sorted(Reconnects(tls=tls, patience_s=PATIENCE_S).pause_s(lasted_s=3600.0) for _ in range(nodes))


def test_a_fleet_with_tls_comes_back_over_a_whole_second() -> None:
    pauses = first_pauses(tls=True)
    tenths = [sum(number / 10 <= one < (number + 1) / 10 for one in pauses) for number in range(10)]
    assert pauses[-1] <= 1.0
    assert max(tenths) < 200  # of 100 expected: ten standard deviations


def test_a_laptop_and_a_nodes_own_broker_are_back_at_once() -> None:
    pauses = first_pauses(tls=False)
    assert pauses[0] >= 0.1
    assert pauses[-1] <= 0.2


@pytest.mark.parametrize("tls", [True, False])
def test_pauses_grow_to_ten_seconds_and_are_short_again_after_a_good_connection(tls: bool) -> None:
    tries = Reconnects(tls=tls, patience_s=PATIENCE_S)
    longest = max(tries.pause_s(lasted_s=0.0) for _ in range(200))
    assert BACKOFF_MAX_S / 2 < longest <= BACKOFF_MAX_S
    assert tries.pause_s(lasted_s=60.0) <= 1.0


def test_patience_grows_with_tls_only_and_never_shrinks() -> None:
    slow, plain = Reconnects(tls=True, patience_s=PATIENCE_S), Reconnects(tls=False, patience_s=PATIENCE_S)
    patience = []
    for _ in range(100):
        patience.append(slow.patience_s)
        slow.pause_s(lasted_s=0.0)
        plain.pause_s(lasted_s=0.0)
    assert patience[:5] == [5.0, 5.0, 10.0, 20.0, 40.0]
    assert patience[-1] == TLS_PATIENCE_S
    assert plain.patience_s == PATIENCE_S
    slow.pause_s(lasted_s=60.0)
    assert slow.patience_s == PATIENCE_S
    assert Reconnects(tls=True, patience_s=3600.0).patience_s == 3600.0


def all_back_s(nodes: int, make: Callable[[], Reconnects]) -> float:
    """Return when the last of a fleet is connected, at a broker that shakes hands one after the other.

    A handshake that its node gave up costs half of one. Nobody knows of it; the node tries again later.
    """
    fleet = [make() for _ in range(nodes)]
    tries = [(one.pause_s(lasted_s=3600.0), number) for number, one in enumerate(fleet)]
    heapq.heapify(tries)
    free_s = ended_s = 0.0
    back = 0
    while back < nodes:
        begun_s, number = heapq.heappop(tries)
        assert begun_s < 3600.0, f"{back} of {nodes} are back after an hour"
        done_s = max(begun_s, free_s) + 1 / HANDSHAKES_PER_S
        patience_s = fleet[number].patience_s
        if done_s - begun_s <= patience_s:
            free_s = ended_s = done_s
            back += 1
        else:
            free_s = max(begun_s, free_s) + 0.5 / HANDSHAKES_PER_S
            again_s = begun_s + patience_s + fleet[number].pause_s(lasted_s=0.0)
            heapq.heappush(tries, (again_s, number))
    return ended_s


def test_ten_thousand_nodes_are_back_at_a_broker_of_one_core() -> None:
    # 29 s of handshakes. With an even patience of 5 s they would never all be back.
    assert all_back_s(10_000, lambda: Reconnects(tls=True, patience_s=PATIENCE_S)) < 120.0
