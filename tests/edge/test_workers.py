# SPDX-License-Identifier: Apache-2.0
from typing import Literal

import pytest

from nereid_edge.workers import WorkerView
from nereid_shared.errors import MessageInvalid
from nereid_shared.messages import WorkerInfo


def info(boot: str, number: int, status: Literal["starting", "running", "offline"] = "running") -> WorkerInfo:
    return WorkerInfo(
        name="w", namespace="default", owner_name="digits", owner_kind="jointinferenceservice", status=status,
        boot=boot, number=number,
    )  # fmt: skip


def view(*messages: WorkerInfo) -> WorkerView:
    made = WorkerView()
    for message in messages:
        made.take(message)
    return made


def test_a_message_that_is_not_newer_than_the_last_does_not_count() -> None:
    made = view(info("a", 5))
    assert not made.take(info("a", 5))
    assert not made.take(info("a", 4))
    assert made.take(info("a", 6))


def test_the_will_of_the_boot_that_speaks_means_that_it_is_lost() -> None:
    made = view(info("a", 5), info("a", 0, "offline"))
    assert made.lost
    assert made.info is not None
    assert made.info.number == 5


def test_an_old_boots_late_will_is_ignored() -> None:
    made = view(info("a", 5), info("b", 1))
    assert not made.take(info("a", 0, "offline"))
    assert not made.lost


def test_the_will_of_a_boot_that_was_never_heard_is_ignored() -> None:
    made = view(info("b", 1))
    assert not made.take(info("a", 0, "offline"))
    assert not made.lost


def test_a_worker_of_the_same_name_that_came_and_went_leaves_the_first_ones_state() -> None:
    made = view(info("a", 5), info("b", 1), info("b", 0, "offline"))
    assert made.lost
    assert made.take(info("a", 6))
    assert (made.info, made.lost) == (info("a", 6), False)


def test_of_two_that_alternate_the_one_that_spoke_last_counts() -> None:
    made = view(info("a", 5))
    for message in (info("b", 1), info("a", 6), info("b", 2), info("a", 7)):
        assert made.take(message)
        assert (made.info, made.lost) == (message, False)


def test_what_a_former_boot_said_before_does_not_count_again() -> None:
    made = view(info("a", 5), info("b", 1))
    assert not made.take(info("a", 5))
    assert made.info == info("b", 1)


def test_a_former_boots_will_does_not_hide_the_boot_that_speaks() -> None:
    made = view(info("a", 5), info("b", 1), info("a", 6))
    assert not made.take(info("b", 0, "offline"))
    assert (made.info, made.lost) == (info("a", 6), False)


def test_boots_without_end_are_not_remembered_without_end() -> None:
    made = view(*(info(f"boot-{n}", 1) for n in range(1000)))
    assert len(made._numbers) == 16
    assert made.info == info("boot-999", 1)


def test_a_worker_that_connects_again_is_no_longer_lost() -> None:
    made = view(info("a", 5), info("a", 0, "offline"))
    assert made.take(info("a", 6))
    assert not made.lost


def test_a_remembered_will_alone_says_that_the_worker_is_lost() -> None:
    assert view(info("a", 0, "offline")).lost


def test_a_number_that_no_boot_reaches_is_refused_and_the_next_is_heard() -> None:
    made = view(info("a", 5))
    for boot in ("a", "b"):
        with pytest.raises(MessageInvalid, match="not believed"):
            made.take(info(boot, 2**53))
    assert made.take(info("a", 6))
