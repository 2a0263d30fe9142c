# SPDX-License-Identifier: Apache-2.0
"""InferenceModels as an API server has them, and what their plans come to."""

from typing import Any

from tests.cloud.gm.peers import node

from nereid_cloud.cluster.port import Object
from nereid_cloud.gm.inferencemodel_plan import ModelPlan, plan
from nereid_cloud.gm.inferencemodel_pods import ModelParts
from nereid_cloud.gm.policy import Policy, Runtime
from nereid_shared.resources import InferenceModel
from nereid_shared.serving import serving_task

UID = "12345678-9abc-4def-8123-456789abcdef"
OURS = Runtime(image="nereid-worker:1")
TENSORFLOW = Runtime(
    image="tensorflow/serving:2",
    command=("tensorflow_model_server", "--rest_api_port={port}", "--model_name={modelName}",
             "--model_base_path=/models/{modelName}"),
    models="/models/{modelName}/{version}",
    ready="/v1/models/{modelName}",
)  # fmt: skip
POLICY = Policy(runtimes={"tflite": OURS, "tensorflow": TENSORFLOW})
FILES = [
    {"version": "3", "downloadURL": "https://host/digits_3.tar.gz", "sha256sum": "a" * 64},
    {"version": "4", "downloadURL": "https://host/digits_4.tar.gz"},
]


def inference_model(name: str = "digits", **spec: Any) -> Object:
    """One on node edge-0, or as `spec` says; None takes a field away."""
    fields: dict[str, Any] = {
        "modelName": "digits", "deployToLayer": "edge", "frameworkType": "tflite", "nodeName": "edge-0",
        "manifest": FILES, "targetVersion": "4", "servingPort": 8501, "replicas": 1, **spec,
    }  # fmt: skip
    return {
        "apiVersion": "sedna.io/v1alpha1",
        "kind": "InferenceModel",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {key: value for key, value in fields.items() if value is not None},
    }


def cloud_model(**spec: Any) -> Object:
    return inference_model(**{"deployToLayer": "cloud", "nodeName": None, **spec})


def stored(raw: Object) -> Object:
    return {**raw, "metadata": {**raw["metadata"], "uid": UID, "generation": 3}}


def planned(raw: Object, *nodes: Object, policy: Policy = POLICY) -> ModelPlan:
    raw = stored(raw)
    there = {one["metadata"]["name"]: one for one in nodes or (node("edge-0", zone="a"), node("cloud"))}
    return plan(InferenceModel.model_validate(raw), raw, nodes=there, policy=policy)


def parts_of(raw: Object, *, policy: Policy = POLICY) -> ModelParts:
    raw = stored(raw)
    server = planned(raw, policy=policy).server
    assert server is not None
    task = serving_task(raw["spec"], uid=UID, namespace="default", name="digits", generation=3)
    return ModelParts(
        model=InferenceModel.model_validate(raw), raw=raw, server=server, policy=policy,
        task=task if server.version else None,
    )  # fmt: skip
