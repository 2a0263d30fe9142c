# SPDX-License-Identifier: Apache-2.0
"""InferenceModel (seed 2): a model as a service, in the cloud or on a node.

Every field of the seed under its own name; what was added is optional, and says so. Which version is served is decided
by `nereid_shared.serving`, from a spec as the API has it.
"""

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from nereid_shared.defaults import SERVING_PORT
from nereid_shared.resources.jointinference import Batching
from nereid_shared.resources.parts import Condition, LabelValue, NodesSummary, Part, Resource
from nereid_shared.resources.rules import Rule

# As a level of a URL's path, a folder's name and a label's value.
_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"
ModelName = Annotated[str, Field(min_length=1, max_length=63, pattern=f"^{_NAME}$")]
# The seed's sample writes what it does not set as ''.
TargetVersion = Annotated[str, Field(max_length=63, pattern=f"^({_NAME})?$")]
NodeName = Annotated[
    str, Field(max_length=253, pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)?$")
]
NodeLabels = Annotated[dict[str, LabelValue], Field(max_length=16)]


class InferenceModelFile(Part):
    """One version of the model."""

    version: ModelName = Field(description="Its name, such as 3.")
    download_url: str = Field(
        alias="downloadURL",
        min_length=1,
        max_length=2048,
        pattern="^(/|[A-Za-z][A-Za-z0-9+.-]*://)",
        description="The model file, or an archive of it: a URL, or an absolute path on the node.",
    )
    sha256sum: str = Field(
        default="",
        alias="sha256sum",
        max_length=64,
        pattern="^([0-9a-f]{64})?$",
        description="The sha256 of what is downloaded, in lower case hex; nothing else is served.",
    )


def _has(value: object) -> bool:
    return bool(value)


class InferenceModelSpec(Part):
    """What is served, where."""

    model_name: ModelName = Field(description="The model's name in the URLs of requests.")
    deploy_to_layer: Literal["cloud", "edge"] = Field(
        description="cloud: a Deployment and a Service; edge: one Pod on each node that is named or selected."
    )
    framework_type: str = Field(
        min_length=1, max_length=63, description="Which runtime opens the model: tflite, onnx, tensorflow …"
    )
    node_selector: NodeLabels | None = Field(default=None, description="Labels of the nodes that run it.")
    node_name: NodeName | None = Field(
        default=None, description="The node that runs it; with a nodeSelector, its labels must fit, too."
    )
    image: str = Field(
        default="",
        max_length=255,
        description="An image that serves by itself: manifest and targetVersion are ignored.",
    )
    manifest: list[InferenceModelFile] = Field(
        default_factory=list, max_length=32, description="The versions that there are."
    )
    target_version: TargetVersion = Field(
        default="", description="The version of the manifest that is served; '' for the last one."
    )
    serving_port: int = Field(default=SERVING_PORT, ge=0, le=65535, description=f"The port; 0 means {SERVING_PORT}.")
    replicas: int = Field(
        default=1,
        ge=0,
        le=1000,
        description="How many Pods serve it in the cloud; at the edge 0 is none, else one a node.",
    )
    batching: Batching = Field(default=Batching(), description="How requests are collected; not for an image.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "",
            "self.deployToLayer != 'edge' || (has(self.nodeName) && self.nodeName != '') || "
            "(has(self.nodeSelector) && size(self.nodeSelector) > 0)",
            "deployToLayer edge needs a nodeName or a nodeSelector",
            lambda value, _: (
                value["deployToLayer"] != "edge" or _has(value.get("nodeName")) or _has(value.get("nodeSelector"))
            ),
        ),
        Rule(
            "",
            "(has(self.image) && self.image != '') || (has(self.manifest) && size(self.manifest) > 0)",
            "there is nothing to serve: write an image, or a manifest with a version",
            lambda value, _: _has(value.get("image")) or _has(value.get("manifest")),
        ),
        Rule(
            "manifest",
            "self.all(p, self.exists_one(q, q.version == p.version))",
            "each version in manifest must be there only once",
            lambda value, _: len({one["version"] for one in value}) == len(value),
        ),
        Rule(
            "manifest",
            "self.all(p, !p.downloadURL.startsWith('file:') || p.downloadURL.startsWith('file:///') || "
            "p.downloadURL.startsWith('file://localhost/'))",
            "a file:// URL in manifest names a path on the node, as file:///path; it cannot name another host",
            lambda value, _: all(
                not one["downloadURL"].startswith("file:")
                or one["downloadURL"].startswith(("file:///", "file://localhost/"))
                for one in value
            ),
        ),
    )


class LastFailure(Part):
    """The last time that a version could not be served."""

    version: str = Field(default="", description="The version.")
    place: str = Field(default="", description="The node, or the Pod.")
    reason: str = Field(default="", description="One CamelCase word for programs.")
    message: str = Field(default="", description="A sentence for people.")
    time: datetime | None = Field(default=None, description="When it was seen first.")


class InferenceModelStatus(Part):
    """What the GlobalManager observed; it alone writes it."""

    url: str = Field(default="", description="Where requests go; in the cloud an address within the cluster.")
    external_url: str = Field(default="", description="In the cloud, where its Service can be reached from outside.")
    serving_version: str = Field(default="", description="What is really served; more than one while a change rolls.")
    conditions: list[Condition] = Field(
        default_factory=list,
        max_length=16,
        description="Ready stands first; the one of Pending, Running and Failed that is not False stands last.",
    )
    replicas: int | None = Field(default=None, ge=0, description="The number of Pods.")
    ready_replicas: int | None = Field(default=None, ge=0, description="The number of Pods that serve.")
    selector: str = Field(default="", description="The labels of its Pods, for what scales it.")
    last_failure: LastFailure | None = Field(default=None, description="The last version that could not be served.")
    observed_generation: int | None = Field(default=None, ge=0, description="The generation that this speaks of.")
    nodes: NodesSummary | None = Field(default=None, description="At the edge: its nodes in sums.")
    held_by: list[str] = Field(default_factory=list, description="Nodes that hold, or may still hold, the task.")


class InferenceModel(Resource):
    """An InferenceModel."""

    spec: InferenceModelSpec = Field(description="What is served, where.")
    status: InferenceModelStatus = Field(default=InferenceModelStatus(), description="What the GlobalManager observed.")
