# SPDX-License-Identifier: Apache-2.0
"""The generated CRDs on a real API server."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from tests.cluster.control_plane import ApiServer

from nereid_cloud import crds
from nereid_cloud.cluster import kinds
from nereid_cloud.cluster.kubernetes import KubernetesCluster
from nereid_cloud.cluster.port import Ref
from nereid_shared.resources import CATEGORY

pytestmark = pytest.mark.cluster

CRDS = crds.load()
NAMES = [crd["metadata"]["name"] for crd in CRDS]


@pytest.fixture
def kubernetes(api_server: ApiServer) -> Iterator[KubernetesCluster]:
    cluster = KubernetesCluster(kubeconfig=api_server.kubeconfig)
    yield cluster
    cluster.close()


@pytest.mark.parametrize("name", NAMES)
def test_a_crd_is_established_and_structural(kubernetes: KubernetesCluster, name: str) -> None:
    crd = kubernetes.get(Ref(kind=kinds.CUSTOM_RESOURCE_DEFINITION, name=name))

    conditions = {one["type"]: (one["status"], one.get("message")) for one in crd["status"]["conditions"]}

    assert conditions["Established"][0] == "True"
    assert conditions["NamesAccepted"][0] == "True"
    assert conditions.get("NonStructuralSchema", ("False",))[0] == "False", conditions


@pytest.mark.parametrize("crd", CRDS, ids=NAMES)
def test_a_schema_is_stored_as_it_was_generated(kubernetes: KubernetesCluster, crd: dict[str, Any]) -> None:
    stored = kubernetes.get(Ref(kind=kinds.CUSTOM_RESOURCE_DEFINITION, name=crd["metadata"]["name"]))

    assert stored["spec"]["versions"][0]["schema"] == crd["spec"]["versions"][0]["schema"], "a field was pruned"


def test_kubectl_finds_every_kind_by_category(api_server: ApiServer) -> None:
    found = subprocess.run(
        [*api_server.kubectl, "api-resources", f"--categories={CATEGORY}", "-o", "name"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip

    assert set(found.stdout.split()) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_open_api_document_has_descriptions(kubernetes: KubernetesCluster, name: str) -> None:
    crd = kubernetes.get(Ref(kind=kinds.CUSTOM_RESOURCE_DEFINITION, name=name))

    assert "description" in json.dumps(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"])
