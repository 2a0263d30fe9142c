# SPDX-License-Identifier: Apache-2.0
"""The same command on a real API server."""

import json
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cloud.cli.conftest import TIMEOUT_S, command
from tests.cluster.control_plane import ApiServer
from tests.cluster.faults import FaultProxy
from tests.cluster.kubectl import Kubectl
from tests.shared.resources.cases import DATASET, MODEL, SERVICE, changed

pytestmark = pytest.mark.cluster

CALLED = "jointinferenceservice.neptune.io/digits"
READY = {"type": "Ready", "status": "True", "reason": "Running", "message": "all workers answer"}
RUNNING = {**READY, "type": "Running"}
Nereid = Callable[..., subprocess.CompletedProcess[str]]


def runs(*arguments: str, stdin: str = "", env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    argv = command(*arguments)
    given = {**os.environ, **(env or {})}
    return subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, env=given)


@pytest.fixture
def nereid(api_server: ApiServer, kubectl: Kubectl) -> Nereid:
    """Runs the command in the test's own namespace."""

    def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        shared = ("--kubeconfig", str(api_server.kubeconfig), "--namespace", kubectl.namespace)
        return runs(*arguments, *shared, stdin=stdin)

    return run


def manifest(*objects: dict[str, Any]) -> str:
    return yaml.safe_dump_all(changed(obj, {"metadata.namespace": None}) for obj in objects)


def say(kubectl: Kubectl, *conditions: dict[str, str]) -> None:
    status = {"active": 2, "failed": 0, "conditions": list(conditions), "metrics": [{"key": "seen", "value": "7"}]}
    kubectl("patch", "jis/digits", "--subresource=status", "--type=merge", f"--patch={json.dumps({'status': status})}")


def test_apply_creates_keeps_and_changes(nereid: Nereid, kubectl: Kubectl) -> None:
    assert nereid("apply", "-f", "-", stdin=manifest(SERVICE)).stdout == f"{CALLED} created\n"
    assert nereid("apply", "-f", "-", stdin=manifest(SERVICE)).stdout == f"{CALLED} unchanged\n"
    other = manifest(changed(SERVICE, {"spec.edgeWorker.deadline": "300ms"}))
    assert (
        nereid("apply", "-f", "-", "--dry-run=server", stdin=other).stdout == f"{CALLED} configured (server dry run)\n"
    )
    assert kubectl.json("jis", "digits")["spec"]["edgeWorker"]["deadline"] == "800ms"
    assert nereid("apply", "-f", "-", stdin=other).stdout == f"{CALLED} configured\n"
    assert kubectl.json("jis", "digits")["spec"]["edgeWorker"]["deadline"] == "300ms"


def test_a_wrong_field_is_named_with_the_mend(nereid: Nereid) -> None:
    refused = nereid("apply", "-f", "-", stdin=manifest(changed(SERVICE, {"spec.edgeWorker.deadLine": "1s"})))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert 'did you mean "spec.edgeWorker.deadline"?' in refused.stderr


def test_get_and_kubectl_get_show_the_same(nereid: Nereid, kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=manifest(SERVICE, DATASET, MODEL))
    say(kubectl, READY, RUNNING)
    ours = [line.split() for line in nereid("get", "jis").stdout.splitlines()]
    theirs = kubectl.table("jis")
    age = theirs[0].index("AGE")
    assert ours[0] == theirs[0]
    assert [*ours[1][:age], *ours[1][age + 1 :]] == [*theirs[1][:age], *theirs[1][age + 1 :]]
    assert json.loads(nereid("get", "jis/digits", "-o", "json").stdout)["spec"] == kubectl.json("jis", "digits")["spec"]
    assert nereid("get", "nereid", "-o", "name").stdout.split() == kubectl("get", "nereid", "-o", "name").split()


def test_describe_and_events_tell_what_happened(nereid: Nereid, kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=manifest(SERVICE))
    say(kubectl, READY, RUNNING)
    uid = kubectl.json("jis", "digits")["metadata"]["uid"]
    about = {"kind": "JointInferenceService", "name": "digits", "namespace": kubectl.namespace, "uid": uid}
    event = {
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "said"}, "type": "Warning", "reason": "Told",
        "message": "something happened", "count": 3, "source": {"component": "nereid-gm"},
        "involvedObject": about,
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    kubectl("create", "-f", "-", stdin=json.dumps(event))
    described = nereid("describe", "jis/digits").stdout
    for words in ("all workers answer", "something happened", "800ms"):
        assert words in described
    assert "something happened" in nereid("events").stdout


def test_wait_ends_when_the_condition_comes(nereid: Nereid, kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=manifest(SERVICE))
    assert nereid("wait", "jis/digits", "--for=condition=Ready", "--timeout=200ms").returncode == 1
    soon = threading.Timer(1, say, (kubectl, READY, RUNNING))
    soon.start()
    assert nereid("wait", "jis/digits", "--for=condition=Ready", "--timeout=20s").stdout == f"{CALLED} condition met\n"
    soon.join()


def test_delete_waits_until_all_are_gone(nereid: Nereid, kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=manifest(SERVICE, DATASET, MODEL))
    deleted = nereid("delete", "-f", "-", stdin=manifest(SERVICE, DATASET, MODEL))
    assert deleted.stdout.count(f"deleted from {kubectl.namespace} namespace") == 3
    assert kubectl("get", "nereid", "-o", "name") == ""
    assert "NotFound" in nereid("get", "jis/digits").stderr


def test_a_server_that_asks_for_patience_is_no_error(api_server: ApiServer, kubectl: Kubectl, tmp_path: Path) -> None:
    with FaultProxy(api_server.kubeconfig) as proxy:
        proxy.refuse(429, "TooManyRequests", when=lambda _request: True, times=3, retry_after_s=0)
        shared = ("--kubeconfig", str(proxy.kubeconfig(tmp_path)), "-n", kubectl.namespace)
        applied = runs("apply", "-f", "-", *shared, stdin=manifest(SERVICE))
    assert (applied.stdout, applied.stderr) == (f"{CALLED} created\n", "")


@pytest.fixture
def two_contexts(api_server: ApiServer, tmp_path: Path) -> Path:
    """A kubeconfig whose current context leads nowhere and whose context `right` leads to the server."""
    config = yaml.safe_load(api_server.kubeconfig.read_text())
    config["clusters"].append({"name": "nowhere", "cluster": {"server": "http://127.0.0.1:1"}})
    (context,) = config["contexts"]
    config["contexts"] = [
        {"name": "wrong", "context": {**context["context"], "cluster": "nowhere"}},
        {"name": "right", "context": context["context"]},
    ]
    config["current-context"] = "wrong"
    file = tmp_path / "two-contexts"
    file.write_text(json.dumps(config))
    return file


def test_a_context_is_chosen_by_name(two_contexts: Path) -> None:
    wrong = runs("get", "nodes", "--kubeconfig", str(two_contexts))
    assert wrong.returncode == 1
    assert "does not answer" in wrong.stderr
    assert runs("get", "nodes", "--kubeconfig", str(two_contexts), "--context", "right").returncode == 0
    unknown = runs("get", "nodes", "--kubeconfig", str(two_contexts), "--context", "other")
    assert unknown.returncode == 2
    assert "other" in unknown.stderr


def test_kubectls_variable_names_the_cluster(two_contexts: Path, kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl("apply", "-f", "-", stdin=manifest(MODEL))
    env = {"KUBECONFIG": f"{two_contexts}:{tmp_path / 'absent'}", "XDG_STATE_HOME": str(tmp_path)}
    asked = ("get", "models", "-n", kubectl.namespace, "-o", "name")
    assert runs(*asked, "--context", "right", env=env).stdout == "model.edgeai.io/little\n"
    assert "does not answer" in runs(*asked, env=env).stderr
    named = runs(*asked, "--state", str(tmp_path), env=env)
    assert "no cluster in this state folder" in named.stderr
