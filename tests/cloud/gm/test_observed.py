# SPDX-License-Identifier: Apache-2.0
from typing import Literal

from nereid_cloud.gm.observed import NodeView, Observed
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
    assert view.on_status("u", second)
    assert not view.on_status("u", first)
    assert view.on_status("other", first)
    assert view.status("u") is second


def test_a_restart_is_no_duplicate_and_an_alternation_is() -> None:
    view = NodeView()
    for number, boot in enumerate(("one", "two"), start=1):
        view.on_state(state(boot=boot, number=number), retained=False, now=0.0)
    assert not view.duplicate
    view.on_state(state(boot="one", number=9), retained=False, now=1.0)
    assert view.duplicate


def test_a_cloud_workers_will_counts_only_for_its_own_boot() -> None:
    seen = Observed(timeout_s=90, clock=lambda: 0.0)
    seen.on_cloud_info("s", "p", info("running", boot="new", number=5))
    assert not seen.on_cloud_info("s", "p", info("offline", boot="old"))
    assert not seen.on_cloud_info("s", "p", info("running", boot="new", number=4))
    assert seen.on_cloud_info("s", "p", info("offline", boot="new", number=0))
    assert seen.cloud["s"]["p"].status == "offline"
    assert seen.on_cloud_info("s", "p", None)
    assert seen.cloud["s"] == {}
