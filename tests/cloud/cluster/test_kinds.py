# SPDX-License-Identifier: Apache-2.0
"""How kinds are named."""

import pytest

from nereid_cloud.cluster import kinds
from nereid_cloud.cluster.port import Kind, Ref
from nereid_shared.errors import NotFound


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("pods", kinds.POD),
        ("pod", kinds.POD),
        ("po", kinds.POD),
        ("jis", kinds.JOINT_INFERENCE_SERVICE),
        ("JointInferenceService", kinds.JOINT_INFERENCE_SERVICE),
        ("jointinferenceservices.neptune.io", kinds.JOINT_INFERENCE_SERVICE),
        ("datasets.v1alpha1.edgeai.io", kinds.DATASET),
        ("deploy", kinds.DEPLOYMENT),
        ("crd", kinds.CUSTOM_RESOURCE_DEFINITION),
    ],
)
def test_a_word_names_a_kind(word: str, kind: Kind) -> None:
    assert kinds.by_word(word) == kind


@pytest.mark.parametrize("word", ["", "absent", "pods.apps", "jis.edgeai.io"])
def test_a_word_that_names_none_is_not_found(word: str) -> None:
    with pytest.raises(NotFound, match="resource type"):
        kinds.by_word(word)


def test_an_object_has_one_address() -> None:
    obj = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}
    assert kinds.ref_of(obj) == Ref(kind=kinds.POD, name="a", namespace="default")
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}}
    assert kinds.ref_of(node) == Ref(kind=kinds.NODE, name="a")


def test_names_of_kinds_are_unique() -> None:
    words = [word for kind in kinds.ALL for word in {kind.plural, kind.kind.lower(), *kind.short_names}]
    assert len(words) == len(set(words))
