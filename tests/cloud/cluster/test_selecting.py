# SPDX-License-Identifier: Apache-2.0
"""The contract of lists: what selectors select."""

import pytest

from nereid_cloud.cluster import kinds
from nereid_cloud.cluster.kinds import ref_of
from nereid_cloud.cluster.port import Cluster

from .conftest import Make


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("tier=edge", ["a", "b"]),
        ("tier==edge", ["a", "b"]),
        ("tier!=edge", ["c", "d"]),
        ("tier in (edge,cloud)", ["a", "b", "c"]),
        ("tier in (edge, cloud),!canary", ["a", "c"]),
        ("tier notin (edge)", ["c", "d"]),
        ("tier", ["a", "b", "c"]),
        ("!tier", ["d"]),
        ("tier=edge,canary=yes", ["b"]),
        ("nereid.io/service=x", ["d"]),
    ],
)
def test_a_label_selector_selects(
    cluster: Cluster, config_map: Make, namespace: str, selector: str, names: list[str]
) -> None:
    config_map("a", labels={"tier": "edge"})
    config_map("b", labels={"tier": "edge", "canary": "yes"})
    config_map("c", labels={"tier": "cloud"})
    config_map("d", labels={"nereid.io/service": "x"})
    found = cluster.list(
        kinds.CONFIG_MAP, namespace=namespace, labels=selector, fields="metadata.name!=kube-root-ca.crt"
    )
    assert [obj["metadata"]["name"] for obj in found.items] == names


def test_field_selectors_select_pods(cluster: Cluster, pod: Make, namespace: str, node: str) -> None:
    cluster.create(pod("here", nodeName=node))
    running = cluster.create(pod("running", nodeName=node))
    cluster.create(pod("nowhere", schedulerName="nobody"))
    cluster.patch(ref_of(running), {"status": {"phase": "Running"}}, subresource="status")

    def select(fields: str) -> list[str]:
        return [p["metadata"]["name"] for p in cluster.list(kinds.POD, namespace=namespace, fields=fields).items]

    assert select(f"spec.nodeName={node}") == ["here", "running"]
    assert select("spec.nodeName=") == ["nowhere"]
    assert select(f"spec.nodeName={node},status.phase=Running") == ["running"]
    assert select("status.phase!=Running") == ["here", "nowhere"]
    assert select("metadata.name=here") == ["here"]


def test_field_selectors_select_events_by_what_they_speak_of(cluster: Cluster, namespace: str) -> None:
    for number, name in enumerate(("a", "b")):
        cluster.create(
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": f"event-{number}", "namespace": namespace},
                "involvedObject": {"kind": "Pod", "name": name, "namespace": namespace},
                "reason": "Seen",
            }
        )
    fields = "involvedObject.kind=Pod,involvedObject.name=b"
    found = cluster.list(kinds.EVENT, namespace=namespace, fields=fields).items
    assert [event["metadata"]["name"] for event in found] == ["event-1"]


def test_a_list_spans_namespaces_or_holds_to_one(cluster: Cluster, config_map: Make, namespace: str) -> None:
    config_map("mine", labels={"test": namespace})
    assert len(cluster.list(kinds.CONFIG_MAP, labels=f"test={namespace}").items) == 1
    assert cluster.list(kinds.CONFIG_MAP, namespace="default", labels=f"test={namespace}").items == []
