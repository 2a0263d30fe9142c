# SPDX-License-Identifier: Apache-2.0
from datetime import UTC, datetime
from typing import Literal

import pytest

from nereid_cloud.gm.observed import NodeView, Observed
from nereid_shared.errors import MessageInvalid
from nereid_shared.messages import NodeAlive, NodeState, TaskState, TaskStatus, WorkerInfo


def alive(status: Literal["online", "offline"], boot: str = "b", connection: int = 1) -> NodeAlive:
    return NodeAlive(status=status, install="i", boot=boot, connection=connection)


def state(boot: str = "b", number: int = 1, *, full: bool = True, digest: str = "d") -> NodeState:
    tasks = {"u": TaskState(generation=1, condition="Running")} if full else None
    return NodeState(boot=boot, number=number, digest=digest, tasks=tasks)


def info(status: Literal["running", "offline"], boot: str = "b", number: int = 1) -> WorkerInfo:
    return WorkerInfo(
        name="p", namespace="n", owner_name="o", owner_kind="k", status=status, boot=boot, number=number
    )  # fmt: skip


def test_a_will_counts_only_for_the_current_connection() -> None:
    view = NodeView()
    view.on_alive(alive("online", connection=2), retained=False, now=0.0)
    assert not view.on_alive(alive("offline", connection=1), retained=False, now=1.0)
    assert not view.on_alive(alive("offline", boot="former", connection=2), retained=False, now=1.0)
    assert view.online
    assert view.on_alive(alive("offline", connection=2), retained=False, now=1.0)
    assert not view.online


def test_a_birth_of_an_earlier_connection_does_not_count() -> None:
    view = NodeView()
    view.on_alive(alive("online", connection=2), retained=False, now=0.0)
    assert not view.on_alive(alive("online", connection=1), retained=False, now=1.0)


def test_a_retained_birth_alone_is_hearsay() -> None:
    view = NodeView()
    view.on_alive(alive("online"), retained=True, now=0.0)
    assert not view.is_observable(0.0, timeout_s=90)
    view.on_state(state(), retained=False, now=5.0)
    assert view.is_observable(5.0, timeout_s=90)


def test_silence_makes_a_node_unobservable_by_our_own_clock() -> None:
    view = NodeView()
    view.on_alive(alive("online"), retained=False, now=0.0)
    assert view.is_observable(90.0, timeout_s=90)
    assert not view.is_observable(90.1, timeout_s=90)


def test_states_of_one_boot_are_taken_in_order() -> None:
    view = NodeView()
    assert view.on_state(state(number=2), retained=False, now=0.0)
    assert not view.on_state(state(number=1, digest="old"), retained=False, now=1.0)
    assert view.on_state(state(boot="next", number=1), retained=False, now=2.0)
    assert not view.on_state(state(boot="b", number=9), retained=True, now=3.0)


def test_a_heartbeat_keeps_the_tasks_of_the_same_digest_only() -> None:
    view = NodeView()
    view.on_state(state(number=1), retained=False, now=0.0)
    view.on_state(state(number=2, full=False), retained=False, now=1.0)
    assert view.task("u") is not None
    view.on_state(state(number=3, full=False, digest="other"), retained=False, now=2.0)
    assert view.task("u") is None


def test_statuses_are_taken_in_order_per_task() -> None:
    view = NodeView()
    first, second = (TaskStatus(phase="p", status="running", boot="b", number=n) for n in (1, 2))
    assert view.on_status("u", second, now=0.0)
    assert not view.on_status("u", first, now=1.0)
    assert view.on_status("other", first, now=1.0)
    assert view.status("u") is second


def test_a_restart_is_no_duplicate_and_an_alternation_is() -> None:
    view = NodeView()
    for number, boot in enumerate(("one", "two"), start=1):
        view.on_state(state(boot=boot, number=number), retained=False, now=0.0)
    assert not view.duplicate
    view.on_state(state(boot="one", number=9), retained=False, now=1.0)
    assert view.duplicate


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


NOON = datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()


def test_absence_names_the_moment_of_the_last_word() -> None:
    clock = Clock()
    seen = Observed(timeout_s=10, clock=clock, born=NOON)
    assert seen.absence("e") == "its LocalController was never heard"
    assert seen.is_unheard("e")
    view = seen.speaker("e")
    view.on_alive(alive("online"), retained=True, now=clock())
    assert seen.absence("e") == "its LocalController has said nothing since the GlobalManager started"
    assert seen.is_unheard("e")
    clock.now += 3
    view.on_state(state(), retained=False, now=clock())
    assert not seen.absence("e")
    clock.now += 11
    silent = "its LocalController is silent since 2026-01-01T12:00:03Z, for more than 10 s"
    assert seen.absence("e") == silent
    clock.now += 100
    assert seen.absence("e") == silent
    view.on_alive(alive("offline"), retained=False, now=clock())
    assert seen.absence("e") == "its LocalController is offline since 2026-01-01T12:01:54Z"
    assert not seen.is_unheard("e")


def test_a_lost_broker_is_told_as_the_cause() -> None:
    seen = Observed(timeout_s=10, clock=Clock(), linked=lambda: False)
    assert seen.absence("e") == "the GlobalManager has no connection to the cloud broker"


def test_counts_are_as_old_as_the_oldest_report() -> None:
    seen = Observed(timeout_s=10, clock=Clock(), born=NOON)
    status = TaskStatus(phase="p", status="running", boot="b", number=1)
    assert seen.reported_at("u", ["a", "b"]) is None
    seen.speaker("a").on_status("u", status, now=107.0)
    seen.speaker("b").on_status("u", status, now=104.0)
    seen.speaker("elsewhere").on_status("u", status, now=101.0)
    assert seen.reported_at("u", ["a", "b"]) == "2026-01-01T12:00:04Z"
    seen.forget_task("u")
    assert seen.reported_at("u", ["a", "b"]) is None


def test_asking_about_a_node_does_not_make_it_known() -> None:
    seen = Observed(timeout_s=10, clock=Clock())
    assert (seen.status("e", "u"), seen.task("e", "u"), seen.absence("e")) == (
        None, None, "its LocalController was never heard",
    )  # fmt: skip
    seen.forget_task("u", ["e"])
    assert not seen.nodes


def test_what_one_node_said_of_a_task_is_forgotten_alone() -> None:
    seen = Observed(timeout_s=10, clock=Clock())
    status = TaskStatus(phase="p", status="running", boot="b", number=1)
    for node in ("a", "b"):
        seen.speaker(node).on_status("u", status, now=100.0)
    seen.forget_task("u", ["a"])
    assert (seen.status("a", "u"), seen.status("b", "u")) == (None, status)


def test_a_cloud_workers_will_counts_only_for_its_own_boot() -> None:
    seen = Observed(timeout_s=90, clock=lambda: 0.0)
    seen.on_cloud_info("s", "p", info("running", boot="new", number=5))
    assert not seen.on_cloud_info("s", "p", info("offline", boot="old"))
    assert not seen.on_cloud_info("s", "p", info("running", boot="new", number=4))
    assert seen.on_cloud_info("s", "p", info("offline", boot="new", number=0))
    assert seen.cloud["s"]["p"].status == "offline"
    assert seen.on_cloud_info("s", "p", None)
    assert not seen.cloud


def test_a_live_word_heals_an_absence_that_was_forged() -> None:
    view = NodeView()
    view.on_alive(alive("online"), retained=False, now=0.0)
    view.on_alive(alive("offline"), retained=False, now=1.0)
    view.on_state(state(number=1), retained=True, now=2.0)
    assert not view.is_observable(2.0, timeout_s=90)
    view.on_state(state(number=2), retained=False, now=3.0)
    assert view.is_observable(3.0, timeout_s=90)


def test_a_node_whose_presence_the_broker_lost_is_there_by_its_word() -> None:
    seen = Observed(timeout_s=10, clock=Clock(), born=NOON)
    view = seen.speaker("e")
    view.on_state(state(), retained=True, now=100.0)
    assert seen.absence("e") == "its LocalController was never heard"
    view.heard("b", retained=False, now=100.0)
    assert (seen.is_observable("e"), seen.absence("e"), seen.is_unheard("e")) == (True, "", False)
    seen.clock.now += 11  # type: ignore[attr-defined]
    assert seen.absence("e").startswith("its LocalController is silent since")


def test_a_boot_that_was_replaced_does_not_make_its_node_present() -> None:
    view = NodeView()
    for boot in ("one", "two"):
        view.on_state(state(boot=boot), retained=False, now=0.0)
    view.on_alive(alive("offline", boot="two"), retained=False, now=1.0)
    view.heard("one", retained=False, now=2.0)
    assert not view.online


def test_a_number_that_no_boot_reaches_is_refused_and_the_next_is_heard() -> None:
    seen = Observed(timeout_s=90, clock=lambda: 0.0)
    view = seen.speaker("e")
    for last in (0, 7):
        if last:
            view.on_state(state(number=last), retained=False, now=0.0)
            view.on_status("u", TaskStatus(phase="p", status="running", boot="b", number=last), now=0.0)
            seen.on_cloud_info("s", "p", info("running", number=last))
        with pytest.raises(MessageInvalid, match="not believed"):
            view.on_state(state(number=2**53), retained=False, now=0.0)
        with pytest.raises(MessageInvalid, match="not believed"):
            view.on_status("u", TaskStatus(phase="p", status="failed", boot="b", number=2**53), now=0.0)
        with pytest.raises(MessageInvalid, match="not believed"):
            seen.on_cloud_info("s", "p", info("offline", number=2**53))
    assert view.on_state(state(number=8), retained=False, now=1.0)
    assert view.on_status("u", TaskStatus(phase="p", status="running", boot="b", number=8), now=1.0)
    assert seen.on_cloud_info("s", "p", info("running", number=8))
