# SPDX-License-Identifier: Apache-2.0
"""The kubelet's rules without its machinery: back-off, phases, deadlines."""

import asyncio

import pytest

from nereid_cloud.laptop.podrunner.restart_delay import RestartDelay
from nereid_cloud.laptop.podrunner.status import (
    ContainerView,
    Phase,
    RestartPolicy,
    Running,
    State,
    Terminated,
    Waiting,
    phase,
    pod_status,
)
from nereid_cloud.laptop.podrunner.stop import Stop


def ended(code: int) -> Terminated:
    return Terminated(exit_code=code, reason="", started_at="2026-01-01T00:00:00Z", finished_at="2026-01-01T00:00:01Z")


def view(state: State, *, last: Terminated | None = None, ready: bool = False) -> ContainerView:
    return ContainerView(name="main", image="", state=state, last=last, ready=ready)


RUNNING = Running(started_at="2026-01-01T00:00:00Z")
LOOPING = Waiting(reason="CrashLoopBackOff")


def test_delays_are_those_of_the_kubelet() -> None:
    delay = RestartDelay(base_s=10, ceiling_s=300)

    assert [delay.after(1) for _ in range(8)] == [0, 10, 20, 40, 80, 160, 300, 300]


def test_a_long_run_is_forgiven() -> None:
    delay = RestartDelay(base_s=10, ceiling_s=300)
    for _ in range(8):
        delay.after(1)

    assert delay.after(599) == 300
    assert [delay.after(600), delay.after(1)] == [0, 10]


@pytest.mark.parametrize(
    ("policy", "views", "expected"),
    [
        ("Always", [view(Waiting())], "Pending"),
        ("Always", [view(RUNNING), view(Waiting())], "Pending"),
        ("Always", [view(RUNNING)], "Running"),
        ("Always", [view(LOOPING, last=ended(1))], "Running"),
        ("Always", [view(ended(0))], "Running"),
        ("OnFailure", [view(ended(1))], "Running"),
        ("OnFailure", [view(ended(0))], "Succeeded"),
        ("Never", [view(ended(0)), view(ended(1))], "Failed"),
        ("Never", [view(ended(0)), view(ended(0))], "Succeeded"),
        ("Never", [view(ended(1)), view(RUNNING)], "Running"),
    ],
)
def test_phases_are_those_of_the_kubelet(policy: RestartPolicy, views: list[ContainerView], expected: Phase) -> None:
    assert phase(policy, views) == expected


def test_a_condition_keeps_its_time_while_its_status_lasts() -> None:
    pod = {"spec": {}, "status": {"conditions": [{"type": "Custom", "status": "True"}]}}
    first = pod_status(pod, [view(RUNNING, ready=True)], host_ip="127.0.0.1", started_at="T0", now="T1")
    later = pod_status({"spec": {}, "status": first}, [view(RUNNING, ready=True)], host_ip="127.0.0.1",
                       started_at="T0", now="T2")  # fmt: skip
    broken = pod_status({"spec": {}, "status": later}, [view(LOOPING, last=ended(1))], host_ip="127.0.0.1",
                        started_at="T0", now="T3")  # fmt: skip

    def times(status: dict[str, list[dict[str, str]]]) -> dict[str, str | None]:
        return {one["type"]: one.get("lastTransitionTime") for one in status["conditions"]}

    assert later == first
    assert times(broken)["Ready"] == "T3"
    assert times(broken)["Initialized"] == "T1"
    assert {"type": "Custom", "status": "True"} in broken["conditions"], "another's condition is kept"


async def test_a_deadline_only_comes_nearer() -> None:
    stop = Stop()
    stop.ask(600)
    overdue = asyncio.create_task(stop.overdue())
    await asyncio.sleep(0)
    stop.ask(0)
    stop.ask(600)

    async with asyncio.timeout(30):
        await overdue


async def test_a_wait_ends_with_the_time_or_the_request() -> None:
    stop = Stop()

    assert not await stop.wait(0)
    stop.ask(1)
    assert await stop.wait(60)
