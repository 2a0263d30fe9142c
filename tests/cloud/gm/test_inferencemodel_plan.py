# SPDX-License-Identifier: Apache-2.0
"""What an InferenceModel comes to: nodes, server, version, or the reason why not."""

from typing import Any

import pytest
from tests.cloud.gm.inference_models import FILES, POLICY, cloud_model, inference_model, planned, stored
from tests.cloud.gm.peers import node

from nereid_cloud.cluster.port import Object
from nereid_cloud.gm.inferencemodel_plan import ModelPlan, without_rival
from nereid_cloud.gm.policy import Policy, Runtime


def reasons(found: ModelPlan) -> list[str]:
    return [problem.reason for problem in found.problems]


def test_an_edge_model_is_on_its_node_and_on_its_version() -> None:
    found = planned(inference_model())
    assert (found.is_edge, list(found.nodes), found.problems) == (True, ["edge-0"], ())
    assert found.server is not None
    assert (found.server.is_ours, found.server.version, found.server.port) == (True, "4", 8501)


def test_a_named_node_whose_labels_fit_the_selector_is_accepted_and_another_is_not() -> None:
    both: dict[str, Any] = {"nodeName": "edge-0", "nodeSelector": {"zone": "a"}}
    assert list(planned(inference_model(**both)).nodes) == ["edge-0"]
    astray = planned(inference_model(**{**both, "nodeSelector": {"zone": "b"}}))
    assert (dict(astray.nodes), reasons(astray)) == ({}, ["NodeSelectorMismatch"])
    assert "zone=b" in astray.problems[0].message


def test_a_selector_means_each_node_that_fits() -> None:
    nodes = [node("edge-1", zone="a"), node("edge-0", zone="a"), node("edge-2", zone="b")]
    assert list(planned(inference_model(nodeName="", nodeSelector={"zone": "a"}), *nodes).nodes) == ["edge-0", "edge-1"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"nodeName": "absent"}, "NodeNotFound"),
        ({"nodeName": None, "nodeSelector": {"zone": "z"}}, "NodeNotFound"),
        ({"targetVersion": "5"}, "VersionNotFound"),
        ({"frameworkType": "caffe"}, "RuntimeUnknown"),
        ({"manifest": None, "targetVersion": None}, "SpecInvalid"),
    ],
)
def test_what_is_wrong_is_a_reason(changes: dict[str, Any], reason: str) -> None:
    assert reason in reasons(planned(inference_model(**changes)))


def test_a_version_that_no_manifest_has_keeps_the_nodes_and_has_no_server() -> None:
    found = planned(inference_model(targetVersion="5"))
    assert (list(found.nodes), found.server) == (["edge-0"], None)
    assert "3, 4" in found.problems[0].message


def test_without_a_target_the_manifests_last_version_is_served() -> None:
    found = planned(inference_model(targetVersion="", manifest=[FILES[1], FILES[0]])).server
    assert found is not None
    assert found.version == "3"


def test_an_image_wins_over_manifest_and_target() -> None:
    found = planned(inference_model(image="mine:1", frameworkType="caffe", targetVersion="9"))
    assert found.problems == ()
    assert found.server is not None
    assert (found.server.runtime.image, found.server.is_ours, found.server.version) == ("mine:1", False, "")


def test_no_replicas_are_no_nodes() -> None:
    assert dict(planned(inference_model(replicas=0)).nodes) == {}


def test_a_cloud_model_may_name_its_node_and_must_then_find_it() -> None:
    assert planned(cloud_model()).selector == {}
    named = planned(cloud_model(nodeName="cloud", nodeSelector={"kubernetes.io/hostname": "cloud"}))
    assert named.selector == {"kubernetes.io/hostname": "cloud"}
    lost = planned(cloud_model(nodeName="absent"))
    assert (reasons(lost), lost.server) == (["NodeNotFound"], None)


def test_the_usual_port_is_that_of_tensorflow_serving() -> None:
    found = planned(inference_model(servingPort=0)).server
    assert found is not None
    assert found.port == 8501


def test_a_server_that_listens_where_it_likes_is_found_there() -> None:
    stubborn = Runtime(image="s", command=("serve",), models="/m/{version}", port=9000)
    found = planned(inference_model(frameworkType="s"), policy=Policy(runtimes={"s": stubborn})).server
    assert found is not None
    assert found.port == 9000


def test_a_path_that_workers_may_not_read_is_refused() -> None:
    policy = Policy(runtimes=POLICY.runtimes, host_roots=(), namespaces=frozenset({"vision"}))
    assert "NamespaceNotServed" in reasons(planned(inference_model(), policy=policy))


def rivals(mine: Object, theirs: Object, policy: Policy = POLICY, *, pods: int = 0, mine_pods: int = 0) -> ModelPlan:
    """What a younger model comes to beside an older one."""
    younger, older = stored(mine), stored(theirs)
    younger["metadata"] |= {"creationTimestamp": "2026-01-02T00:00:00Z"}
    older["metadata"] |= {"creationTimestamp": "2026-01-01T00:00:00Z", "uid": "older", "name": "older"}
    younger["status"] = {"replicas": mine_pods, "url": "http://10.0.0.1:8501"}
    older["status"] = {"replicas": pods, "url": "http://10.0.0.1:8501"}
    return without_rival(planned(mine), younger, [younger, older], planned, policy=policy)


LAPTOP = Policy(runtimes=POLICY.runtimes, listen="127.0.0.1")


def test_two_models_on_a_node_do_not_share_a_port_and_the_older_has_it() -> None:
    taken = rivals(inference_model(), inference_model("older"))
    assert (reasons(taken), taken.server, dict(taken.nodes), taken.yields) == (["PortTaken"], None, {}, True)
    assert "port 8501 on node edge-0 is InferenceModel default/older's" in taken.problems[0].message
    assert rivals(inference_model(), inference_model("older", servingPort=8502)).problems == ()


def test_who_has_a_port_keeps_it_against_an_older_model() -> None:
    assert rivals(inference_model(), inference_model("older"), mine_pods=1).problems == ()
    assert reasons(rivals(inference_model(), inference_model("older"), mine_pods=1, pods=1)) == ["PortTaken"]


def test_a_model_that_is_sent_to_anothers_port_goes_on_where_it_is() -> None:
    younger, older = stored(inference_model()), stored(inference_model("older"))
    younger["status"] = {"replicas": 1, "url": "http://10.0.0.1:8600"}
    older["metadata"] |= {"uid": "0"}
    found = without_rival(planned(inference_model()), younger, [older], planned, policy=POLICY)
    assert (list(found.nodes), found.server, found.yields) == (["edge-0"], None, False)


def test_a_model_keeps_the_nodes_that_it_shares_with_none() -> None:
    nodes = [node("edge-0", zone="a"), node("edge-1", zone="a")]
    mine, theirs = inference_model(nodeName=None, nodeSelector={"zone": "a"}), inference_model("older")
    younger, older = stored(mine), {**stored(theirs), "metadata": {**stored(theirs)["metadata"], "uid": "0"}}
    found = without_rival(planned(mine, *nodes), younger, [older], lambda raw: planned(raw, *nodes), policy=POLICY)
    assert (list(found.nodes), reasons(found), found.yields) == (["edge-1"], ["PortTaken"], False)
    assert found.server is not None


def test_models_elsewhere_may_have_the_port_too_but_on_a_laptop() -> None:
    other = inference_model("older", nodeName="cloud")
    assert rivals(inference_model(), other).problems == ()
    assert rivals(cloud_model(), inference_model("older")).problems == ()
    assert reasons(rivals(cloud_model(), inference_model("older"), LAPTOP)) == ["PortTaken"]


def test_a_model_that_goes_on_with_its_former_version_keeps_its_port_and_one_that_never_began_has_none() -> None:
    broken = inference_model("older", targetVersion="9")
    assert reasons(rivals(inference_model(), broken, pods=1)) == ["PortTaken"]
    assert rivals(inference_model(), broken).problems == ()


def test_a_model_on_no_node_takes_no_port() -> None:
    assert rivals(inference_model(), inference_model("older", nodeName="absent"), LAPTOP).problems == ()
