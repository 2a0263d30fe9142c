# SPDX-License-Identifier: Apache-2.0
"""Nereid's resources as a user of kubectl has them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster.kubectl import Kubectl
from tests.shared.resources.cases import DATASET, MODEL, SERVICE, VALID, changed

pytestmark = pytest.mark.cluster

Object = dict[str, Any]
Apply = Callable[..., str]
COLUMNS = {
    "jis": ["STATUS", "ACTIVE", "FAILED", "AGE", "READY", "REASON"],
    "datasets.edgeai.io": ["NUMBEROFSAMPLES", "NODE", "SPEC", "READY", "REASON"],
    "models.edgeai.io": ["UPDATEAGE", "METRICS", "READY", "REASON"],
    "infm": ["LAYER", "TARGET", "SERVING", "READY", "REASON", "URL", "AGE"],
}
WIDE = ["SEEN", "HARD", "PENDING", "RATIO"]
STATUS = {
    "active": 2,
    "failed": 0,
    "conditions": [
        {"type": "Ready", "status": "True", "reason": "Running", "message": "all workers answer"},
        {"type": "Running", "status": "True", "reason": "Running", "message": "all workers answer"},
    ],
    "metrics": [
        {"key": "seen", "value": "100"},
        {"key": "hard", "value": "20"},
        {"key": "pending", "value": "1"},
        {"key": "uploadCloudRatio", "value": "0.1900"},
    ],
}


def manifests(namespace: str, *objects: Object) -> str:
    """Return objects as a manifest in the test's namespace."""
    return yaml.safe_dump_all(changed(obj, {"metadata.namespace": namespace}) for obj in objects)


@pytest.fixture
def applied(kubectl: Kubectl) -> Kubectl:
    """One object of each kind is there."""
    kubectl("apply", "-f", "-", stdin=manifests(kubectl.namespace, *VALID.values()))
    return kubectl


def say(kubectl: Kubectl, status: Object) -> None:
    """Write a service's status, as the GlobalManager does."""
    kubectl("patch", "jis/digits", "--subresource=status", "--type=merge", f"--patch={json.dumps({'status': status})}")


def test_get_shows_the_columns(applied: Kubectl) -> None:
    for word, columns in COLUMNS.items():
        (headings,) = applied.table(word)[:1]
        assert headings == ["NAME", *columns], word
    (headings,) = applied.table("jis", "--output=wide")[:1]
    assert headings == ["NAME", *COLUMNS["jis"], *WIDE]


def test_get_shows_what_the_status_says(applied: Kubectl) -> None:
    say(applied, STATUS)
    row = applied.table("jis", "digits", "--output=wide", "--no-headers")[0]
    assert row[:4] == ["digits", "Running", "2", "0"]
    assert row[5:] == ["True", "Running", "100", "20", "1", "0.1900"]


@pytest.mark.parametrize("word", ["jis", "jointinferenceservice", "jointinferenceservices", "JointInferenceService"])
def test_a_service_has_short_names(applied: Kubectl, word: str) -> None:
    assert applied("get", word, "--output=name") == "jointinferenceservice.neptune.io/digits\n"


def test_one_word_gets_all_of_nereid(applied: Kubectl) -> None:
    found = set(applied("get", "nereid", "--output=name").split())
    assert found == {
        "dataset.edgeai.io/digits", "model.edgeai.io/little", "jointinferenceservice.neptune.io/digits",
        "inferencemodel.sedna.io/digits",
    }  # fmt: skip


def test_scale_changes_the_replicas_of_an_inference_model(applied: Kubectl) -> None:
    status = {"replicas": 1, "selector": "nereid.io/role=serving"}
    applied("patch", "infm/digits", "--subresource=status", "--type=merge", f"--patch={json.dumps({'status': status})}")
    applied("scale", "infm/digits", "--replicas=3")
    scale = applied.json("infm", "digits", "--subresource=scale")
    assert (scale["spec"]["replicas"], scale["status"]) == (3, status)
    assert applied.json("infm", "digits")["spec"]["replicas"] == 3


def test_describe_shows_spec_status_and_events(applied: Kubectl) -> None:
    say(applied, STATUS)
    uid = applied.json("jis", "digits")["metadata"]["uid"]
    about = {"apiVersion": "neptune.io/v1alpha1", "kind": "JointInferenceService", "name": "digits", "uid": uid}
    event = {
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "said"}, "type": "Normal", "reason": "Told",
        "message": "something happened", "involvedObject": {**about, "namespace": applied.namespace},
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:00Z", "count": 1,
    }  # fmt: skip
    applied("create", "-f", "-", stdin=json.dumps(event))
    text = applied("describe", "jis/digits")
    for words in ("Deadline:", "800ms", "all workers answer", "uploadCloudRatio", "something happened"):
        assert words in text


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("jis.spec.edgeWorker.deadline", "<string>"),
        ("jis.spec.edgeWorker.hardExampleAlgorithm", "budget"),
        ("jis.status.metrics", "value"),
        ("datasets.spec", "dataUrl"),
        ("models.spec.sha256", "<string>"),
        ("infm.spec.manifest", "downloadURL"),
    ],
)
def test_explain_knows_every_field(kubectl: Kubectl, path: str, words: str) -> None:
    group = {"jis": "neptune.io", "infm": "sedna.io"}.get(path.partition(".")[0], "edgeai.io") + "/v1alpha1"
    text = kubectl("explain", path, f"--api-version={group}")
    assert words in text
    assert "<no description>" not in text.partition("FIELDS:")[0]


def test_wait_sees_a_condition_come(applied: Kubectl) -> None:
    absent = applied.run("wait", "--for=condition=Ready", "jis/digits", "--timeout=1s")
    assert absent.returncode == 1
    assert "timed out" in absent.stderr
    say(applied, STATUS)
    assert "condition met" in applied("wait", "--for=condition=Ready", "jis/digits", "--timeout=60s")
    assert "condition met" in applied("wait", "--for=jsonpath={.status.active}=2", "jis/digits", "--timeout=60s")


def test_a_status_is_written_by_its_own_endpoint_alone(applied: Kubectl) -> None:
    say(applied, STATUS)
    before = applied.json("jis", "digits")
    applied("patch", "jis/digits", "--type=merge", '--patch={"status": {"active": 9}}')
    applied("patch", "jis/digits", "--subresource=status", "--type=merge", '--patch={"spec": {"cloudWorker": null}}')
    after = applied.json("jis", "digits")
    assert (after["status"], after["spec"]) == (before["status"], before["spec"])


def test_a_status_of_the_wrong_type_is_refused(applied: Kubectl) -> None:
    done = applied.run(
        "patch", "jis/digits", "--subresource=status", "--type=merge", '--patch={"status": {"active": "two"}}'
    )
    assert done.returncode == 1
    assert "status.active" in done.stderr


def test_diff_tells_what_apply_would_change(applied: Kubectl) -> None:
    same = manifests(applied.namespace, *VALID.values())
    assert applied.run("diff", "-f", "-", stdin=same).returncode == 0
    other = manifests(applied.namespace, changed(SERVICE, {"spec.edgeWorker.deadline": "300ms"}))
    done = applied.run("diff", "-f", "-", stdin=other)
    assert done.returncode == 1, done.stderr
    assert "-    deadline: 800ms" in done.stdout
    assert "+    deadline: 300ms" in done.stdout


def test_applying_the_same_again_changes_nothing(applied: Kubectl) -> None:
    before = applied.json("jis", "digits")["metadata"]
    said = applied("apply", "-f", "-", stdin=manifests(applied.namespace, SERVICE))
    after = applied.json("jis", "digits")["metadata"]
    assert said.split()[-1] == "unchanged"
    assert (after["generation"], after["resourceVersion"]) == (before["generation"], before["resourceVersion"])


def test_two_managers_of_one_field_are_told_of_each_other(kubectl: Kubectl) -> None:
    mine = manifests(kubectl.namespace, SERVICE)
    theirs = manifests(kubectl.namespace, changed(SERVICE, {"spec.edgeWorker.deadline": "300ms"}))
    how = ("apply", "--server-side", "-f", "-")
    kubectl(*how, "--field-manager=me", stdin=mine)
    kubectl(*how, "--field-manager=them", stdin=mine)
    conflict = kubectl.run(*how, "--field-manager=them", stdin=theirs)
    assert conflict.returncode == 1
    assert 'conflict with "me": .spec.edgeWorker.deadline' in conflict.stderr
    kubectl(*how, "--field-manager=them", "--force-conflicts", stdin=theirs)
    assert kubectl.json("jis", "digits")["spec"]["edgeWorker"]["deadline"] == "300ms"


def test_what_server_side_apply_no_longer_names_vanishes(kubectl: Kubectl) -> None:
    how = ("apply", "--server-side", "-f", "-")
    kubectl(*how, stdin=manifests(kubectl.namespace, SERVICE))
    less = changed(SERVICE, {"spec.edgeWorker.outbox": None, "spec.cloudWorker.batching": None})
    kubectl(*how, stdin=manifests(kubectl.namespace, less))
    spec = kubectl.json("jis", "digits")["spec"]
    assert spec["edgeWorker"]["outbox"]["keepFor"] == "1h", "the default comes back"
    assert spec["cloudWorker"]["batching"]["maxWait"] == "5ms"


def test_delete_takes_what_the_manifest_names(applied: Kubectl, tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    file.write_text(manifests(applied.namespace, *VALID.values()))
    said = applied("delete", "-f", str(file))
    assert said.count(" deleted") == len(VALID)
    assert applied("get", "nereid", "--output=name") == ""


def test_delete_waits_for_a_finalizer(applied: Kubectl) -> None:
    applied("patch", "jis/digits", "--type=merge", '--patch={"metadata": {"finalizers": ["nereid.io/tasks"]}}')
    kept = applied.run("delete", "jis/digits", "--timeout=1s")
    assert kept.returncode == 1
    assert "deletionTimestamp" in applied.json("jis", "digits")["metadata"]
    applied("patch", "jis/digits", "--type=merge", '--patch={"metadata": {"finalizers": null}}')
    applied("wait", "--for=delete", "jis/digits", "--timeout=60s")


@pytest.mark.parametrize(
    ("obj", "values", "words"),
    [
        (SERVICE, {"spec.edgeWorker.nodeName": "edge-0"}, "nodeName"),
        (SERVICE, {"spec.cloudWorker.name": "edge"}, "name"),
        (SERVICE, {"spec.edgeWorker.deadline": "2h"}, "deadline"),
        (SERVICE, {"spec.edgeWorker.deadLine": "1s"}, 'unknown field "spec.edgeWorker.deadLine"'),
        (DATASET, {"spec.dataUrl": "index.csv"}, "spec.dataUrl"),
        (MODEL, {"spec.sha256": "abc"}, "spec.sha256"),
    ],
)
def test_a_bad_manifest_is_refused_with_its_field(kubectl: Kubectl, obj: Object, values: Object, words: str) -> None:
    done = kubectl.run("apply", "-f", "-", stdin=manifests(kubectl.namespace, changed(obj, values)))
    assert done.returncode == 1
    assert words in done.stderr
    assert kubectl("get", "nereid", "--output=name") == ""


def test_a_dataset_cannot_move(applied: Kubectl) -> None:
    done = applied.run("patch", "datasets.edgeai.io/digits", "--type=merge", '--patch={"spec": {"nodeName": "edge-1"}}')
    assert done.returncode == 1
    assert "spec.nodeName" in done.stderr


def neighbours() -> list[Object]:
    """The CRDs of other projects, without their schemas."""
    listed = yaml.safe_load(Path(__file__).with_name("neighbours.yaml").read_text())
    return [_definition(**names) for names in listed]


def _definition(*, group: str, kind: str, plural: str, **names: Any) -> Object:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1alpha1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower(), **names},
            "versions": [version],
        },
    }


@pytest.mark.usefixtures("own_server")
def test_nereid_lives_beside_sedna_kserve_and_fluid(kubectl: Kubectl) -> None:
    theirs = yaml.safe_dump_all(neighbours())
    try:
        kubectl("apply", "-f", "-", stdin=theirs)
        for condition in ("Established", "NamesAccepted"):
            kubectl("wait", f"--for=condition={condition}", "crd", "--all", "--timeout=60s")
        kubectl("apply", "-f", "-", stdin=manifests(kubectl.namespace, *VALID.values()))
        other = {"kind": "Dataset", "metadata": {"name": "other"}}
        for group in ("sedna.io", "data.fluid.io"):
            kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": f"{group}/v1alpha1", **other}))
        assert kubectl("get", "jis", "--output=name") == "jointinferenceservice.neptune.io/digits\n"
        assert kubectl("get", "infm", "--output=name") == "inferencemodel.sedna.io/digits\n"
        assert kubectl("get", "datasets.edgeai.io", "--output=name") == "dataset.edgeai.io/digits\n"
        assert "other" not in kubectl("get", "nereid", "--output=name")
    finally:
        kubectl("delete", "--ignore-not-found", "-f", "-", stdin=theirs)
