# SPDX-License-Identifier: Apache-2.0
"""Go-back-N towards the LocalController: over any loss, every sample is accepted, in order."""

from hypothesis import given
from hypothesis import strategies as st

from nereid_worker.sender import RETRY_MAX_S, WINDOW, Sender


def test_nothing_is_sent_without_a_connection() -> None:
    sender = Sender()
    assert not sender.may_send()
    sender.connected(0.0)
    assert sender.may_send()
    sender.disconnected()
    assert not sender.may_send()


def test_the_window_closes_and_opens_with_the_brokers_acknowledgements() -> None:
    sender = Sender()
    generation = sender.connected(0.0)
    for seq in range(1, WINDOW + 1):
        sender.published(seq, 0.0)
    assert not sender.may_send()
    sender.acknowledged(generation)
    assert sender.may_send()


def test_acknowledgements_of_an_old_connection_open_nothing() -> None:
    sender = Sender()
    old = sender.connected(0.0)
    sender.connected(1.0)
    sender.published(1, 1.0)
    sender.acknowledged(old)
    assert sender.unacknowledged == 1


def test_a_new_connection_starts_again_at_the_oldest_unaccepted() -> None:
    sender = Sender()
    sender.connected(0.0)
    for seq in (1, 2, 3):
        sender.published(seq, 0.0)
    sender.on_accepted(1, 0.1)
    sender.connected(1.0)
    assert sender.sent == 1


def test_without_progress_it_goes_back_ever_more_slowly() -> None:
    sender, now, waits = Sender(), 0.0, []
    sender.connected(now)
    for _ in range(8):
        sender.published(1, now)
        began = now
        while sender.sent == 1:
            now += 0.25
            sender.on_timer(now)
        waits.append(now - began)
    assert waits == sorted(waits)
    assert waits[0] == 1.0
    assert waits[-1] == RETRY_MAX_S


def test_where_nobody_subscribes_it_waits_and_then_probes_with_one() -> None:
    sender = Sender()
    generation = sender.connected(0.0)
    for seq in (1, 2, 3):
        sender.published(seq, 0.0)
    for _ in range(3):
        sender.acknowledged(generation, nobody=True)
    assert not sender.may_send()
    sender.on_timer(1.0)
    assert (sender.sent, sender.may_send()) == (0, True)
    sender.published(1, 1.0)
    sender.acknowledged(generation, nobody=True)
    assert not sender.may_send(), "one sample at a time while nobody accepts"
    sender.on_accepted(1, 1.5)
    assert sender.may_send()


def test_a_sign_of_life_ends_the_probing() -> None:
    sender = Sender()
    generation = sender.connected(0.0)
    sender.published(1, 0.0)
    sender.acknowledged(generation, nobody=True)
    sender.peer_is_back(0.1)
    assert (sender.sent, sender.may_send(), sender.probing) == (0, True, False)


def test_what_is_accepted_already_is_not_sent_again() -> None:
    sender = Sender()
    sender.connected(0.0)
    assert sender.on_accepted(5, 0.1)
    assert (sender.accepted, sender.sent) == (5, 5)
    assert not sender.on_accepted(4, 0.2)
    assert (sender.accepted, sender.sent) == (5, 5)


@given(st.lists(st.sampled_from(["deliver", "lose", "reconnect", "tick"]), max_size=200), st.integers(1, 40))
def test_every_sample_is_accepted_in_order_whatever_is_lost(schedule: list[str], total: int) -> None:
    sender, now, committed = Sender(), 0.0, 0
    generation = sender.connected(now)

    def step(event: str) -> None:
        nonlocal now, committed, generation
        now += 20.0 if event == "tick" else 0.0
        if event == "reconnect":
            generation = sender.connected(now)
        elif event == "tick":
            sender.on_timer(now)
        elif sender.may_send() and sender.sent < total:
            seq = sender.sent + 1
            sender.published(seq, now)
            sender.acknowledged(generation)
            if event == "deliver":
                committed = max(committed, seq) if seq <= committed + 1 else committed
                sender.on_accepted(committed, now)

    for event in schedule:
        step(event)
        assert sender.accepted == committed <= sender.sent <= total
    for _ in range(2 * total + 2):
        step("tick")
        step("deliver")
        while sender.sent < total:
            step("deliver")
    assert sender.accepted == total
