# SPDX-License-Identifier: Apache-2.0
"""The contract of Services, and of models that are scaled: the same on a LocalCluster and on a real API server."""

from typing import Any

import pytest

from nereid_cloud.cluster.kinds import SERVICE, ref_of
from nereid_cloud.cluster.port import Cluster, Object
from nereid_shared.errors import Invalid

PORTS = [{"name": "http", "port": 8501, "targetPort": 8501}]


def exposed(namespace: str, name: str = "digits", **spec: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": "digits"}},
        "spec": {"selector": {"app": "digits"}, "ports": PORTS, **spec},
    }


def test_a_service_is_applied_listed_and_deleted(cluster: Cluster, namespace: str) -> None:
    made = cluster.apply(exposed(namespace, type="NodePort"), manager="test")
    assert made["spec"]["ports"][0]["protocol"] == "TCP"
    moved = [{"name": "http", "port": 80, "targetPort": 8501}]
    changed = cluster.apply(exposed(namespace, type="NodePort", ports=moved), manager="test")
    assert [port["port"] for port in changed["spec"]["ports"]] == [80]
    (found,) = cluster.list(SERVICE, namespace=namespace, labels="app=digits").items
    assert found["metadata"]["uid"] == made["metadata"]["uid"]
    cluster.delete(ref_of(found))
    assert cluster.list(SERVICE, namespace=namespace, labels="app=digits").items == []


def test_a_service_is_of_the_cluster_where_it_does_not_say(cluster: Cluster, namespace: str) -> None:
    assert cluster.create(exposed(namespace))["spec"]["type"] == "ClusterIP"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "1st"}, "metadata.name"),
        ({"name": "a.b"}, "metadata.name"),
        ({"ports": [{"port": 0}]}, "spec.ports[0].port"),
        ({"ports": [{"port": 70000}]}, "spec.ports[0].port"),
        ({"ports": []}, "spec.ports"),
        ({"type": "Public"}, "spec.type"),
    ],
)
def test_a_service_that_makes_no_sense_is_refused(
    cluster: Cluster, namespace: str, changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(Invalid) as refused:
        cluster.create(exposed(namespace, **changes))
    assert field in [cause.field for cause in refused.value.causes]


def test_a_models_replicas_are_patched_like_any_field(cluster: Cluster, namespace: str) -> None:
    model = {
        "apiVersion": "sedna.io/v1alpha1",
        "kind": "InferenceModel",
        "metadata": {"name": "digits", "namespace": namespace},
        "spec": {"modelName": "digits", "deployToLayer": "cloud", "frameworkType": "tflite", "image": "mine:1"},
    }
    made = cluster.create(model)
    assert (made["spec"]["replicas"], made["spec"]["servingPort"], made["metadata"]["generation"]) == (1, 8501, 1)
    scaled = cluster.patch(ref_of(made), {"spec": {"replicas": 3}})
    assert (scaled["spec"]["replicas"], scaled["metadata"]["generation"]) == (3, 2)
    said = cluster.patch(ref_of(made), {"status": {"replicas": 3, "selector": "a=b"}}, subresource="status")
    assert said["status"] == {"replicas": 3, "selector": "a=b"}
    with pytest.raises(Invalid):
        cluster.patch(ref_of(made), {"spec": {"replicas": -1}})
