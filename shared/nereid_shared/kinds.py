# SPDX-License-Identifier: Apache-2.0
"""The kinds' names and printer columns, apart from their models: who only names or lists objects loads no pydantic."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

CATEGORY: Final = "nereid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One printer column.

    Attributes:
        priority: 0 for a column that is always there, 1 for one of ``-o wide``.
    """

    name: str
    type: Literal["string", "integer", "date"]
    json_path: str
    description: str = ""
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceKind:
    """A kind with its names and columns.

    Attributes:
        columns: the seeds' own first, in the seeds' order.
        scales: whether ``kubectl scale`` changes ``spec.replicas``.
    """

    group: str
    version: str
    kind: str
    plural: str
    short_names: tuple[str, ...] = ()
    columns: tuple[Column, ...]
    scales: bool = False

    @property
    def singular(self) -> str:
        """The name of one."""
        return self.kind.lower()

    @property
    def api_version(self) -> str:
        """The manifest's ``apiVersion``."""
        return f"{self.group}/{self.version}"


def _metric(name: str, key: str, description: str) -> Column:
    path = f'.status.metrics[?(@.key=="{key}")].value'
    return Column(name=name, type="string", description=description, json_path=path, priority=1)


_READY = (
    Column(
        name="Ready",
        type="string",
        description="Whether it does its work now",
        json_path='.status.conditions[?(@.type=="Ready")].status',
    ),
    Column(
        name="Reason",
        type="string",
        description="Why it is, or is not, ready",
        json_path='.status.conditions[?(@.type=="Ready")].reason',
    ),
)

DATASET: Final = ResourceKind(
    group="edgeai.io",
    version="v1alpha1",
    kind="Dataset",
    plural="datasets",
    columns=(
        Column(
            name="NumberOfSamples",
            type="integer",
            description="The number of samples in the dataset",
            json_path=".status.numberOfSamples",
        ),
        Column(name="Node", type="string", description="The node name of the dataset", json_path=".spec.nodeName"),
        Column(name="spec", type="string", description="The spec of the dataset", json_path=".spec"),
        *_READY,
    ),
)

MODEL: Final = ResourceKind(
    group="edgeai.io",
    version="v1alpha1",
    kind="Model",
    plural="models",
    columns=(
        Column(name="updateAGE", type="date", description="The update age", json_path=".status.updateTime"),
        Column(name="metrics", type="string", description="The metrics", json_path=".status.metrics"),
        *_READY,
    ),
)

JOINT_INFERENCE_SERVICE: Final = ResourceKind(
    group="neptune.io",
    version="v1alpha1",
    kind="JointInferenceService",
    plural="jointinferenceservices",
    short_names=("jointinferenceservice", "jis"),
    columns=(
        Column(
            name="status",
            type="string",
            description="The status of the jointinference service",
            json_path=".status.conditions[-1].type",
        ),
        Column(name="active", type="integer", description="The number of active worker", json_path=".status.active"),
        Column(name="failed", type="integer", description="The number of failed worker", json_path=".status.failed"),
        Column(name="Age", type="date", json_path=".metadata.creationTimestamp"),
        *_READY,
        _metric("Seen", "seen", "Samples that the edge workers took"),
        _metric("Hard", "hard", "Samples that were for the big model"),
        _metric("Pending", "pending", "Hard samples without an answer yet"),
        _metric("Ratio", "uploadCloudRatio", "Hard samples answered by the cloud, per inference"),
    ),
)

# `isvc` is KServe's, `infpool` the Gateway API's.
INFERENCE_MODEL: Final = ResourceKind(
    group="sedna.io",
    version="v1alpha1",
    kind="InferenceModel",
    plural="inferencemodels",
    short_names=("infm",),
    scales=True,
    columns=(
        Column(name="Layer", type="string", description="Where it is served", json_path=".spec.deployToLayer"),
        Column(name="Target", type="string", description="The version wanted", json_path=".spec.targetVersion"),
        Column(name="Serving", type="string", description="What is served", json_path=".status.servingVersion"),
        *_READY,
        Column(name="URL", type="string", description="Where requests go", json_path=".status.url"),
        Column(name="Age", type="date", json_path=".metadata.creationTimestamp"),
        Column(
            name="Framework", type="string", description="What opens it", json_path=".spec.frameworkType", priority=1
        ),
        Column(name="Replicas", type="integer", description="Its Pods", json_path=".status.replicas", priority=1),
    ),
)

KINDS: Final[Mapping[str, ResourceKind]] = MappingProxyType(
    {kind.kind: kind for kind in (DATASET, MODEL, JOINT_INFERENCE_SERVICE, INFERENCE_MODEL)}
)
