# SPDX-License-Identifier: Apache-2.0
"""The bodies of control messages: JSON, small, for people to read with ``mosquitto_sub``.

Frozen pydantic models; unknown fields are ignored, an unknown major version of ``schema`` is refused. Samples and
answers, which are many and large, are in `nereid_shared.samples`.
"""

import json
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import from_json

from nereid_shared.errors import MessageInvalid, MessageTooLarge

SCHEMA: Final = "1.0"

Count = Annotated[int, Field(ge=0, le=2**53)]
"""A count from outside: exact as JSON's number and as SQLite's."""


def _known_major(value: object) -> object:
    if str(value).partition(".")[0] != SCHEMA.partition(".")[0]:
        raise ValueError(f"schema {value!r} is not understood; this side speaks {SCHEMA}")
    return value


class Message(BaseModel):
    """What all control messages share."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)

    schema_: Annotated[str, BeforeValidator(_known_major)] = Field(default=SCHEMA, alias="schema")

    def encode(self) -> bytes:
        """Return the JSON body, without the fields that are None."""
        return self.model_dump_json(by_alias=True, exclude_none=True).encode()

    @classmethod
    def decode(cls, payload: bytes, *, max_bytes: int, topic: str = "") -> Self:
        """Parse a body.

        Raises:
            MessageTooLarge: before parsing, where the payload exceeds `max_bytes`.
            MessageInvalid: it is not JSON of this shape, or of a newer major version.
        """
        if len(payload) > max_bytes:
            raise MessageTooLarge(topic or cls.__name__, size_bytes=len(payload), limit_bytes=max_bytes)
        try:
            # pydantic lets these pass where a field is Any; canonical JSON, and so every hash, knows them not.
            if b"NaN" in payload or b"Infinity" in payload:
                from_json(payload, allow_inf_nan=False)
            return cls.model_validate_json(payload)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise MessageInvalid(f"{topic or cls.__name__}: {where}: {first['msg']}") from error
        except ValueError as error:
            raise MessageInvalid(f"{topic or cls.__name__}: {error}") from error


def canonical_json(value: object) -> bytes:
    """Return JSON that is the same for equal values: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


class Revision(Message):
    """A place in the order of desired states: (epoch, rev) within one cluster."""

    cluster: str
    epoch: Count
    rev: Count


class TaskRow(Message):
    """One task in a node's desired state: a resource, and the objects that it names, resolved.

    Attributes:
        hash: sha256 over the canonical JSON of `spec` and `refs`; the LC recomputes it.
        spec: the custom resource's spec as the API has it; None where the document lists hashes only.
        refs: what the LC cannot look up: ``models`` and ``datasets`` by name, each as
            ``{"uid", "generation", "spec"}``, and what the GM decided (``worker``: the Pod's name on this node,
            ``service``: the service's identity on topics).
    """

    kind: str
    namespace: str
    name: str
    generation: Count
    hash: str
    spec: dict[str, Any] | None = None
    refs: dict[str, Any] = Field(default_factory=dict)


class Desired(Revision):
    """The complete list of a node's tasks; absence means delete.

    Attributes:
        digest: sha256 over the sorted (uid, generation, hash) of `tasks`.
        tasks: by uid of the resource.
    """

    digest: str
    tasks: dict[str, TaskRow] = Field(default_factory=dict)


class TaskEvent(Revision):
    """The body of ``insert`` and ``delete``: for people and for waking up, never applied.

    Attributes:
        object: the custom resource as the API has it.
    """

    object: dict[str, Any]


class NodeAlive(Message):
    """Birth and will of a LocalController.

    Attributes:
        install: random id of the state folder, made once.
        boot: random id of the process.
        connection: counts the connections of this boot; a will counts only for the current (boot, connection).
    """

    status: Literal["online", "offline"]
    install: str
    boot: str
    connection: Count
    version: str = ""


class TaskState(Message):
    """What the LC says of one task.

    Attributes:
        generation: the generation that it applied.
        condition: ``Applied``, ``Running``, ``Completed``, ``Failed`` or ``PruneHeld``.
        reason: one CamelCase word, where there is something to say.
    """

    generation: Count
    condition: str
    reason: str = ""
    message: str = ""


class NodeState(Message):
    """The LC's acknowledgement: what it has applied, recomputed from its stored rows.

    Attributes:
        cluster: None (with epoch 0, rev 0) before the first document.
        tasks: by uid; None in a digest-only heartbeat.
    """

    boot: str
    number: Count
    cluster: str | None = None
    epoch: Count = 0
    rev: Count = 0
    digest: str = ""
    tasks: dict[str, TaskState] | None = None
    reason: str = ""
    message: str = ""


class Sync(Message):
    """The request for a desired state, with what the node already has."""

    cluster: str | None = None
    epoch: Count = 0
    rev: Count = 0
    digest: str = ""
    want_specs: list[str] = Field(default_factory=list)


class ModelOutput(Message):
    """A model as the seeds' status body names it, with what was verified of it."""

    format: str = ""
    url: str = ""
    name: str = ""
    digest: str = ""


class TaskInfo(Message):
    """Progress of an inference task (seed 4)."""

    inference_number: Count = 0
    hard_example_number: Count = 0
    upload_cloud_ratio: float = 0.0
    start_time: str | None = None
    current_time: str | None = None
    update_time: str | None = None


class Ledger(Message):
    """A service's counts; every field only grows, except `pending`.

    The identities, which hold in every message: ``seen = easy + hard + sum(failed)`` and
    ``hard = answered + sum(dropped) + pending``.

    Attributes:
        seen: samples that the edge worker took in; what a live source skipped is in `skipped` instead.
        easy: answered by the little model alone.
        hard: worth the big model, by the rule.
        failed: samples without an answer, by reason.
        skipped: frames that a live source dropped because a newer one had come.
        sent: distinct hard samples handed to the cloud broker; `resent` counts the further tries.
        answered: hard samples with an answer of the cloud, late ones too.
        late: of those answered, after the deadline.
        changed: of those answered, with another label than the edge's.
        corrected: of those late, delivered to the worker as corrections.
        undelivered: corrections that no worker was there to take.
        degraded: edge answers handed out because the deadline passed.
        pending: hard samples without an answer yet.
        dropped: hard samples that will have none, by the policy's name.
        bytes_up: payload bytes published towards the cloud, resends included.
        bytes_down: payload bytes of answers received from the cloud.
        latency: histograms (`nereid_shared.histogram`) by name: ``edge`` (capture to edge answer),
            ``cloud`` (capture to cloud answer).
    """

    seen: Count = 0
    easy: Count = 0
    hard: Count = 0
    failed: dict[str, Count] = Field(default_factory=dict)
    skipped: Count = 0
    sent: Count = 0
    resent: Count = 0
    answered: Count = 0
    late: Count = 0
    changed: Count = 0
    corrected: Count = 0
    undelivered: Count = 0
    degraded: Count = 0
    pending: Count = 0
    dropped: dict[str, Count] = Field(default_factory=dict)
    bytes_up: Count = 0
    bytes_down: Count = 0
    latency: dict[str, dict[int, Count]] = Field(default_factory=dict)


class WorkerInfo(Message):
    """What a worker says of itself (seed 4's worker info body, and what the ledger needs).

    Attributes:
        name: the worker's (its Pod's) name.
        owner_kind: the resource's kind in lower case, as the seed has it.
        kind: ``inference``.
        status: the seeds' ``running``, ``completed``, ``failed``; and ``starting``, ``offline`` (the will).
        boot: random id of the process; a will counts only for its own boot.
        number: counts this boot's messages.
        task_hash: the hash of the task that runs.
        ledger: an edge worker's own counts: seen, easy, hard, failed, skipped, degraded, corrected, latency.
        stream: the process's stream id, with `accepted` the last sample number it knows to be committed.
        batches: cloud worker: batches run; with `processed`, `undecodable` samples, those that the model could not
            answer (`failed`), and those of nodes outside the service (`refused`).
        reason: one CamelCase word, where `status` is ``failed`` or the worker waits.
    """

    name: str
    namespace: str
    owner_name: str
    owner_kind: str
    kind: str = "inference"
    status: Literal["starting", "running", "completed", "failed", "offline"]
    task_info: TaskInfo | None = None
    service: str = ""
    node: str = ""
    boot: str = ""
    number: Count = 0
    task_hash: str = ""
    ledger: Ledger | None = None
    models: list[ModelOutput] = Field(default_factory=list)
    stream: str = ""
    accepted: Count = 0
    batches: Count = 0
    processed: Count = 0
    undecodable: Count = 0
    failed: Count = 0
    refused: Count = 0
    reason: str = ""
    message: str = ""


class Accepted(Message):
    """What the LC has committed of a worker's hard samples.

    Attributes:
        stream: the stream that `seq` numbers.
        seq: every sample up to this one is in the LC's outbox, or was.
    """

    stream: str
    seq: Count


class Output(Message):
    """The seeds' status output."""

    models: list[ModelOutput] = Field(default_factory=list)
    task_info: TaskInfo | None = None


class TaskStatus(Message):
    """The seeds' status body, LC→GM, with what Nereid adds.

    Attributes:
        phase: ``inference`` for services, ``dataset`` for datasets.
        status: ``running``, ``completed``, ``failed``, ``starting``, ``offline`` (the worker is gone).
        number_of_samples: datasets only.
    """

    phase: str
    status: str
    output: Output | None = None
    boot: str = ""
    number: Count = 0
    uid: str = ""
    generation: Count = 0
    worker: str = ""
    ledger: Ledger | None = None
    number_of_samples: int | None = None
    update_time: str | None = None
    reason: str = ""
    message: str = ""


class GmAlive(Message):
    """The leading GlobalManager."""

    status: Literal["online", "offline"]
    cluster: str
    leader: str
    epoch: Count


class GmSentinel(Message):
    """Unequal to what the GM last wrote: the broker lost or restored its data."""

    epoch: Count
    counter: Count


class ModelRef(Message):
    """A model that a worker loads: a path or URL, its format, and its digest where the user gave one."""

    name: str
    url: str
    format: str = ""
    sha256: str = ""


class DatasetRef(Message):
    """A dataset that a worker reads."""

    name: str
    url: str
    format: str


class RuleRef(Message):
    """A hard example rule by the seeds' name, its parameters as decimal strings, and an optional budget (0..1)."""

    name: str
    parameters: dict[str, str] = Field(default_factory=dict)
    budget: str | None = None


class Task(Message):
    """What a worker runs: published retained to edge workers, given to cloud workers in ``NEREID_TASK``.

    Attributes:
        uid: the resource's uid; `service` its identity on topics.
        hash: identifies this content; a worker that sees another one starts anew.
        script_dir: folder with the user's script, or "" for a builtin.
        script_boot_file: file name below `script_dir`, or ``builtin:classify``.
        parameters: workerSpec.parameters as a dict.
        nodes: cloud only: nodes whose samples are accepted.
        group: cloud only: the secret name of the share group.
        max_batch / max_wait_s: cloud only: bounds of a micro-batch.
        deadline_s: edge only: how long the caller waits for the cloud, from capture.
    """

    uid: str
    service: str
    role: Literal["edge", "cloud"]
    kind: str = "JointInferenceService"
    namespace: str
    name: str
    generation: Count
    hash: str
    model: ModelRef
    script_dir: str = ""
    script_boot_file: str = "builtin:classify"
    parameters: dict[str, str] = Field(default_factory=dict)
    rule: RuleRef | None = None
    dataset: DatasetRef | None = None
    deadline_s: float = 1.0
    nodes: list[str] = Field(default_factory=list)
    group: str = ""
    max_batch: int = 8
    max_wait_s: float = 0.005
