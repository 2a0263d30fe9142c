# SPDX-License-Identifier: Apache-2.0
"""``nereid describe``, ``events``, ``wait``, ``delete`` and ``logs``."""

import subprocess
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from tests.cloud.cli.conftest import Nereid, Start, command
from tests.cloud.cli.objects import SERVICE_REF, condition, event, pod, service
from tests.shared.resources.cases import MODEL, Object

from nereid_cloud.cluster import kinds
from nereid_cloud.cluster.local import LocalCluster
from nereid_cloud.cluster.local_logs import LOG_FOLDER
from nereid_cloud.cluster.opening import DATABASE
from nereid_cloud.cluster.port import Ref

pytestmark = pytest.mark.slow  # each test starts processes


def test_a_description_has_spec_conditions_and_events(nereid: Nereid, cluster: LocalCluster) -> None:
    metrics = [{"key": "seen", "value": "12"}]
    made = service(cluster, condition("Ready", "False", "ModelNotFound", message="no Model big"), metrics=metrics)
    event(cluster, "one", made, reason="ModelNotFound", message="no Model big", count=3)
    text = nereid("describe", "jis/digits").stdout
    lines = [line.split() for line in text.splitlines()]
    assert ["Name:", "digits"] in lines
    assert ["Keep", "For:", "30m"] in lines
    assert ["seen:", "12"] in lines
    assert ["Type", "Status", "Reason", "Age", "Message"] in lines
    assert any(
        line[:3] == ["Ready", "False", "ModelNotFound"] and line[-3:] == ["no", "Model", "big"] for line in lines
    )
    (told,) = (line for line in text.splitlines() if "nereid-gm" in line)
    assert told.split()[:2] == ["Normal", "ModelNotFound"]
    assert "(x3 over " in told


def test_events_of_a_former_object_of_that_name_are_not_described(nereid: Nereid, cluster: LocalCluster) -> None:
    made = service(cluster)
    former = {**made, "metadata": {**made["metadata"], "uid": "former"}}
    event(cluster, "one", former, reason="Old", message="of another")
    assert nereid("describe", "jis", "digits").stdout.splitlines()[-1].split() == ["Events:", "<none>"]


def test_events_are_sorted_by_time_and_chosen_by_object(nereid: Nereid, cluster: LocalCluster) -> None:
    made = service(cluster)
    event(cluster, "a", made, reason="Late", message="second", lastTimestamp="2026-02-01T00:00:00Z", type="Warning")
    event(cluster, "b", made, reason="Early", message="first")
    event(cluster, "other", pod(cluster, "p"), reason="Other", message="third")
    rows = [line.split() for line in nereid("events", "--for", "jis/digits").stdout.splitlines()]
    assert rows[0] == ["LAST", "SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]
    assert [row[1:] for row in rows[1:]] == [
        ["Normal", "Early", "jointinferenceservice/digits", "first"],
        ["Warning", "Late", "jointinferenceservice/digits", "second"],
    ]
    assert [row.split()[2] for row in nereid("events", "--types=Warning").stdout.splitlines()[1:]] == ["Late"]


def test_events_are_followed(started: Start, cluster: LocalCluster) -> None:
    made = service(cluster)
    event(cluster, "one", made, reason="First", message="m")
    watching = started("events", "-w")
    assert watching.stdout is not None
    assert watching.stdout.readline().startswith("LAST SEEN")
    assert "First" in watching.stdout.readline()
    event(cluster, "two", made, reason="Second", message="m")
    assert "Second" in watching.stdout.readline()


def test_a_wait_ends_when_the_condition_holds(started: Start, cluster: LocalCluster) -> None:
    service(cluster, condition("Ready", "False"))
    waiting = started("wait", "jis/digits", "--for=condition=Ready", "--timeout=20s")
    status = {"conditions": [condition("Ready", "True", observedGeneration=1)]}
    cluster.patch(SERVICE_REF, {"status": status}, subresource="status")
    assert waiting.communicate(timeout=20) == ("jointinferenceservice.neptune.io/digits condition met\n", "")
    assert waiting.returncode == 0


def test_a_condition_of_an_older_generation_does_not_count(nereid: Nereid, cluster: LocalCluster) -> None:
    service(cluster, condition("Ready", "True", observedGeneration=1))
    cluster.patch(SERVICE_REF, {"spec": {"cloudWorker": {"replicas": 3}}})
    done = nereid("wait", "jis/digits", "--for=condition=Ready", "--timeout=100ms")
    assert (done.returncode, done.stdout) == (1, "")
    assert "timed out waiting for the condition on jointinferenceservices/digits" in done.stderr
    assert "Ready is True of generation 1, not of the present spec" in done.stderr


@pytest.mark.parametrize(
    ("form", "code"),
    [
        ("condition=ready=false", 0),
        ("condition=Ready=True", 1),
        ("jsonpath={.status.active}=2", 0),
        ("jsonpath={.status.active}=3", 1),
        ("create", 0),
        ("delete", 1),
        ("nonsense", 2),
    ],
)
def test_what_can_be_waited_for(nereid: Nereid, cluster: LocalCluster, form: str, code: int) -> None:
    service(cluster, condition("Ready", "False"), active=2)
    assert nereid("wait", "jis/digits", f"--for={form}", "--timeout=100ms").returncode == code


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        (
            [condition("Ready", "False", "ModelNotFound", message="no model big")],
            "Ready is False (ModelNotFound: no model big)",
        ),
        ([condition("Ready", "True", "AllUp", observedGeneration=0)], "condition met"),
        ([condition("Pending", "True")], "it has no condition Ready yet"),
    ],
)
def test_a_wait_in_vain_says_what_the_condition_is(
    nereid: Nereid, cluster: LocalCluster, conditions: list[Object], said: str
) -> None:
    service(cluster, *conditions)
    done = nereid("wait", "jis/digits", "--for=condition=Ready", "--timeout=100ms")
    assert said in done.stdout + done.stderr


@pytest.mark.parametrize("words", [["get", "jis"], ["wait", "ns/default", "--for=create"], ["apply", "-f", "-"]])
def test_a_system_that_is_down_is_said_to_be(state: Path, words: list[str]) -> None:
    LocalCluster(state / DATABASE).close()
    done = subprocess.run(
        command("--state", str(state), *words), input=yaml.safe_dump(MODEL), capture_output=True, text=True, check=True
    )
    assert "Warning: the system is not up, so nothing of this runs or changes: nereid up" in done.stderr


def test_a_system_that_is_up_is_not_warned_of(nereid: Nereid) -> None:
    assert nereid("get", "ns").stderr == ""


def test_a_wait_for_what_is_not_there_fails_at_once(nereid: Nereid) -> None:
    done = nereid("wait", "jis/digits", "--for=condition=Ready", "--timeout=20s")
    assert (done.returncode, done.stdout) == (1, "")
    assert "NotFound" in done.stderr
    assert nereid("wait", "jis/digits", "--for=delete").returncode == 0


def test_what_is_deleted_is_gone_when_the_command_ends(nereid: Nereid, cluster: LocalCluster) -> None:
    cluster.create(MODEL)
    assert nereid("delete", "model", "little").stdout == 'model.edgeai.io "little" deleted from default namespace\n'
    assert cluster.list(kinds.MODEL).items == []
    assert nereid("delete", "model", "little").returncode == 1
    assert nereid("delete", "model", "little", "--ignore-not-found").returncode == 0


def test_a_delete_waits_for_finalizers(started: Start, nereid: Nereid, cluster: LocalCluster) -> None:
    cluster.create({**MODEL, "metadata": {**MODEL["metadata"], "finalizers": ["nereid.io/held"]}})
    ref = Ref(kind=kinds.MODEL, name="little", namespace="default")
    assert nereid("delete", "model/little", "--wait=false").returncode == 0
    late = nereid("delete", "model/little", "--timeout=200ms")
    assert late.returncode == 1
    assert "timed out waiting" in late.stderr
    waiting = started("delete", "model/little")
    assert waiting.stdout is not None
    waiting.stdout.readline()
    cluster.patch(ref, {"metadata": {"finalizers": None}})
    assert waiting.wait(timeout=20) == 0


def held_service(cluster: LocalCluster) -> None:
    service(cluster, condition("Ready", "True", "AllWorkersRunning"), heldBy=["edge-0"])
    cluster.patch(SERVICE_REF, {"metadata": {"finalizers": ["nereid.io/tasks"]}})


def test_a_delete_that_waits_says_for_what(started: Start, cluster: LocalCluster) -> None:
    held_service(cluster)
    waiting = started("delete", "jis/digits")
    assert waiting.stderr is not None
    assert waiting.stderr.readline().startswith("waiting for jis/digits: nereid.io/tasks, held by edge-0 (")
    cluster.patch(SERVICE_REF, {"metadata": {"finalizers": None}})
    assert waiting.wait(timeout=20) == 0


def test_a_delete_on_a_system_that_is_down_does_not_wait(state: Path) -> None:
    with closing(LocalCluster(state / DATABASE)) as cluster:
        held_service(cluster)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        argv = command("--state", str(state), *words)
        return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)

    done = run("delete", "jis/digits")
    assert done.returncode == 0
    assert "jis/digits is Terminating: nereid.io/tasks, held by edge-0; " in done.stderr
    assert "nereid up" in done.stderr.splitlines()[-1]
    assert run("get", "jis").stdout.splitlines()[1].split()[1] == "Terminating"


def test_a_manifest_or_labels_say_what_to_delete(nereid: Nereid, cluster: LocalCluster, tmp_path: Path) -> None:
    file = tmp_path / "model.yaml"
    file.write_text("apiVersion: edgeai.io/v1alpha1\nkind: Model\nmetadata:\n  name: little\n")
    cluster.create(MODEL)
    assert nereid("delete", "-f", str(file)).returncode == 0
    pod(cluster, "a", labels={"app": "x"})
    pod(cluster, "b", labels={"app": "y"})
    assert nereid("delete", "pods", "-l", "app=x", "--wait=false").stdout.startswith('pod "a" deleted')
    assert nereid("delete", "pods").returncode == 2
    assert nereid("delete").returncode == 2


def logged(folder: Path, name: str, text: str) -> dict[str, str]:
    (folder / name).mkdir()
    (folder / name / "worker.log").write_text(text)
    return {LOG_FOLDER: str(folder / name)}


def test_logs_of_a_pod(nereid: Nereid, cluster: LocalCluster, tmp_path: Path) -> None:
    pod(cluster, "p", annotations=logged(tmp_path, "p", "one\ntwo\nthree\n"))
    assert nereid("logs", "p").stdout == "one\ntwo\nthree\n"
    assert nereid("logs", "pod/p", "--tail=1").stdout == "three\n"
    absent = nereid("logs", "p", "--previous")
    assert (absent.returncode, absent.stdout) == (1, "")
    assert "Error from server (NotFound)" in absent.stderr


def test_logs_of_a_service_are_those_of_its_pods_and_deployments(
    nereid: Nereid, cluster: LocalCluster, tmp_path: Path
) -> None:
    made = service(cluster)
    owner = {"apiVersion": made["apiVersion"], "kind": made["kind"], "name": "digits", "uid": made["metadata"]["uid"]}
    template = {"metadata": {"labels": {"app": "cloud"}}, "spec": {"containers": [{"name": "worker", "image": "x"}]}}
    cluster.create(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "cloud", "namespace": "default", "ownerReferences": [owner]},
            "spec": {"selector": {"matchLabels": {"app": "cloud"}}, "template": template},
        }
    )
    pod(cluster, "edge", ownerReferences=[owner], annotations=logged(tmp_path, "edge", "little\n"))
    pod(cluster, "cloud-1", labels={"app": "cloud"}, annotations=logged(tmp_path, "cloud-1", "big\n"))
    pod(cluster, "other", annotations=logged(tmp_path, "other", "else\n"))
    assert nereid("logs", "jis/digits").stdout == "[pod/cloud-1] big\n[pod/edge] little\n"


def test_logs_are_followed(started: Start, cluster: LocalCluster, tmp_path: Path) -> None:
    pod(cluster, "p", annotations=logged(tmp_path, "p", "one\n"))
    following = started("logs", "-f", "p")
    assert following.stdout is not None
    assert following.stdout.readline() == "one\n"
    with (tmp_path / "p" / "worker.log").open("a") as file:
        file.write("two\n")
    assert following.stdout.readline() == "two\n"


def test_logs_without_pods_say_so(nereid: Nereid, cluster: LocalCluster) -> None:
    service(cluster)
    done = nereid("logs", "jis/digits")
    assert done.returncode == 1
    assert "no Pods of jis/digits" in done.stderr
