# SPDX-License-Identifier: Apache-2.0
"""What several kinds are made of: names, conditions, metrics, parameters, metadata.

Frozen pydantic models with camelCase aliases, from which the CRDs are generated. They ignore fields that they do not
know (a newer CRD may have more); refusing a user's unknown field is the API's work.
"""

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from nereid_shared.quantities import DURATION_PATTERN, SIZE_PATTERN
from nereid_shared.resources.rules import Rule

# Everything that a CEL rule reads is bounded: else an API server refuses the rule for its estimated cost.
Place = Annotated[str, Field(min_length=1, max_length=2048)]
ObjectName = Annotated[
    str,
    Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"),
]
LabelName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
LabelValue = Annotated[str, Field(max_length=63)]
Labels = Annotated[dict[str, LabelValue], Field(min_length=1, max_length=16)]
Duration = Annotated[str, Field(max_length=32, pattern=DURATION_PATTERN)]
Size = Annotated[str, Field(max_length=32, pattern=SIZE_PATTERN)]


class Part(BaseModel):
    """What all of them share.

    Attributes:
        rules: what the schema cannot say of this model and its fields.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)

    rules: ClassVar[tuple[Rule, ...]] = ()


class Metadata(Part):
    """The part of Kubernetes' object metadata that Nereid reads."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: list[str] = Field(default_factory=list)
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None


class Parameter(Part):
    """A named value for a script or a rule."""

    key: str = Field(min_length=1, max_length=63, description="Its name.")
    value: str = Field(max_length=1024, description="Its value, as text.")


class ModelRef(Part):
    """A Model in the service's namespace."""

    name: ObjectName = Field(description="The Model's name.")


class Metric(Part):
    """One measured figure, as text."""

    key: str = Field(description="Its name.")
    value: str = Field(description="Its value, as text.")


class Condition(Part):
    """One condition: Kubernetes' own shape and the seeds' lastHeartbeatTime."""

    type: str = Field(description="Ready, or one of the seeds' Pending, Running and Failed.")
    status: Literal["True", "False", "Unknown"] = Field(description="True, False, or Unknown when nobody can tell.")
    reason: str = Field(default="", description="One CamelCase word for programs.")
    message: str = Field(default="", description="A sentence for people.")
    observed_generation: int | None = Field(default=None, ge=0, description="The generation that this speaks of.")
    last_transition_time: datetime | None = Field(default=None, description="When the status last changed.")
    last_heartbeat_time: datetime | None = Field(default=None, description="When the condition was last checked.")


class TroubledNode(Part):
    """A node that is not as it should be."""

    name: str = Field(description="The node's name.")
    reason: str = Field(default="", description="One CamelCase word for programs.")
    message: str = Field(default="", description="A sentence for people.")


class NodesSummary(Part):
    """The service's nodes in sums, and the first troubled ones by name."""

    desired: int = Field(default=0, description="Nodes that should run the service.")
    ready: int = Field(default=0, description="Nodes that run it, by their own word.")
    pending: int = Field(default=0, description="Nodes that do not run it yet.")
    failed: int = Field(default=0, description="Nodes on which it failed.")
    offline: int = Field(default=0, description="Nodes that cannot be observed.")
    troubled: list[TroubledNode] = Field(default_factory=list, max_length=20, description="At most 20 of them by name.")


class Resource(Part):
    """A custom resource as the API has it."""

    api_version: str
    kind: str
    metadata: Metadata


def parameters_of(parameters: list[Parameter]) -> dict[str, str]:
    """Return a list of parameters as a dictionary."""
    return {parameter.key: parameter.value for parameter in parameters}


def keys_of(parameters: Any) -> list[str]:
    """Return the keys of a JSON list of parameters; None counts as an empty one."""
    return [parameter["key"] for parameter in parameters or ()]
