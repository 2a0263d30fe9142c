# SPDX-License-Identifier: Apache-2.0
"""The contract of validation: what is refused, by which field, and what is filled in."""

from typing import Any

import pytest

from nereid_cloud.cluster.kinds import ref_of
from nereid_cloud.cluster.port import Cluster
from nereid_shared.errors import Invalid, NotFound

from .conftest import Make


def changed(obj: Any, path: str, value: Any) -> Any:
    """Return a copy with the field at a dotted path set, or removed where the value is `...`."""
    head, _, rest = path.partition(".")
    if rest:
        return {**obj, head: changed(obj[head], rest, value)}
    kept = {key: child for key, child in obj.items() if key != head}
    return kept if value is ... else {**kept, head: value}


def fields(refused: Invalid) -> list[str]:
    # An API server adds a cause without a field where it did not come to ask its rules.
    return [cause.field for cause in refused.causes if cause.field != "<nil>"]


REFUSED = [
    ("edgeWorker.name", ..., "spec.edgeWorker.name", "Required value"),
    ("edgeWorker.name", 7, "spec.edgeWorker.name", r'must be of type string: "integer"'),
    ("edgeWorker.name", None, "spec.edgeWorker.name", "Required value"),
    ("edgeWorker.name", "Not_DNS", "spec.edgeWorker.name", r"spec\.edgeWorker\.name in body should match '\^"),
    ("edgeWorker.name", "edge\n", "spec.edgeWorker.name", r"should match '\^"),
    ("edgeWorker", "text", "spec.edgeWorker", r'must be of type object: "string"'),
    (
        "edgeWorker.workerSpec.parameters",
        {},
        "spec.edgeWorker.workerSpec.parameters",
        'must be of type array: "object"',
    ),
    ("cloudWorker.replicas", "3", "spec.cloudWorker.replicas", r'must be of type integer: "string"'),
    ("cloudWorker.replicas", -1, "spec.cloudWorker.replicas", "should be greater than or equal to 0"),
    ("cloudWorker.replicas", 1001, "spec.cloudWorker.replicas", "should be less than or equal to 1000"),
    (
        "edgeWorker.workerSpec.parameters",
        [{"key": "a"}],
        "spec.edgeWorker.workerSpec.parameters[0].value",
        "Required value",
    ),
    (
        "edgeWorker.workerSpec.parameters",
        [{"key": str(number), "value": ""} for number in range(65)],
        "spec.edgeWorker.workerSpec.parameters",
        "Too many: 65: must have at most 64 items",
    ),
    (
        "edgeWorker.hardExampleAlgorithm.name",
        "",
        "spec.edgeWorker.hardExampleAlgorithm.name",
        "should be at least 1 chars long",
    ),
    (
        "edgeWorker.workerSpec.frameworkType",
        "x" * 64,
        "spec.edgeWorker.workerSpec.frameworkType",
        "Too long: may not be more than 63 bytes",
    ),
    ("edgeWorker.nodeSelector", {"a": "b"}, "spec.edgeWorker", "exactly one of nodeName and nodeSelector must be set"),
    ("edgeWorker.deadline", "2h", "spec.edgeWorker.deadline", "deadline must be between 1ms and 1h"),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: f"{case[2]}: {case[3]}")
def test_a_wrong_service_is_refused(cluster: Cluster, service: Make, case: tuple[str, Any, str, str]) -> None:
    path, value, field, words = case
    with pytest.raises(Invalid, match=words) as refused:
        cluster.create(changed(service(), f"spec.{path}", value))
    assert fields(refused.value) == [field]


def test_an_unknown_field_is_refused(cluster: Cluster, service: Make) -> None:
    wrong = changed(service(), "spec.edgeWorker.nodename", "edge-0")
    for write in (cluster.create, lambda obj: cluster.apply(obj, manager="me")):
        with pytest.raises(Invalid, match="unknown field") as refused:
            write(wrong)
        assert fields(refused.value) == ["spec.edgeWorker.nodename"]


def test_an_unknown_field_cannot_be_patched_in(cluster: Cluster, dataset: Make) -> None:
    made = cluster.create(dataset())
    with pytest.raises(Invalid, match="unknown field"):
        cluster.patch(ref_of(made), {"spec": {"fromat": "csv"}})


def test_every_wrong_field_is_named(cluster: Cluster, service: Make) -> None:
    wrong = changed(changed(service(), "spec.edgeWorker.name", ...), "spec.cloudWorker.replicas", "3")
    with pytest.raises(Invalid) as refused:
        cluster.create(wrong)
    named = {cause.field for cause in refused.value.causes}
    assert named >= {"spec.edgeWorker.name", "spec.cloudWorker.replicas"}


def test_a_wrong_status_is_refused(cluster: Cluster, dataset: Make) -> None:
    made = cluster.create(dataset())
    with pytest.raises(Invalid) as refused:
        cluster.patch(ref_of(made), {"status": {"numberOfSamples": "three"}}, subresource="status")
    assert fields(refused.value) == ["status.numberOfSamples"]
    with pytest.raises(Invalid) as refused:
        cluster.patch(ref_of(made), {"status": {"updateTime": "yesterday"}}, subresource="status")
    assert fields(refused.value) == ["status.updateTime"]
    conditions = [{"type": "Ready", "status": "Maybe"}]
    with pytest.raises(Invalid, match='supported values: "True", "False", "Unknown"') as refused:
        cluster.patch(ref_of(made), {"status": {"conditions": conditions}}, subresource="status")
    assert fields(refused.value) == ["status.conditions[0].status"]


def test_what_never_changes_cannot_be_changed(cluster: Cluster, dataset: Make) -> None:
    made = cluster.create(dataset())
    with pytest.raises(Invalid, match="immutable") as refused:
        cluster.patch(ref_of(made), {"spec": {"nodeName": "edge-1"}})
    assert fields(refused.value) == ["spec.nodeName"]


def test_defaults_are_filled_in_to_the_bottom(cluster: Cluster, service: Make) -> None:
    spec = cluster.create(service())["spec"]
    assert spec["edgeWorker"]["deadline"] == "1s"
    assert spec["edgeWorker"]["outbox"] == {
        "keepFor": "1h",
        "maxBytes": "256Mi",
        "maxSamples": 10_000,
        "maxAttempts": 10,
    }
    assert spec["cloudWorker"]["replicas"] == 1
    assert spec["cloudWorker"]["batching"] == {"maxSize": 8, "maxWait": "5ms"}


def test_a_null_takes_the_default(cluster: Cluster, service: Make) -> None:
    made = cluster.create(changed(service(), "spec.cloudWorker.replicas", None))
    assert made["spec"]["cloudWorker"]["replicas"] == 1


def test_a_default_comes_back_when_the_field_is_dropped(cluster: Cluster, service: Make) -> None:
    cluster.apply(changed(service(), "spec.edgeWorker.outbox", {"keepFor": "2h"}), manager="me")
    applied = cluster.apply(service(), manager="me")
    assert applied["spec"]["edgeWorker"]["outbox"]["keepFor"] == "1h"


def test_a_wrong_label_is_refused(config_map: Make) -> None:
    with pytest.raises(Invalid) as refused:
        config_map(labels={"a": "not a label"})
    assert fields(refused.value) == ["metadata.labels"]


def test_a_pod_mounts_only_volumes_that_it_has(cluster: Cluster, pod: Make) -> None:
    manifest = pod()
    manifest["spec"]["containers"][0]["volumeMounts"] = [{"name": "absent", "mountPath": "/data"}]
    with pytest.raises(Invalid) as refused:
        cluster.create(manifest)
    assert fields(refused.value) == ["spec.containers[0].volumeMounts[0].name"]


def test_a_kind_that_is_not_served_is_not_found(cluster: Cluster, namespace: str) -> None:
    with pytest.raises(NotFound, match="no matches for kind"):
        cluster.create({"apiVersion": "example.com/v1", "kind": "Absent", "metadata": {"name": "a"}})
