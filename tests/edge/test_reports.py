# SPDX-License-Identifier: Apache-2.0
from nereid_edge.reports import Reports
from nereid_shared.messages import Ledger, Output, TaskInfo, TaskStatus


def status(hard: int = 1, *, uid: str = "u", current_time: str = "now", update_time: str = "then") -> TaskStatus:
    info = TaskInfo(hard_example_number=hard, current_time=current_time, update_time=update_time)
    return TaskStatus(
        phase="inference", status="running", uid=uid, ledger=Ledger(hard=hard), output=Output(task_info=info)
    )


def is_sent(reports: Reports, now: float, one: TaskStatus) -> bool:
    due = reports.is_due(one, now=now, at=1000.0 + now)
    if due:
        reports.sent(one.uid, now=now)
    return due


def test_an_unchanged_status_is_sent_at_the_heartbeat_alone() -> None:
    reports = Reports(heartbeat_s=30.0)
    assert [now for now in range(100) if is_sent(reports, float(now), status())] == [0, 30, 60, 90]
    assert reports.changed_at("u") == 1000.0


def test_a_changed_count_is_sent_with_the_time_of_its_change() -> None:
    reports = Reports(heartbeat_s=30.0)
    assert is_sent(reports, 0.0, status(1))
    assert is_sent(reports, 7.0, status(2))
    assert not is_sent(reports, 9.0, status(2))
    assert reports.changed_at("u") == 1007.0


def test_the_time_of_the_look_is_no_change() -> None:
    reports = Reports(heartbeat_s=30.0)
    assert is_sent(reports, 0.0, status())
    assert not is_sent(reports, 1.0, status(current_time="later", update_time="later too"))


def test_what_was_not_sent_stays_due() -> None:
    reports = Reports(heartbeat_s=30.0)
    assert reports.is_due(status(), now=0.0, at=0.0)
    assert reports.is_due(status(), now=1.0, at=1.0)


def test_all_are_sent_again_where_somebody_new_listens() -> None:
    reports = Reports(heartbeat_s=30.0)
    assert is_sent(reports, 0.0, status())
    reports.repeat()
    assert is_sent(reports, 1.0, status())
    assert reports.changed_at("u") == 1000.0


def test_a_task_that_went_and_came_is_told_anew() -> None:
    reports = Reports(heartbeat_s=30.0)
    assert is_sent(reports, 0.0, status())
    reports.keep(())
    assert is_sent(reports, 1.0, status())
