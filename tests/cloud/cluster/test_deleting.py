# SPDX-License-Identifier: Apache-2.0
"""The contract of deletion: finalizers, grace, owners, namespaces."""

import contextlib
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from nereid_cloud.cluster import kinds
from nereid_cloud.cluster.kinds import ref_of
from nereid_cloud.cluster.port import Cluster, Object, Ref
from nereid_shared.errors import Conflict, Forbidden, Invalid

from .conftest import Make, Watching, absent, eventually

FINALIZER = "nereid.io/task"


def owned_by(owner: Object, **more: Any) -> list[Object]:
    metadata = {key: owner["metadata"][key] for key in ("name", "uid")}
    return [{"apiVersion": owner["apiVersion"], "kind": owner["kind"], **metadata, **more}]


def test_what_nothing_holds_is_gone_at_once(cluster: Cluster, config_map: Make) -> None:
    ref = ref_of(config_map())
    cluster.delete(ref)
    assert absent(cluster, ref)


def test_another_uid_is_left_alone(cluster: Cluster, config_map: Make) -> None:
    made = config_map()
    with pytest.raises(Conflict):
        cluster.delete(ref_of(made), uid=str(uuid.uuid4()))
    cluster.delete(ref_of(made), uid=made["metadata"]["uid"])
    assert absent(cluster, ref_of(made))


def test_a_finalizer_keeps_the_object_until_it_is_released(
    cluster: Cluster, dataset: Make, namespace: str, watching: Callable[..., Watching]
) -> None:
    manifest = dataset()
    manifest["metadata"]["finalizers"] = [FINALIZER]
    made = cluster.create(manifest)
    ref, version = ref_of(made), made["metadata"]["resourceVersion"]
    watch = watching(kinds.DATASET, namespace=namespace, resource_version=version)
    cluster.delete(ref)
    held = cluster.get(ref)
    assert held["metadata"]["deletionTimestamp"]
    assert held["metadata"]["generation"] == 2
    cluster.delete(ref)
    assert cluster.get(ref)["metadata"]["resourceVersion"] == held["metadata"]["resourceVersion"]
    cluster.patch(ref, {"metadata": {"finalizers": []}})
    assert absent(cluster, ref)
    watch.expect(("MODIFIED", "digits"), ("DELETED", "digits"))


def test_what_is_being_deleted_takes_no_new_finalizer(cluster: Cluster, config_map: Make) -> None:
    ref = ref_of(config_map(finalizers=[FINALIZER]))
    cluster.delete(ref)
    with pytest.raises(Invalid) as refused:
        cluster.patch(ref, {"metadata": {"finalizers": [FINALIZER, "nereid.io/other"]}})
    assert {cause.field for cause in refused.value.causes} == {"metadata.finalizers"}
    cluster.patch(ref, {"metadata": {"finalizers": None}})
    assert absent(cluster, ref)


def test_a_deletion_cannot_be_taken_back(cluster: Cluster, config_map: Make) -> None:
    ref = ref_of(config_map(finalizers=[FINALIZER]))
    cluster.delete(ref)
    cluster.patch(ref, {"metadata": {"deletionTimestamp": None}})
    assert cluster.get(ref)["metadata"]["deletionTimestamp"]
    cluster.patch(ref, {"metadata": {"finalizers": None}})


def test_a_deletion_cannot_be_patched_in(cluster: Cluster, config_map: Make) -> None:
    ref = ref_of(config_map())
    # Refused or ignored, as the server's version has it.
    with contextlib.suppress(Invalid):
        cluster.patch(ref, {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "data": {"a": "1"}})
    assert "deletionTimestamp" not in cluster.get(ref)["metadata"]


def test_a_pod_on_a_node_waits_for_its_kubelet(cluster: Cluster, pod: Make, node: str) -> None:
    made = cluster.create(pod(nodeName=node, terminationGracePeriodSeconds=7))
    ref = ref_of(made)
    cluster.delete(ref)
    ending = cluster.get(ref)["metadata"]
    assert ending["deletionTimestamp"] > made["metadata"]["creationTimestamp"]
    assert ending["deletionGracePeriodSeconds"] == 7
    cluster.delete(ref, grace_s=3)
    assert cluster.get(ref)["metadata"]["deletionGracePeriodSeconds"] == 3
    cluster.delete(ref, grace_s=5)
    assert cluster.get(ref)["metadata"]["deletionGracePeriodSeconds"] == 3
    cluster.delete(ref, grace_s=0, uid=made["metadata"]["uid"])
    assert absent(cluster, ref)


def test_a_pod_without_a_node_is_gone_at_once(cluster: Cluster, pod: Make) -> None:
    made = cluster.create(pod(schedulerName="nobody"))
    cluster.delete(ref_of(made))
    assert absent(cluster, ref_of(made))


def test_a_pod_that_has_ended_is_gone_at_once(cluster: Cluster, pod: Make, node: str) -> None:
    made = cluster.create(pod(nodeName=node, restartPolicy="Never"))
    cluster.patch(ref_of(made), {"status": {"phase": "Failed"}}, subresource="status")
    cluster.delete(ref_of(made))
    assert absent(cluster, ref_of(made))


def test_what_an_object_owned_goes_with_it(cluster: Cluster, config_map: Make) -> None:
    owner = config_map("owner")
    child = config_map("child", ownerReferences=owned_by(owner))
    grandchild = config_map("grandchild", ownerReferences=owned_by(child))
    other = config_map("other")
    cluster.delete(ref_of(owner))
    eventually(lambda: absent(cluster, ref_of(child)) and absent(cluster, ref_of(grandchild)))
    assert not absent(cluster, ref_of(other))


def test_what_has_another_owner_stays_and_forgets_the_one(cluster: Cluster, config_map: Make) -> None:
    one, other = config_map("one"), config_map("other")
    child = config_map("child", ownerReferences=[*owned_by(one), *owned_by(other)])
    cluster.delete(ref_of(one))
    owners = eventually(lambda: len(found := cluster.get(ref_of(child))["metadata"]["ownerReferences"]) == 1 and found)
    assert owners[0]["uid"] == other["metadata"]["uid"]


def test_a_child_of_nobody_is_collected(cluster: Cluster, config_map: Make) -> None:
    owner = config_map("owner")
    cluster.delete(ref_of(owner))
    child = config_map("child", ownerReferences=owned_by(owner))
    eventually(lambda: absent(cluster, ref_of(child)))


def test_orphans_stay(cluster: Cluster, config_map: Make) -> None:
    owner = config_map("owner")
    child = config_map("child", ownerReferences=owned_by(owner))
    cluster.delete(ref_of(owner), propagation="Orphan")
    eventually(lambda: absent(cluster, ref_of(owner)))
    assert not cluster.get(ref_of(child))["metadata"].get("ownerReferences")


def test_in_the_foreground_the_owner_goes_last(cluster: Cluster, config_map: Make) -> None:
    owner = config_map("owner")
    child = config_map("child", ownerReferences=owned_by(owner, blockOwnerDeletion=True), finalizers=[FINALIZER])
    cluster.delete(ref_of(owner), propagation="Foreground")
    eventually(lambda: "deletionTimestamp" in cluster.get(ref_of(child))["metadata"])
    assert "foregroundDeletion" in cluster.get(ref_of(owner))["metadata"]["finalizers"]
    released = [name for name in cluster.get(ref_of(child))["metadata"]["finalizers"] if name != FINALIZER]
    cluster.patch(ref_of(child), {"metadata": {"finalizers": released}})
    eventually(lambda: absent(cluster, ref_of(owner)))
    assert absent(cluster, ref_of(child))


def test_in_the_foreground_only_those_that_block_are_waited_for(cluster: Cluster, config_map: Make) -> None:
    owner = config_map("owner")
    child = config_map("child", ownerReferences=owned_by(owner), finalizers=[FINALIZER])
    cluster.delete(ref_of(owner), propagation="Foreground")
    eventually(lambda: absent(cluster, ref_of(owner)))
    eventually(lambda: "deletionTimestamp" in cluster.get(ref_of(child))["metadata"])
    cluster.patch(ref_of(child), {"metadata": {"finalizers": None}})


def test_an_owner_with_a_finalizer_keeps_its_children(cluster: Cluster, config_map: Make) -> None:
    owner = config_map("owner", finalizers=[FINALIZER])
    child = config_map("child", ownerReferences=owned_by(owner))
    cluster.delete(ref_of(owner))
    assert not absent(cluster, ref_of(child))
    cluster.patch(ref_of(owner), {"metadata": {"finalizers": None}})
    eventually(lambda: absent(cluster, ref_of(child)))


def test_a_namespace_takes_everything_with_it(cluster: Cluster, namespace: str, config_map: Make) -> None:
    held = config_map("held", finalizers=[FINALIZER])
    plain = config_map("plain")
    home = Ref(kind=kinds.NAMESPACE, name=namespace)
    cluster.delete(home)
    eventually(lambda: absent(cluster, ref_of(plain)))
    eventually(lambda: "deletionTimestamp" in cluster.get(ref_of(held))["metadata"])
    assert cluster.get(home)["status"]["phase"] == "Terminating"
    with pytest.raises(Forbidden):
        config_map("late")
    cluster.patch(ref_of(held), {"metadata": {"finalizers": None}})
    eventually(lambda: absent(cluster, home))
    # What the fixture deletes at the end.
    eventually(lambda: cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}))


def test_namespaces_of_the_system_stay(cluster: Cluster) -> None:
    with pytest.raises(Forbidden):
        cluster.delete(Ref(kind=kinds.NAMESPACE, name="kube-system"))
