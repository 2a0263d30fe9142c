# SPDX-License-Identifier: Apache-2.0
from typing import Any

from tests.cloud.gm.peers import dataset, node, service

from nereid_cloud.cluster.port import Object
from nereid_cloud.gm.concerns import Concerns


def stored(uid: str, **edge: Any) -> Object:
    raw = service(uid, **edge)
    return {**raw, "metadata": {**raw["metadata"], "uid": uid}}


def indexed(*objects: Object) -> Concerns:
    concerns = Concerns()
    for obj in objects:
        concerns.changed(None, obj)
    return concerns


def test_a_node_concerns_who_names_it_and_who_selects_it() -> None:
    pictures = dataset("pictures", "edge-0")
    pictures["metadata"]["uid"] = "pictures"
    served = {"metadata": {"uid": "served"}, "spec": {"nodeSelector": {"zone": "a"}}}
    concerns = indexed(
        stored("named", nodeName="edge-0"), stored("zone", nodeSelector={"zone": "a"}),
        stored("gpu", nodeSelector={"zone": "a", "gpu": "yes"}), stored("other", nodeSelector={"zone": "b"}),
        pictures, served,
    )  # fmt: skip
    assert concerns.of(node("edge-0")) == {"named", "pictures"}
    assert concerns.of(node("edge-1", zone="a")) == {"zone", "served"}
    assert concerns.of(node("edge-0", zone="a", gpu="yes")) == {"named", "pictures", "zone", "gpu", "served"}
    assert concerns.of(node("cloud")) == {"named", "zone", "gpu", "other"}  # as the node of their cloud workers
    assert concerns.of(node("edge-2", gpu="yes")) == set()
    assert concerns.of(None) == set()


def test_who_changes_its_mind_or_goes_is_forgotten() -> None:
    here, there = stored("one", nodeName="edge-0"), stored("one", nodeSelector={"zone": "a"})
    concerns = indexed(here)
    concerns.changed(here, there)
    assert concerns.of(node("edge-0")) == set()
    assert concerns.of(node("edge-0", zone="a")) == {"one"}
    concerns.changed(there, {**there, "status": {}})
    assert concerns.of(node("edge-0", zone="a")) == {"one"}
    concerns.changed(there, None)
    assert concerns.of(node("edge-0", zone="a")) == concerns.of(node("cloud")) == set()
