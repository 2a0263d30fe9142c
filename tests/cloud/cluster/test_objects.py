# SPDX-License-Identifier: Apache-2.0
"""The contract of single objects: names, versions, generations, status."""

import uuid

import pytest

from nereid_cloud.cluster import kinds
from nereid_cloud.cluster.kinds import ref_of
from nereid_cloud.cluster.port import Cluster, Ref
from nereid_shared.errors import AlreadyExists, Conflict, Invalid, NotFound

from .conftest import Make


def test_a_created_object_has_what_the_server_adds(cluster: Cluster, config_map: Make) -> None:
    made = config_map(data={"a": "1"})
    metadata = made["metadata"]
    assert uuid.UUID(metadata["uid"])
    assert int(metadata["resourceVersion"]) > 0
    assert metadata["creationTimestamp"].endswith("Z")
    assert cluster.get(ref_of(made))["data"] == {"a": "1"}


def test_what_is_read_says_its_kind(cluster: Cluster, config_map: Make, namespace: str) -> None:
    made = config_map()
    for found in (
        cluster.get(ref_of(made)),
        *cluster.list(kinds.CONFIG_MAP, namespace=namespace, fields="metadata.name=one").items,
    ):
        assert (found["apiVersion"], found["kind"]) == ("v1", "ConfigMap")


def test_a_name_is_taken_once(config_map: Make) -> None:
    config_map("one")
    with pytest.raises(AlreadyExists):
        config_map("one")


def test_generate_name_makes_distinct_names(cluster: Cluster, namespace: str) -> None:
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "some-", "namespace": namespace}}
    names = {cluster.create(manifest)["metadata"]["name"] for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("some-") and len(name) == 10 for name in names)


def test_an_object_without_a_namespace_is_in_default(cluster: Cluster) -> None:
    made = cluster.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "contract-"}})
    assert made["metadata"]["namespace"] == "default"
    cluster.delete(Ref(kind=kinds.CONFIG_MAP, name=made["metadata"]["name"]))


def test_a_namespace_must_exist(cluster: Cluster) -> None:
    with pytest.raises(NotFound, match="namespaces"):
        cluster.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "absent"}})


@pytest.mark.parametrize("name", ["Upper", "under_score", "-dash", "a" * 254])
def test_a_name_that_dns_would_refuse_is_refused(config_map: Make, name: str) -> None:
    with pytest.raises(Invalid) as refused:
        config_map(name)
    assert [cause.field for cause in refused.value.causes] == ["metadata.name"]


def test_what_is_absent_is_not_found(cluster: Cluster, namespace: str) -> None:
    ref = Ref(kind=kinds.CONFIG_MAP, name="absent", namespace=namespace)
    with pytest.raises(NotFound):
        cluster.get(ref)
    with pytest.raises(NotFound):
        cluster.patch(ref, {"data": {"a": "1"}})
    with pytest.raises(NotFound):
        cluster.delete(ref)
    with pytest.raises(NotFound):
        cluster.replace(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "absent", "namespace": namespace}}
        )


def test_each_write_has_a_higher_version(cluster: Cluster, config_map: Make) -> None:
    first = config_map()
    second = cluster.patch(ref_of(first), {"data": {"a": "1"}})
    other = config_map("other")
    versions = [int(obj["metadata"]["resourceVersion"]) for obj in (first, second, other)]
    assert versions == sorted(set(versions))


def test_a_write_that_changes_nothing_keeps_the_version(cluster: Cluster, config_map: Make) -> None:
    made = config_map(data={"a": "1"})
    again = cluster.patch(ref_of(made), {"data": {"a": "1"}})
    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


def test_an_old_copy_cannot_replace_a_newer_one(cluster: Cluster, config_map: Make) -> None:
    old = config_map(data={"a": "1"})
    cluster.patch(ref_of(old), {"data": {"a": "2"}})
    with pytest.raises(Conflict):
        cluster.replace({**old, "data": {"a": "3"}})
    assert cluster.get(ref_of(old))["data"] == {"a": "2"}


def test_a_fresh_copy_replaces(cluster: Cluster, config_map: Make) -> None:
    made = config_map(data={"a": "1", "b": "1"})
    assert cluster.replace({**made, "data": {"a": "3"}})["data"] == {"a": "3"}


def test_a_custom_resource_cannot_be_replaced_blindly(cluster: Cluster, dataset: Make) -> None:
    made = cluster.create(dataset())
    metadata = {key: value for key, value in made["metadata"].items() if key != "resourceVersion"}
    with pytest.raises(Invalid, match=r"metadata\.resourceVersion"):
        cluster.replace({**made, "metadata": metadata})


def test_a_patch_holds_to_the_version_that_it_names(cluster: Cluster, config_map: Make) -> None:
    old = config_map()
    version = {"resourceVersion": old["metadata"]["resourceVersion"]}
    cluster.patch(ref_of(old), {"metadata": version, "data": {"a": "1"}})
    with pytest.raises(Conflict):
        cluster.patch(ref_of(old), {"metadata": version, "data": {"a": "2"}})


def test_a_patch_merges_and_null_removes(cluster: Cluster, config_map: Make) -> None:
    made = config_map(data={"keep": "1", "drop": "1"}, labels={"l": "1"})
    patched = cluster.patch(ref_of(made), {"data": {"drop": None, "new": "2"}, "metadata": {"labels": {"m": "2"}}})
    assert patched["data"] == {"keep": "1", "new": "2"}
    assert patched["metadata"]["labels"] == {"l": "1", "m": "2"}


@pytest.mark.parametrize("make", ["config_map", "custom"])
def test_a_write_for_another_uid_is_refused(cluster: Cluster, config_map: Make, dataset: Make, make: str) -> None:
    made = config_map() if make == "config_map" else cluster.create(dataset())
    with pytest.raises(Invalid) as refused:
        cluster.patch(ref_of(made), {"metadata": {"uid": "another", "labels": {"a": "b"}}})
    assert {cause.field for cause in refused.value.causes} == {"metadata.uid"}
    with pytest.raises(Conflict):
        cluster.replace({**made, "metadata": {**made["metadata"], "uid": "another", "labels": {"a": "b"}}})


def test_generation_counts_changes_of_the_spec_alone(cluster: Cluster, dataset: Make) -> None:
    made = cluster.create(dataset())
    ref = ref_of(made)
    assert made["metadata"]["generation"] == 1
    assert cluster.patch(ref, {"metadata": {"labels": {"a": "b"}}})["metadata"]["generation"] == 1
    assert cluster.patch(ref, {"status": {"numberOfSamples": 3}}, subresource="status")["metadata"]["generation"] == 1
    assert cluster.patch(ref, {"spec": {"format": "txt"}})["metadata"]["generation"] == 2


def test_a_generation_cannot_be_written(cluster: Cluster, dataset: Make) -> None:
    made = cluster.create(dataset())
    assert cluster.patch(ref_of(made), {"metadata": {"generation": 7}})["metadata"]["generation"] == 1


def test_the_main_endpoint_leaves_the_status(cluster: Cluster, dataset: Make) -> None:
    made = cluster.create({**dataset(), "status": {"numberOfSamples": 1}})
    assert "numberOfSamples" not in made.get("status", {})
    ref = ref_of(made)
    cluster.patch(ref, {"status": {"numberOfSamples": 2}}, subresource="status")
    patched = cluster.patch(ref, {"spec": {"format": "txt"}, "status": {"numberOfSamples": 9}})
    assert patched["status"]["numberOfSamples"] == 2
    replaced = cluster.replace({**patched, "spec": {**patched["spec"], "format": "csv"}, "status": {}})
    assert replaced["status"]["numberOfSamples"] == 2


def test_the_status_endpoint_leaves_the_rest(cluster: Cluster, dataset: Make) -> None:
    made = cluster.create(dataset())
    patch = {"spec": {"format": "txt"}, "metadata": {"labels": {"a": "b"}}, "status": {"numberOfSamples": 2}}
    patched = cluster.patch(ref_of(made), patch, subresource="status")
    assert patched["spec"]["format"] == "csv"
    assert "labels" not in patched["metadata"]
    assert patched["status"]["numberOfSamples"] == 2


def test_a_status_patch_holds_to_the_version_that_it_names(cluster: Cluster, dataset: Make) -> None:
    made = cluster.create(dataset())
    cluster.patch(ref_of(made), {"metadata": {"labels": {"a": "b"}}})
    patch = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "status": {"numberOfSamples": 2}}
    with pytest.raises(Conflict):
        cluster.patch(ref_of(made), patch, subresource="status")


def test_a_new_pod_is_pending_whatever_it_says(cluster: Cluster, pod: Make) -> None:
    made = cluster.create({**pod(), "status": {"phase": "Running"}})
    assert made["status"]["phase"] == "Pending"
    assert made["spec"]["restartPolicy"] == "Always"
    assert made["spec"]["terminationGracePeriodSeconds"] == 30


def test_a_pod_keeps_its_spec(cluster: Cluster, pod: Make) -> None:
    made = cluster.create(pod())
    with pytest.raises(Invalid) as refused:
        cluster.patch(ref_of(made), {"spec": {"restartPolicy": "Never"}})
    assert [cause.field for cause in refused.value.causes] == ["spec"]


def test_a_dry_run_answers_and_stores_nothing(cluster: Cluster, dataset: Make) -> None:
    assert cluster.create(dataset(), dry_run=True)["metadata"]["uid"]
    with pytest.raises(NotFound):
        cluster.get(ref_of(dataset()))
    with pytest.raises(Invalid):
        cluster.create(dataset(format=7), dry_run=True)
    assert cluster.apply(dataset(), manager="me", dry_run=True)["spec"]["format"] == "csv"
    with pytest.raises(NotFound):
        cluster.get(ref_of(dataset()))


def test_a_cluster_has_one_identity(cluster: Cluster) -> None:
    assert cluster.identity() == cluster.get(Ref(kind=kinds.NAMESPACE, name="kube-system"))["metadata"]["uid"]
