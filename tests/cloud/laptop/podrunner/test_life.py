# SPDX-License-Identifier: Apache-2.0
"""The PodRunner's own life: its node, its stop, its death, and what the next one finds."""

import json
import os
import select
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from tests.cloud.laptop.podrunner.runners import (
    NODE as NAME,
)
from tests.cloud.laptop.podrunner.runners import (
    PATIENT,
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
    until_gone,
)

from nereid_cloud.cluster.kinds import LEASE, NODE
from nereid_cloud.cluster.local import DATABASE, LocalCluster
from nereid_cloud.cluster.port import Object, Ref

pytestmark = pytest.mark.slow  # each test starts processes

THE_NODE = Ref(kind=NODE, name=NAME)
THE_LEASE = Ref(kind=LEASE, name=NAME, namespace="kube-node-lease")


def ready(node: Object) -> str | None:
    found = [one["status"] for one in node.get("status", {}).get("conditions", ()) if one["type"] == "Ready"]
    return found[0] if found else None


def test_the_node_is_registered_and_its_lease_renewed(cluster: LocalCluster, runners: Runners) -> None:
    runners("--labels", "zone=a,tier=edge", "--annotations", "nereid.io/edge-broker=mqtt://127.0.0.1:18831")

    node = until(cluster, THE_NODE, lambda obj: ready(obj) == "True")

    assert node["metadata"]["labels"]["kubernetes.io/hostname"] == NAME
    assert (node["metadata"]["labels"]["zone"], node["metadata"]["labels"]["tier"]) == ("a", "edge")
    assert node["metadata"]["annotations"]["nereid.io/edge-broker"] == "mqtt://127.0.0.1:18831"
    assert {"type": "InternalIP", "address": "127.0.0.1"} in node["status"]["addresses"]
    assert int(node["status"]["allocatable"]["cpu"]) == os.cpu_count()
    lease = until(cluster, THE_LEASE, lambda obj: obj["spec"]["holderIdentity"] == NAME)
    until(cluster, THE_LEASE, lambda obj: obj["spec"]["renewTime"] > lease["spec"]["renewTime"])


def test_a_node_that_another_declared_lost_comes_back(cluster: LocalCluster, runner: Runner) -> None:
    node = until(cluster, THE_NODE, lambda obj: ready(obj) == "True")
    lost = [{**node["status"]["conditions"][0], "status": "Unknown"}]

    cluster.patch(THE_NODE, {"status": {"conditions": lost}}, subresource="status")

    until(cluster, THE_NODE, lambda obj: ready(obj) == "True")


def test_a_deleted_node_is_registered_again(cluster: LocalCluster, runner: Runner) -> None:
    uid = until(cluster, THE_NODE, lambda obj: ready(obj) == "True")["metadata"]["uid"]

    cluster.delete(THE_NODE)

    until(cluster, THE_NODE, lambda obj: obj["metadata"]["uid"] != uid and ready(obj) == "True")


def test_sigterm_stops_the_pods_and_marks_the_node_not_ready(cluster: LocalCluster, runner: Runner) -> None:
    cluster.create(pod("a", PATIENT))
    seen = until(cluster, ref("a"), running)

    assert runner.stop() == 0

    assert not alive(pid(seen))
    after = cluster.get(ref("a"))
    assert "terminated" in state(after)
    assert ready(after) == "False"
    assert ready(cluster.get(THE_NODE)) == "False"


def test_pods_stopped_by_sigterm_run_again_with_the_next_podrunner(cluster: LocalCluster, runners: Runners) -> None:
    cluster.create(pod("a", PATIENT))
    first = runners()
    until(cluster, ref("a"), running)
    first.stop()

    runners()

    seen = until(cluster, ref("a"), running)
    assert container(seen)["restartCount"] == 1


def test_sigkill_leaves_the_pods_and_the_next_podrunner_adopts_them(cluster: LocalCluster, runners: Runners) -> None:
    cluster.create(pod("a", PATIENT))
    first = runners()
    seen = until(cluster, ref("a"), lambda obj: running(obj) and annotated(obj))
    first.kill()
    assert alive(pid(seen))

    second = runners()
    until(cluster, THE_NODE, lambda obj: ready(obj) == "True")
    cluster.create(pod("b", PATIENT))
    until(cluster, ref("b"), running)

    now = cluster.get(ref("a"))
    assert (pid(now), container(now)["restartCount"]) == (pid(seen), 0)
    cluster.delete(ref("a"))
    until_gone(cluster, ref("a"))
    assert not alive(pid(seen))
    assert second.process.poll() is None


def test_keep_pods_leaves_them_at_sigterm(cluster: LocalCluster, runners: Runners) -> None:
    cluster.create(pod("a", PATIENT))
    first = runners("--keep-pods")
    seen = until(cluster, ref("a"), running)

    assert first.stop() == 0

    assert alive(pid(seen))
    assert ready(cluster.get(THE_NODE)) == "False"


def test_the_exit_code_of_what_ended_while_the_podrunner_was_away_is_known(
    cluster: LocalCluster, runners: Runners, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    cluster.create(pod("a", f"open({str(go)!r}).read(); raise SystemExit(5)", restartPolicy="Never"))
    first = runners()
    seen = until(cluster, ref("a"), lambda obj: running(obj) and annotated(obj))
    shim = os.pidfd_open(_shim_of(seen))
    first.kill()
    go.write_text("")
    assert _ended(shim)

    runners()

    terminated = state(until(cluster, ref("a"), lambda obj: "terminated" in state(obj)))["terminated"]
    assert (terminated["exitCode"], terminated["reason"]) == (5, "Error")


def test_what_nobody_saw_ending_is_said_to_be_unknown(cluster: LocalCluster, runner: Runner) -> None:
    cluster.create(pod("a", PATIENT, restartPolicy="Never"))
    seen = until(cluster, ref("a"), lambda obj: running(obj) and annotated(obj))
    # From here on it writes nothing: a closed pipe will not end it.
    assert next(cluster.logs(ref("a"), follow=True)) == "here"

    os.kill(_shim_of(seen), signal.SIGKILL)

    terminated = state(until(cluster, ref("a"), lambda obj: "terminated" in state(obj)))["terminated"]
    assert (terminated["exitCode"], terminated["reason"]) == (137, "ContainerStatusUnknown")
    # The kernel ends a container with its shim, in a moment of its own.
    end = time.monotonic() + 30
    while alive(pid(seen)):
        assert time.monotonic() < end, "the container outlives its shim"
        time.sleep(0.01)


def test_a_recycled_process_id_is_not_adopted(cluster: LocalCluster, runners: Runners) -> None:
    cluster.create(pod("a", PATIENT))
    first = runners()
    seen = until(cluster, ref("a"), lambda obj: running(obj) and annotated(obj))
    first.kill()
    shim = os.pidfd_open(_shim_of(seen))
    signal.pidfd_send_signal(shim, signal.SIGKILL)
    assert _ended(shim)
    # A reboot later the shim's id is that of somebody else: here, of this test.
    _run_folder(seen).joinpath("lock").write_text(str(os.getpid()))

    runners()

    now = until(cluster, ref("a"), lambda obj: running(obj) and container(obj)["restartCount"] == 1)
    assert pid(now) != pid(seen)
    cluster.delete(ref("a"))
    until_gone(cluster, ref("a"))


def test_a_second_podrunner_of_the_same_node_is_refused(cluster: LocalCluster, runners: Runners) -> None:
    runners()
    until(cluster, THE_NODE, lambda obj: ready(obj) == "True")

    assert runners().process.wait(30) == 2


def test_pods_restart_while_the_api_does_not_answer(cluster: LocalCluster, runners: Runners, tmp_path: Path) -> None:
    cluster.create(pod("a", f"open({str(tmp_path / 'runs')!r}, 'a').write('x'); {PATIENT}"))
    runners()
    seen = until(cluster, ref("a"), lambda obj: running(obj) and annotated(obj))
    shim = os.pidfd_open(_shim_of(seen))

    with closing(sqlite3.connect(tmp_path / DATABASE, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        os.kill(pid(seen), signal.SIGKILL)
        assert _ended(shim)
        again = _wait_for_run(seen, 1)
        assert alive(again)
        connection.execute("ROLLBACK")

    now = until(cluster, ref("a"), lambda obj: container(obj)["restartCount"] == 1)
    assert pid(now) == again
    assert container(now)["lastState"]["terminated"]["signal"] == signal.SIGKILL


@pytest.mark.parametrize("arguments", [("--node", "Not_a_name"), ("--host-root", "nothing"), ("--labels", "x")])
def test_a_wrong_argument_is_told_without_a_traceback(runners: Runners, arguments: tuple[str, ...]) -> None:
    runner = runners(*arguments)

    assert runner.process.wait(30) == 2
    assert "Traceback" not in (runner.state / "podrunner.log").read_text()


def test_the_log_goes_on_over_the_podrunners_death(cluster: LocalCluster, runners: Runners) -> None:
    cluster.create(pod("a", PATIENT))
    first = runners()
    seen = until(cluster, ref("a"), lambda obj: running(obj) and annotated(obj))
    assert next(cluster.logs(ref("a"), follow=True)) == "here"
    shim = os.pidfd_open(_shim_of(seen))
    first.kill()

    os.kill(pid(seen), signal.SIGTERM)

    assert _ended(shim)
    assert log(seen) == "here\nbye\n"


def _run_folder(obj: Object, number: int = 0) -> Path:
    return Path(obj["metadata"]["annotations"]["nereid.io/log-dir"]) / "containers" / "main" / str(number)


def _shim_of(obj: Object) -> int:
    return int((_run_folder(obj) / "lock").read_text())


def _ended(pidfd: int) -> bool:

    ended = bool(select.select([pidfd], [], [], 20)[0])
    os.close(pidfd)
    return ended


def _wait_for_run(obj: Object, number: int) -> int:
    """Return the process id of a run once it has started."""

    record = _run_folder(obj, number) / "started.json"
    deadline = time.monotonic() + 30
    while not record.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    started: dict[str, int] = json.loads(record.read_text())
    return started["pid"]


def test_a_run_of_which_only_the_folder_was_made_never_was(cluster: LocalCluster, runners: Runners) -> None:
    cluster.create(pod("a", PATIENT))
    first = runners()
    seen = until(cluster, ref("a"), lambda obj: running(obj) and annotated(obj))
    first.kill()
    shim = os.pidfd_open(_shim_of(seen))
    signal.pidfd_send_signal(shim, signal.SIGKILL)
    assert _ended(shim)
    # What a disk that is full at that moment, or a kill, leaves of the next start.
    _run_folder(seen).with_name("1").mkdir()

    runners()

    now = until(cluster, ref("a"), lambda obj: running(obj) and container(obj)["restartCount"] == 1)
    assert pid(now) != pid(seen)
    cluster.delete(ref("a"))
    until_gone(cluster, ref("a"))


def test_a_podrunner_ends_with_all_its_processes_when_a_pod_cannot_be_stopped(
    cluster: LocalCluster, runners: Runners
) -> None:
    cluster.create(pod("a", PATIENT))
    first = runners()
    seen = until(cluster, ref("a"), lambda obj: running(obj) and annotated(obj))
    first.kill()
    _run_folder(seen).with_name("not a run").mkdir()
    second = runners()
    end = time.monotonic() + 30
    while "pod worker failed" not in (second.state / "podrunner.log").read_text():
        assert time.monotonic() < end, "the second PodRunner does not mind"
        time.sleep(0.01)

    second.process.terminate()
    assert second.process.wait(30) == 0
    assert not alive(pid(seen))
