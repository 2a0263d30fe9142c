# SPDX-License-Identifier: Apache-2.0
"""JointInferenceService (seed 4): a little model at the edge, a big one in the cloud, hard samples between them.

Every field of the seed under its own name; what was added is optional, and says so.
"""

import re
from datetime import datetime
from typing import Any, ClassVar, Final

from pydantic import Field

from nereid_shared.defaults import (
    BATCH_SIZE,
    BATCH_WAIT,
    BUILTIN_PREFIX,
    CLASSIFY,
    DEADLINE,
    OUTBOX_KEEP_FOR,
    OUTBOX_MAX_ATTEMPTS,
    OUTBOX_MAX_BYTES,
    OUTBOX_MAX_SAMPLES,
)
from nereid_shared.quantities import duration_s
from nereid_shared.resources.mining import HardExampleAlgorithm
from nereid_shared.resources.parts import (
    Condition,
    Duration,
    LabelName,
    Labels,
    Metric,
    ModelRef,
    NodesSummary,
    ObjectName,
    Parameter,
    Part,
    Resource,
    Size,
)
from nereid_shared.resources.rules import Rule, cel_list, distinct_keys, duration_between, exactly_one_of

BUILTINS: Final = (CLASSIFY,)
# RE2 and Python alike; a ConfigMap's name is a DNS subdomain.
_CONFIG_MAP: Final = "configmap:[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?"


def _boot_file_inside(value: Any, _: Any) -> bool:
    return not value["scriptBootFile"].startswith("/") and ".." not in value["scriptBootFile"]


class WorkerSpec(Part):
    """What a worker runs."""

    script_dir: str = Field(
        max_length=1024, description="The scripts' folder on the node, or configmap:NAME; '' for a builtin."
    )
    script_boot_file: str = Field(
        min_length=1,
        max_length=255,
        description=f"The script in that folder, or {CLASSIFY} for none of one's own.",
    )
    framework_type: str = Field(max_length=63, description="The framework, such as tflite.")
    framework_version: str = Field(max_length=63, description="The framework's version.")
    image: str | None = Field(
        default=None, min_length=1, max_length=255, description="An image of one's own, in place of the framework's."
    )
    parameters: list[Parameter] = Field(default_factory=list, max_length=64, description="Values for the script.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "",
            f"self.scriptDir != '' || self.scriptBootFile.startsWith('{BUILTIN_PREFIX}')",
            f"scriptDir must be set, or scriptBootFile be {CLASSIFY}",
            lambda value, _: value["scriptDir"] != "" or value["scriptBootFile"].startswith(BUILTIN_PREFIX),
        ),
        Rule(
            "scriptDir",
            f"self == '' || self.startsWith('/') || self.matches('^{_CONFIG_MAP}$')",
            "scriptDir must be an absolute path on the node, or configmap:NAME",
            lambda value, _: value == "" or value.startswith("/") or bool(re.fullmatch(_CONFIG_MAP, value)),
        ),
        Rule(
            "",
            "!self.scriptBootFile.startsWith('/') && !self.scriptBootFile.contains('..')",
            "scriptBootFile must be a file inside scriptDir",
            _boot_file_inside,
        ),
        Rule(
            "scriptBootFile",
            f"!self.startsWith('{BUILTIN_PREFIX}') || self in {cel_list(BUILTINS)}",
            f"the builtin scripts are {', '.join(BUILTINS)}",
            lambda value, _: not value.startswith(BUILTIN_PREFIX) or value in BUILTINS,
        ),
        distinct_keys("parameters"),
    )


class DatasetRef(Part):
    """The datasets that a worker reads: one by name, or those on its node that carry the labels."""

    name: ObjectName | None = Field(default=None, description="The Dataset's name.")
    labels: Labels | None = Field(default=None, description="Labels of the Datasets; each node reads its own.")

    rules: ClassVar[tuple[Rule, ...]] = (exactly_one_of("name", "labels"),)


class Outbox(Part):
    """How hard samples wait at the edge for the cloud."""

    keep_for: Duration = Field(default=OUTBOX_KEEP_FOR, description="Age at which a sample is dropped (expired).")
    max_bytes: Size = Field(
        default=OUTBOX_MAX_BYTES, description="Bytes that may wait; above, the least informative go."
    )
    max_samples: int = Field(
        default=OUTBOX_MAX_SAMPLES,
        ge=1,
        le=10_000_000,
        description="Samples that may wait; each takes half a kilobyte of the LocalController's memory.",
    )
    max_bytes_per_second: Size | None = Field(
        default=None, description="Bytes per second towards the cloud; what exceeds it is dropped (over-budget)."
    )
    max_attempts: int = Field(
        default=OUTBOX_MAX_ATTEMPTS, ge=1, le=1000, description="Tries after which a sample is dropped (poison)."
    )

    rules: ClassVar[tuple[Rule, ...]] = (duration_between("keepFor", "1s", "8760h"),)


class Batching(Part):
    """How the cloud worker collects samples."""

    max_size: int = Field(default=BATCH_SIZE, ge=1, le=256, description="Samples in one batch.")
    max_wait: Duration = Field(
        default=BATCH_WAIT, description="Time that the first sample of a batch waits for others."
    )

    rules: ClassVar[tuple[Rule, ...]] = (duration_between("maxWait", "0s", "10s"),)

    @property
    def max_wait_s(self) -> float:
        """Seconds for `max_wait`."""
        return duration_s(self.max_wait)


class EdgeWorker(Part):
    """The little model's side."""

    name: LabelName = Field(description="The worker's name.")
    model: ModelRef = Field(description="The little model.")
    node_name: ObjectName | None = Field(default=None, description="The node that runs it.")
    node_selector: Labels | None = Field(
        default=None, description="Labels of the nodes that run it, one worker each; in place of nodeName."
    )
    hard_example_algorithm: HardExampleAlgorithm = Field(description="Which samples are worth the cloud.")
    worker_spec: WorkerSpec = Field(description="What the worker runs.")
    dataset: DatasetRef | None = Field(default=None, description="The datasets that the worker reads.")
    deadline: Duration = Field(
        default=DEADLINE, description="Time from capture that a caller waits for the cloud before the edge answers."
    )
    outbox: Outbox = Field(default=Outbox(), description="How hard samples wait at the edge.")

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one_of("nodeName", "nodeSelector"),
        duration_between("deadline", "1ms", "1h"),
    )


class CloudWorker(Part):
    """The big model's side."""

    name: LabelName = Field(description="The worker's name.")
    model: ModelRef = Field(description="The big model.")
    node_name: ObjectName = Field(description="The node that runs it.")
    worker_spec: WorkerSpec = Field(description="What the worker runs.")
    replicas: int = Field(default=1, ge=0, le=1000, description="How many of them share the samples.")
    batching: Batching = Field(default=Batching(), description="How samples are collected.")


class JointInferenceServiceSpec(Part):
    """Both sides."""

    edge_worker: EdgeWorker = Field(description="The little model's side.")
    cloud_worker: CloudWorker = Field(description="The big model's side.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "",
            "self.edgeWorker.name != self.cloudWorker.name",
            "edgeWorker.name and cloudWorker.name must differ",
            lambda value, _: value["edgeWorker"]["name"] != value["cloudWorker"]["name"],
        ),
    )


class JointInferenceServiceStatus(Part):
    """What the GlobalManager observed; it alone writes it."""

    conditions: list[Condition] = Field(
        default_factory=list,
        max_length=16,
        description="Ready stands first; the one of Pending, Running and Failed that is not False stands last.",
    )
    start_time: datetime | None = Field(default=None, description="When the service was first taken up.")
    active: int | None = Field(default=None, ge=0, description="The number of workers that run.")
    failed: int | None = Field(default=None, ge=0, description="The number of workers that failed.")
    metrics: list[Metric] = Field(default_factory=list, description="The ledger's counts.")
    last_report_time: datetime | None = Field(
        default=None, description="When the nodes last told these counts; the oldest of their reports."
    )
    observed_generation: int | None = Field(default=None, ge=0, description="The generation that this speaks of.")
    nodes: NodesSummary | None = Field(default=None, description="The service's nodes in sums.")
    held_by: list[str] = Field(default_factory=list, description="Nodes that hold, or may still hold, the task.")


class JointInferenceService(Resource):
    """A JointInferenceService."""

    spec: JointInferenceServiceSpec = Field(description="Both sides of the service.")
    status: JointInferenceServiceStatus = Field(
        default=JointInferenceServiceStatus(), description="What the GlobalManager observed."
    )
