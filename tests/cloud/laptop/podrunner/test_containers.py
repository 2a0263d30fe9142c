# SPDX-License-Identifier: Apache-2.0
"""Containers as processes: how they start, end, restart and are stopped, as the Pod's status tells it."""

import json
import os
import signal
from pathlib import Path

import pytest
from tests.cloud.laptop.podrunner.runners import (
    PATIENT,
    STUBBORN,
    Runner,
    Runners,
    alive,
    annotated,
    container,
    log,
    pid,
    pod,
    ref,
    running,
    state,
    until,
    until_event,
    until_gone,
)
from tests.mosquitto import free_port

from nereid_cloud.cluster.kinds import EVENT
from nereid_cloud.cluster.local import LocalCluster

pytestmark = pytest.mark.slow  # each test starts processes


def conditions(obj: dict[str, dict[str, list[dict[str, str]]]]) -> dict[str, str]:
    return {condition["type"]: condition["status"] for condition in obj["status"].get("conditions", ())}


def ended(obj: dict[str, dict[str, str]]) -> bool:
    return obj["status"].get("phase") in {"Succeeded", "Failed"}


def test_a_bound_pod_becomes_running_and_ready(cluster: LocalCluster, runner: Runner) -> None:
    cluster.create(pod("a", PATIENT))

    seen = until(cluster, ref("a"), running)

    assert seen["status"]["phase"] == "Running"
    assert seen["status"]["podIP"] == seen["status"]["hostIP"] == "127.0.0.1"
    assert conditions(seen) == {"Initialized": "True", "Ready": "True", "ContainersReady": "True",
                                "PodScheduled": "True"}  # fmt: skip
    assert container(seen)["ready"]
    assert container(seen)["started"]
    assert alive(pid(seen))


@pytest.mark.parametrize(
    ("policy", "code", "outcome"),
    [
        ("Never", 0, ("Succeeded", "Completed")),
        ("Never", 7, ("Failed", "Error")),
        ("OnFailure", 0, ("Succeeded", "Completed")),
    ],
)
def test_a_pod_that_is_not_restarted_ends_with_its_exit_code(
    cluster: LocalCluster, runner: Runner, policy: str, code: int, outcome: tuple[str, str]
) -> None:
    cluster.create(pod("a", f"raise SystemExit({code})", restartPolicy=policy))

    seen = until(cluster, ref("a"), ended)

    terminated = state(seen)["terminated"]
    assert (seen["status"]["phase"], terminated["reason"]) == outcome
    assert terminated["exitCode"] == code
    assert terminated["startedAt"] <= terminated["finishedAt"]
    assert conditions(seen)["Ready"] == "False"
    assert container(seen)["restartCount"] == 0


def test_a_signal_is_told_as_such(cluster: LocalCluster, runner: Runner) -> None:
    cluster.create(pod("a", "import os; os.kill(os.getpid(), 9)", restartPolicy="Never"))

    terminated = state(until(cluster, ref("a"), ended))["terminated"]

    assert (terminated["exitCode"], terminated["signal"], terminated["reason"]) == (137, 9, "Error")


def test_a_container_that_asks_for_it_leaves_the_end_of_its_log(cluster: LocalCluster, runner: Runner) -> None:
    body = pod("a", "print('x' * 4000); raise NameError('no such thing')", restartPolicy="Never")
    body["spec"]["containers"][0]["terminationMessagePolicy"] = "FallbackToLogsOnError"
    cluster.create(body)

    message = state(until(cluster, ref("a"), ended))["terminated"]["message"]

    assert message.rstrip().endswith("NameError: no such thing")
    assert len(message) == 2048


@pytest.mark.parametrize("path", ["/dev/termination-log", "/messages/end"])
def test_a_container_may_say_with_what_it_ended(cluster: LocalCluster, runner: Runner, path: str) -> None:
    body = pod("a", "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text('{}')", restartPolicy="Never")
    body["spec"]["containers"][0] |= {"args": [path], "terminationMessagePath": path}
    cluster.create(body)

    assert state(until(cluster, ref("a"), ended))["terminated"]["message"] == "{}"


def test_a_failing_container_restarts_with_back_off(cluster: LocalCluster, runner: Runner) -> None:
    cluster.create(pod("a", "raise SystemExit(3)"))

    waiting = until(cluster, ref("a"), lambda obj: state(obj).get("waiting", {}).get("reason") == "CrashLoopBackOff")
    again = until(cluster, ref("a"), lambda obj: container(obj).get("restartCount", 0) >= 3)

    assert waiting["status"]["phase"] == "Running"
    assert not container(waiting)["ready"]
    assert container(waiting)["lastState"]["terminated"]["exitCode"] == 3
    assert container(again)["lastState"]["terminated"]["exitCode"] == 3
    until(
        cluster,
        _event(cluster, "BackOff"),
        lambda event: event["message"] == "Back-off restarting failed container main" and event["count"] >= 2,
    )


def _event(cluster: LocalCluster, reason: str) -> dict[str, dict[str, str]]:
    return next(event for event in cluster.list(EVENT).items if event["reason"] == reason)


def test_a_container_that_was_killed_is_restarted_under_a_new_pid(cluster: LocalCluster, runner: Runner) -> None:
    cluster.create(pod("a", PATIENT))
    first = pid(until(cluster, ref("a"), running))

    os.kill(first, signal.SIGKILL)
    seen = until(cluster, ref("a"), lambda obj: running(obj) and container(obj)["restartCount"] == 1)

    assert pid(seen) != first
    assert container(seen)["lastState"]["terminated"]["exitCode"] == 137


def test_a_deleted_pod_ends_by_sigterm_and_vanishes(cluster: LocalCluster, runner: Runner) -> None:
    cluster.create(pod("a", PATIENT))
    seen = until(cluster, ref("a"), running)

    cluster.delete(ref("a"))
    until_gone(cluster, ref("a"))

    assert not alive(pid(seen))
    runner.stop()
    assert not list(runner.pods.iterdir())


def test_a_container_that_ignores_sigterm_is_killed_after_its_grace_period(
    cluster: LocalCluster, runner: Runner
) -> None:
    cluster.create(pod("a", STUBBORN, terminationGracePeriodSeconds=1))
    seen = until(cluster, ref("a"), lambda obj: running(obj) and annotated(obj))
    assert next(cluster.logs(ref("a"), follow=True)) == "here"

    cluster.delete(ref("a"))
    last = until(cluster, ref("a"), lambda obj: "terminated" in state(obj))
    until_gone(cluster, ref("a"))

    assert state(last)["terminated"]["signal"] == signal.SIGKILL
    assert not alive(pid(seen))


def test_a_second_delete_shortens_the_grace_period(cluster: LocalCluster, runner: Runner) -> None:
    cluster.create(pod("a", STUBBORN, terminationGracePeriodSeconds=600))
    seen = until(cluster, ref("a"), lambda obj: running(obj) and annotated(obj))
    assert next(cluster.logs(ref("a"), follow=True)) == "here"

    cluster.delete(ref("a"))
    until(cluster, ref("a"), lambda obj: "deletionTimestamp" in obj["metadata"])
    assert alive(pid(seen))
    cluster.delete(ref("a"), grace_s=1)
    until_gone(cluster, ref("a"))

    assert not alive(pid(seen))


def test_what_a_container_left_behind_ends_with_it(cluster: LocalCluster, runner: Runner, tmp_path: Path) -> None:
    note = tmp_path / "child"
    program = (
        "import pathlib, subprocess, sys;"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True);"
        f"pathlib.Path({str(note)!r}).write_text(str(child.pid))"
    )
    cluster.create(pod("a", program, restartPolicy="Never"))

    until(cluster, ref("a"), ended)

    assert not alive(int(note.read_text()))


def test_a_missing_program_is_a_create_container_error(cluster: LocalCluster, runner: Runner) -> None:
    cluster.create(pod("a", "", container={"command": ["no-such-program"]}))

    seen = until(cluster, ref("a"), lambda obj: state(obj).get("waiting", {}).get("reason") == "CreateContainerError")

    assert "no-such-program" in state(seen)["waiting"]["message"]
    assert seen["status"]["phase"] == "Pending"


def test_what_cannot_be_executed_is_a_start_error(cluster: LocalCluster, runner: Runner, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("no program")
    cluster.create(pod("a", "", container={"command": [str(tmp_path / "data")]}, restartPolicy="Never"))

    terminated = state(until(cluster, ref("a"), ended))["terminated"]

    assert (terminated["exitCode"], terminated["reason"]) == (128, "StartError")
    assert "Permission denied" in terminated["message"]


def test_a_missing_host_path_is_failed_mount_until_it_appears(
    cluster: LocalCluster, runner: Runner, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    volume = {"name": "model", "hostPath": {"path": str(folder), "type": "Directory"}}
    cluster.create(pod("a", PATIENT, volumes=[volume]))

    seen = until(cluster, ref("a"), lambda obj: state(obj).get("waiting", {}).get("reason") == "FailedMount")
    assert seen["status"]["phase"] == "Pending"
    assert str(folder) in state(seen)["waiting"]["message"]
    while not (events := [event for event in cluster.list(EVENT).items if event["reason"] == "FailedMount"]):
        until(cluster, ref("a"), annotated)
    assert str(folder) in events[0]["message"]

    folder.mkdir()
    until(cluster, ref("a"), running)


def test_a_pod_with_init_containers_says_that_it_needs_a_cluster(cluster: LocalCluster, runner: Runner) -> None:
    step = {"name": "step", "image": "i", "command": ["true"]}
    cluster.create(pod("a", PATIENT, initContainers=[step]))

    waits = until(cluster, ref("a"), lambda obj: state(obj).get("waiting", {}).get("message"))
    assert state(waits)["waiting"]["reason"] == "InitContainersUnsupported"
    assert "needs a cluster" in state(waits)["waiting"]["message"]
    cluster.delete(ref("a"), grace_s=0)
    until_gone(cluster, ref("a"))


def test_readiness_follows_the_probe(cluster: LocalCluster, runner: Runner, tmp_path: Path) -> None:
    flag = tmp_path / "ready"
    probe = {"exec": {"command": ["test", "-e", str(flag)]}, "periodSeconds": 1, "failureThreshold": 1}
    cluster.create(pod("a", PATIENT, container={"readinessProbe": probe}))

    assert not container(until(cluster, ref("a"), running))["ready"]
    flag.touch()
    assert conditions(until(cluster, ref("a"), lambda obj: container(obj).get("ready")))["Ready"] == "True"
    flag.unlink()
    assert conditions(until(cluster, ref("a"), lambda obj: not container(obj).get("ready")))["Ready"] == "False"


def test_a_port_that_another_container_serves_makes_none_ready(
    cluster: LocalCluster, runner: Runner, tmp_path: Path
) -> None:
    port, flag = free_port(), tmp_path / "listen"
    serve = (
        "import socket, sys, time; made = socket.socket(); "
        f"made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1); made.bind(('127.0.0.1', {port})); "
        "made.listen(); print('listening', flush=True); time.sleep(600)"
    )
    wait = f"import pathlib, time\nwhile not pathlib.Path({str(flag)!r}).exists(): time.sleep(0.05)\n"
    probe = {"tcpSocket": {"port": port}, "periodSeconds": 1, "failureThreshold": 1}
    cluster.create(pod("first", serve, container={"readinessProbe": probe}))
    until(cluster, ref("first"), lambda obj: container(obj).get("ready"))

    cluster.create(pod("second", wait + serve, container={"readinessProbe": probe}))
    unhealthy = until_event(cluster, "second", "Unhealthy")
    assert "Readiness probe" in unhealthy["message"]
    assert not container(cluster.get(ref("second")))["ready"]
    flag.touch()
    until(cluster, ref("second"), lambda obj: container(obj).get("ready"))


def test_a_failed_liveness_probe_restarts_the_container(cluster: LocalCluster, runner: Runner) -> None:
    probe = {"tcpSocket": {"port": 1}, "periodSeconds": 1, "failureThreshold": 1}
    cluster.create(pod("a", PATIENT, container={"livenessProbe": probe}))

    until(cluster, ref("a"), lambda obj: container(obj).get("restartCount", 0) >= 1)


def test_the_log_of_the_run_before_is_kept(cluster: LocalCluster, runner: Runner, tmp_path: Path) -> None:
    seen_before = tmp_path / "seen"
    program = (
        f"import pathlib, signal; flag = pathlib.Path({str(seen_before)!r}); again = flag.exists(); flag.touch();"
        "print('second' if again else 'first', flush=True);"
        "again and signal.sigwait({signal.SIGTERM}); raise SystemExit(1)"
    )
    cluster.create(pod("a", program))

    seen = until(cluster, ref("a"), lambda obj: running(obj) and annotated(obj) and container(obj)["restartCount"] == 1)

    assert log(seen, "main.log.1") == "first\n"
    assert list(cluster.logs(ref("a"), previous=True)) == ["first"]


def test_a_log_is_bounded(cluster: LocalCluster, runners: Runners) -> None:
    runners("--log-bytes", "4096")
    cluster.create(pod("a", "for n in range(1000): print(f'{n:08d}')", restartPolicy="Never"))

    seen = until(cluster, ref("a"), lambda obj: ended(obj) and annotated(obj))

    lines = (log(seen, "main.log.old") + log(seen)).split()
    assert [int(line) for line in lines] == list(range(int(lines[0]), 1000))
    assert 4000 < len(log(seen, "main.log.old")) <= 4096
    assert len(log(seen)) <= 4096
    assert (
        json.loads(
            next(
                Path(seen["metadata"]["annotations"]["nereid.io/log-dir"]).glob("containers/main/0/exit.json")
            ).read_text()
        )["lostLogBytes"]
        == 0
    )
