# SPDX-License-Identifier: Apache-2.0
"""The contract of server-side apply: what a manager no longer names vanishes, what it never named stays."""

from typing import Any

import pytest

from nereid_cloud.cluster.kinds import ref_of
from nereid_cloud.cluster.port import Cluster, Object
from nereid_shared.errors import Conflict

from .conftest import Make


@pytest.fixture
def manifest(namespace: str) -> Make:
    def make(data: dict[str, str] | None = None, **metadata: Any) -> Object:
        result: Object = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "one", "namespace": namespace, **metadata},
        }
        return result if data is None else {**result, "data": data}

    return make


def test_apply_creates_what_is_absent(cluster: Cluster, manifest: Make) -> None:
    made = cluster.apply(manifest({"a": "1"}), manager="me")
    assert made["data"] == {"a": "1"}
    assert made["metadata"]["uid"]


@pytest.mark.parametrize("text", ["hi \U0001f600", "caf\u00e9 \u20ac", 'a "b"\\ \n\t: #', "\u2028 \x7f"])
def test_any_text_is_applied_as_it_is(cluster: Cluster, manifest: Make, text: str) -> None:
    assert cluster.apply(manifest({"a": text}), manager="me")["data"] == {"a": text}


def test_what_a_manager_no_longer_names_vanishes(cluster: Cluster, manifest: Make) -> None:
    cluster.apply(manifest({"a": "1", "b": "1"}, labels={"l": "1", "m": "1"}), manager="me")
    applied = cluster.apply(manifest({"a": "2"}, labels={"m": "1"}), manager="me")
    assert applied["data"] == {"a": "2"}
    assert applied["metadata"]["labels"] == {"m": "1"}


def test_the_last_field_of_a_mapping_vanishes_with_it(cluster: Cluster, manifest: Make) -> None:
    cluster.apply(manifest({"a": "1"}, labels={"l": "1"}), manager="me")
    applied = cluster.apply(manifest(), manager="me")
    assert not applied.get("data")
    assert not applied["metadata"].get("labels")


def test_what_others_wrote_stays(cluster: Cluster, manifest: Make) -> None:
    made = cluster.apply(manifest({"a": "1"}), manager="me")
    cluster.patch(ref_of(made), {"data": {"theirs": "1"}})
    cluster.apply(manifest({"friend": "1"}), manager="friend")
    assert cluster.apply(manifest({"a": "2"}), manager="me")["data"] == {"a": "2", "theirs": "1", "friend": "1"}


def test_a_field_that_another_manager_applies_too_stays_until_both_drop_it(cluster: Cluster, manifest: Make) -> None:
    cluster.apply(manifest({"shared": "1", "a": "1"}), manager="me")
    cluster.apply(manifest({"shared": "1"}), manager="friend")
    assert cluster.apply(manifest({"a": "1"}), manager="me")["data"] == {"shared": "1", "a": "1"}
    assert cluster.apply(manifest({"b": "1"}), manager="friend")["data"] == {"a": "1", "b": "1"}


def test_apply_takes_over_what_others_changed(cluster: Cluster, manifest: Make) -> None:
    made = cluster.apply(manifest({"a": "1"}), manager="me")
    cluster.patch(ref_of(made), {"data": {"a": "2"}})
    assert cluster.apply(manifest({"a": "1"}), manager="me")["data"] == {"a": "1"}


def test_a_field_that_somebody_else_changed_since_is_no_longer_mine_to_drop(cluster: Cluster, manifest: Make) -> None:
    made = cluster.apply(manifest({"a": "1", "b": "1"}), manager="me")
    cluster.patch(ref_of(made), {"data": {"b": "2"}})
    assert cluster.apply(manifest({"a": "1"}), manager="me")["data"] == {"a": "1", "b": "2"}


def test_a_field_that_another_manager_took_over_goes_when_that_one_drops_it(cluster: Cluster, manifest: Make) -> None:
    cluster.apply(manifest({"a": "1", "b": "1"}), manager="me")
    cluster.apply(manifest({"b": "2"}), manager="friend")
    assert cluster.apply(manifest({"c": "1"}), manager="friend")["data"] == {"a": "1", "c": "1"}


def test_a_mapping_of_which_nothing_is_left_vanishes(cluster: Cluster, service: Make) -> None:
    manifest = service()
    manifest["spec"]["edgeWorker"]["dataset"] = {"name": "digits"}
    cluster.apply(manifest, manager="me")
    assert "dataset" not in cluster.apply(service(), manager="me")["spec"]["edgeWorker"]


def test_applying_the_same_again_changes_nothing(cluster: Cluster, dataset: Make) -> None:
    first = cluster.apply(dataset(), manager="me")
    second = cluster.apply(dataset(), manager="me")
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert second["metadata"]["generation"] == 1


def test_apply_leaves_the_status(cluster: Cluster, dataset: Make) -> None:
    made = cluster.apply(dataset(), manager="me")
    cluster.patch(ref_of(made), {"status": {"numberOfSamples": 3}}, subresource="status")
    applied = cluster.apply({**dataset(format="txt"), "status": {"numberOfSamples": 9}}, manager="me")
    assert applied["status"]["numberOfSamples"] == 3
    assert applied["metadata"]["generation"] == 2


def test_apply_holds_to_the_version_that_it_names(cluster: Cluster, manifest: Make) -> None:
    made = cluster.apply(manifest({"a": "1"}), manager="me")
    cluster.patch(ref_of(made), {"data": {"b": "1"}})
    with pytest.raises(Conflict):
        cluster.apply(manifest({"a": "2"}, resourceVersion=made["metadata"]["resourceVersion"]), manager="me")


def test_items_of_keyed_lists_are_merged_and_dropped_one_by_one(cluster: Cluster, namespace: str) -> None:
    def deployment(env: dict[str, str], **container: Any) -> Object:
        main = {"name": "main", "image": "localhost/none:1", "env": [{"name": k, "value": v} for k, v in env.items()]}
        labels = {"app": "keyed"}
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "keyed", "namespace": namespace},
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [{**main, **container}]}},
            },
        }

    def container(obj: Object) -> Object:
        (found,) = obj["spec"]["template"]["spec"]["containers"]
        return {"env": {item["name"]: item["value"] for item in found["env"]}, "args": found.get("args")}

    cluster.apply(deployment({"A": "1", "B": "1"}, args=["one", "two"]), manager="me")
    cluster.apply(deployment({"C": "1"}), manager="friend")
    applied = cluster.apply(deployment({"B": "2"}, args=["three"]), manager="me")
    assert container(applied) == {"env": {"B": "2", "C": "1"}, "args": ["three"]}
    again = cluster.apply(deployment({"B": "2"}), manager="me")
    assert container(again) == {"env": {"B": "2", "C": "1"}, "args": None}


def test_parameters_of_a_service_are_replaced_whole(cluster: Cluster, service: Make) -> None:
    def applied(*keys: str) -> list[str]:
        manifest = service()
        parameters = [{"key": key, "value": "1"} for key in keys]
        manifest["spec"]["edgeWorker"]["workerSpec"]["parameters"] = parameters
        result = cluster.apply(manifest, manager="me")
        return [item["key"] for item in result["spec"]["edgeWorker"]["workerSpec"]["parameters"]]

    assert applied("a", "b") == ["a", "b"]
    assert applied("b", "c") == ["b", "c"]
