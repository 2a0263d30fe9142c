# SPDX-License-Identifier: Apache-2.0
"""Dataset and Model (seed 1): the metadata of data that lives on a node, and of a model file."""

from datetime import datetime
from typing import Annotated, ClassVar, Final

from pydantic import Field

from nereid_shared.defaults import DATASET_FORMATS, MAX_CLASSES, MAX_PROBLEMS
from nereid_shared.resources.parts import Condition, Metric, ObjectName, Part, Place, Resource
from nereid_shared.resources.rules import Rule, immutable, path_or_url

ClassName = Annotated[str, Field(min_length=1, max_length=128)]

_FORMATS: Final = f"{', '.join(DATASET_FORMATS[:-1])} or {DATASET_FORMATS[-1]}"


class DatasetSpec(Part):
    """Where a dataset lives and how it is read."""

    data_url: Place = Field(description="The data: an absolute path on the node, or a URL.")
    format: str = Field(
        min_length=1,
        max_length=63,
        description=f"How the data is read: {', '.join(DATASET_FORMATS[:-1])} or {DATASET_FORMATS[-1]}.",
    )
    node_name: ObjectName = Field(description="The node that owns the data; it never changes.")

    rules: ClassVar[tuple[Rule, ...]] = (
        path_or_url("dataUrl"),
        immutable("nodeName", mend="delete the Dataset and create it on the other node"),
    )


class ClassCount(Part):
    """A class of a dataset."""

    name: str = Field(description="Its name.")
    count: int = Field(ge=0, description="How often a sample, or a box, names it.")


class DatasetStatistics(Part):
    """What a dataset holds."""

    files: int = Field(default=0, ge=0, description="Files that hold or name its samples.")
    bytes: int = Field(default=0, ge=0, description="The size of these files.")
    labelled: int = Field(default=0, ge=0, description="Samples with a class, or with a box that has one.")
    boxes: int = Field(default=0, ge=0, description="Boxes around objects.")
    malformed: int = Field(default=0, ge=0, description="Rows and annotations that are not what the format says.")
    classes: list[ClassCount] = Field(
        default_factory=list, max_length=MAX_CLASSES, description="The classes, the most frequent first."
    )
    number_of_classes: int = Field(default=0, ge=0, description="All classes, with those that are not listed.")
    looked: int = Field(default=0, ge=0, description="Pictures that were looked at.")
    missing: int = Field(default=0, ge=0, description="Of those, the ones that are not there.")
    corrupt: int = Field(default=0, ge=0, description="Of those, the ones that are no whole JPEG or PNG file.")
    min_width: int = Field(default=0, ge=0, description="In pixels, of the others.")
    max_width: int = Field(default=0, ge=0, description="In pixels, of the others.")
    min_height: int = Field(default=0, ge=0, description="In pixels, of the others.")
    max_height: int = Field(default=0, ge=0, description="In pixels, of the others.")
    digest: str = Field(default="", description="Of the files: names and contents.")
    problems: list[str] = Field(
        default_factory=list, max_length=MAX_PROBLEMS, description="The first few, each with its place."
    )


class DatasetStatus(Part):
    """What the node says of the data."""

    update_time: datetime | None = Field(default=None, description="When the samples were last counted.")
    number_of_samples: int | None = Field(default=None, ge=0, description="The number of samples in the dataset.")
    statistics: DatasetStatistics | None = Field(default=None, description="What the dataset holds.")
    conditions: list[Condition] = Field(default_factory=list, max_length=16, description="Ready stands first.")
    observed_generation: int | None = Field(default=None, ge=0, description="The generation that this speaks of.")
    held_by: list[str] = Field(default_factory=list, description="Nodes that hold, or may still hold, the task.")


class Dataset(Resource):
    """A Dataset."""

    spec: DatasetSpec = Field(description="Where the dataset lives and how it is read.")
    status: DatasetStatus = Field(default=DatasetStatus(), description="What the node says of the data.")


class ModelSpec(Part):
    """Where a model file is."""

    model_url: Place = Field(description="The model file: an absolute path on the node, or a URL.")
    format: str = Field(default="", max_length=63, description="The file's format, such as tflite; else by its name.")
    sha256: str | None = Field(
        default=None, max_length=64, pattern="^[0-9a-f]{64}$", description="The file's sha256, in lower case hex."
    )

    task: str | None = Field(
        default=None, max_length=63, description="What it is for, such as classification; for selection."
    )
    labels: list[ClassName] = Field(
        default_factory=list, max_length=256, description="The classes that it tells apart; for selection."
    )
    framework: str | None = Field(default=None, max_length=63, description="What it was made for, such as tflite.")
    framework_version: str | None = Field(default=None, max_length=63, description="The framework's version.")

    rules: ClassVar[tuple[Rule, ...]] = (path_or_url("modelUrl"),)


class ModelNodes(Part):
    """The nodes whose services name a model, in sums."""

    ready: int = Field(default=0, ge=0, description="Nodes that have it whole.")
    total: int = Field(default=0, ge=0, description="Nodes whose services name it.")


class ModelFailure(Part):
    """What last kept a node from having a model."""

    node: str = Field(default="", description="The node's name.")
    reason: str = Field(default="", description="One CamelCase word for programs.")
    message: str = Field(default="", description="A sentence for people.")
    time: datetime | None = Field(default=None, description="When the GlobalManager heard of it.")


class ModelStatus(Part):
    """What is known of a model."""

    update_time: datetime | None = Field(default=None, description="When the model was last updated.")
    metrics: list[Metric] = Field(default_factory=list, description="How good the model is, such as its accuracy.")
    digest: str = Field(default="", description="The file's sha256, as the nodes that have it computed it.")
    size: int | None = Field(default=None, ge=0, description="The file's size in bytes.")
    nodes: ModelNodes | None = Field(default=None, description="The nodes whose services name it, in sums.")
    last_failure: ModelFailure | None = Field(
        default=None, description="What last kept a node from having it; it stays when that is mended."
    )
    conditions: list[Condition] = Field(default_factory=list, max_length=16, description="Ready stands first.")
    observed_generation: int | None = Field(default=None, ge=0, description="The generation that this speaks of.")


class Model(Resource):
    """A Model."""

    spec: ModelSpec = Field(description="Where the model file is.")
    status: ModelStatus = Field(default=ModelStatus(), description="What is known of the model.")
