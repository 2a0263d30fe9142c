# SPDX-License-Identifier: Apache-2.0
"""The bodies of control messages: JSON, small, for people to read with ``mosquitto_sub``.

Frozen structs with camelCase names on the wire; unknown fields are ignored, an unknown major version of ``schema`` is
refused. They are checked where they are decoded, not where they are made (`Body.checked` does so at will). Samples
and answers, which are many and large, are in `nereid_shared.samples`.
"""

import json
from collections.abc import Collection
from typing import Annotated, Any, Final, Literal, Self, dataclass_transform

import msgspec
from msgspec import Meta, Struct, field

from nereid_shared.complaints import complaint
from nereid_shared.defaults import CLASSIFY, DEADLINE
from nereid_shared.errors import MessageInvalid, MessageTooLarge
from nereid_shared.quantities import duration_s

SCHEMA: Final = "1.0"
_MAJOR: Final = SCHEMA.partition(".")[0]

PRUNE_HELD: Final = "PruneHeld"
"""A node's reason, and its tasks' condition, while it holds a document that would remove another cluster's tasks."""

PAGE_DAMAGED: Final = "PageDamaged"
SPOOL_DAMAGED: Final = "SpoolDamaged"
"""A worker's reasons, though it runs, where a file of its state was not whole."""

SPECS_MISSING: Final = "SpecsMissing"
"""A node's reason where a document lists hashes of which it has no specs; it asks for them in `Sync.want_specs`."""

WorkerStatus = Literal["starting", "running", "completed", "failed", "offline"]

Count = Annotated[int, Meta(ge=0, le=2**53)]
"""A count from outside: exact as JSON's number and as SQLite's."""


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
class Body(Struct, frozen=True, kw_only=True, rename="camel"):
    """What all control messages share."""

    schema_: Annotated[str, Meta(pattern=rf"^{_MAJOR}(\.|\Z)")] = field(default=SCHEMA, name="schema")

    def encode(self) -> bytes:
        """Return the JSON body, without the fields that are None."""
        return msgspec.json.encode(_fields(self, wire=True))

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
            return msgspec.json.decode(payload, type=cls)
        except msgspec.DecodeError as error:
            problem = _foreign_version(payload) or complaint(error, cls)
            raise MessageInvalid(f"{topic or cls.__name__}: {problem}") from error
        except (RecursionError, UnicodeDecodeError) as error:
            raise MessageInvalid(f"{topic or cls.__name__}: not JSON: {error}") from error

    def checked(self) -> Self:
        """Return this message as the peer will read it; for one that is made of values from outside.

        Raises:
            MessageInvalid: a field has a value of another kind or range than its own.
        """
        try:
            return msgspec.convert(_fields(self, wire=True), type(self))
        except msgspec.ValidationError as error:
            raise MessageInvalid(complaint(error, type(self))) from error

    def content(self, *, without: Collection[str] = ()) -> dict[str, Any]:
        """Return all fields, None too, by their names here, for a hash of them."""
        return {name: value for name, value in _fields(self, wire=False).items() if name not in without}


def _fields(message: Body, *, wire: bool) -> dict[str, Any]:
    names = message.__struct_encode_fields__ if wire else message.__struct_fields__
    values = ((name, getattr(message, own)) for name, own in zip(names, message.__struct_fields__, strict=True))
    return {name: _value(value, wire=wire) for name, value in values if not (wire and value is None)}


def _value(value: Any, *, wire: bool) -> Any:
    # Messages stand in fields, or one deep in their lists and maps; a spec, however deep, goes as it is.
    if isinstance(value, Body):
        return _fields(value, wire=wire)
    if isinstance(value, list):
        return [_fields(one, wire=wire) if isinstance(one, Body) else one for one in value]
    if isinstance(value, dict):
        return {key: _fields(one, wire=wire) if isinstance(one, Body) else one for key, one in value.items()}
    return value


class _Versioned(Struct):
    schema: Any = SCHEMA


def _foreign_version(payload: bytes) -> str:
    """Return the complaint about a body's version; "" where that is ours, or where there is no telling."""
    try:
        schema = msgspec.json.decode(payload, type=_Versioned).schema
    except (ValueError, RecursionError):
        return ""
    if str(schema).partition(".")[0] == _MAJOR:
        return ""
    return f"schema: {schema!r} is not understood; this side speaks {SCHEMA}"


def canonical_json(value: object) -> bytes:
    """Return JSON that is the same for equal values: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


class Revision(Body, kw_only=True):
    """A place in the order of desired states: (epoch, rev) within one cluster."""

    cluster: str
    epoch: Count
    rev: Count


class TaskRow(Body, kw_only=True):
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
    refs: dict[str, Any] = field(default_factory=dict)


class Desired(Revision, kw_only=True):
    """The complete list of a node's tasks; absence means delete.

    Attributes:
        digest: sha256 over the sorted (uid, generation, hash) of `tasks`.
        tasks: by uid of the resource.
    """

    digest: str
    tasks: dict[str, TaskRow] = field(default_factory=dict)


class TaskEvent(Revision, kw_only=True):
    """The body of ``insert`` and ``delete``: for people and for waking up, never applied.

    Attributes:
        object: the custom resource as the API has it.
    """

    object: dict[str, Any]


class NodeAlive(Body, kw_only=True):
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


class TaskState(Body, kw_only=True):
    """What the LC says of one task.

    Attributes:
        generation: the generation that it applied.
        condition: ``Applied``, ``Running``, ``Completed``, ``Failed`` or `PRUNE_HELD`.
        reason: one CamelCase word, where there is something to say.
    """

    generation: Count
    condition: str
    reason: str = ""
    message: str = ""


class NodeState(Body, kw_only=True):
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


class Sync(Body, kw_only=True):
    """The request for a desired state, with what the node already has."""

    cluster: str | None = None
    epoch: Count = 0
    rev: Count = 0
    digest: str = ""
    want_specs: list[str] = field(default_factory=list)


MODEL_FETCHING: Final = "ModelFetching"
MODEL_SWAPPING: Final = "ModelSwapping"
NO_GOLDEN_SAMPLES: Final = "NoGoldenSamples"
ROLLED_BACK: Final = "RolledBack"
"""Reasons of a `ModelOutput`: it comes; it is there and its worker tries it; it serves, and its card has nothing to try
it with; its process ended early."""


class ModelOutput(Body, kw_only=True):
    """A model as the seeds' status body names it, with what was verified of it.

    Where a task's model is changed there are two of one name: first the one that serves, then the one that shall.

    Attributes:
        version: serving workers only: which of the manifest it is.
        digest: sha256 of the file that is there; "" where that is not known.
        bytes: the file's size; 0 where that is not known.
        generation: of the Model that was asked for; 0 where the speaker does not know it.
        status: "" where nobody has looked at it yet.
        reason: one CamelCase word: why it is not ready, or what is to be known of it though it is.
    """

    format: str = ""
    url: str = ""
    name: str = ""
    version: str = ""
    digest: str = ""
    bytes: Count = 0
    generation: Count = 0
    status: Literal["", "fetching", "ready", "failed"] = ""
    reason: str = ""
    message: str = ""


class TaskInfo(Body, kw_only=True):
    """Progress of an inference task (seed 4)."""

    inference_number: Count = 0
    hard_example_number: Count = 0
    upload_cloud_ratio: float = 0.0
    start_time: str | None = None
    current_time: str | None = None
    update_time: str | None = None


class Ledger(Body, kw_only=True):
    """A service's counts; every field only grows, except `pending`.

    In every message ``seen = easy + hard + sum(failed)``; in the LocalController's, since a worker's own counts know
    nothing of answers, ``hard = answered + sum(dropped) + pending`` too.

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
        degraded: edge answers to hard samples, handed out in the cloud's place.
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
    failed: dict[str, Count] = field(default_factory=dict)
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
    dropped: dict[str, Count] = field(default_factory=dict)
    bytes_up: Count = 0
    bytes_down: Count = 0
    latency: dict[str, dict[int, Count]] = field(default_factory=dict)


class WorkerInfo(Body, kw_only=True):
    """What a worker says of itself (seed 4's worker info body, and what the ledger needs).

    Attributes:
        name: the worker's (its Pod's) name.
        owner_kind: the resource's kind in lower case, as the seed has it.
        kind: ``inference``, or ``serving`` (a worker of an InferenceModel).
        status: the seeds' ``running``, ``completed``, ``failed``; and ``starting``, ``offline`` (the will).
        boot: random id of the process; a will counts only for its own boot.
        number: counts this boot's messages.
        task_hash: the hash of the task that runs.
        ledger: an edge worker's own counts: seen, easy, hard, failed, skipped, degraded, corrected, dropped, latency.
        stream: what its hard samples are numbered under, as old as its page; with `accepted` the last number that it
            knows to be committed.
        batches: cloud worker: batches run; with `processed`, `undecodable` samples, those that the model could not
            answer (`failed`), and those of nodes outside the service (`refused`).
        serving_version: serving worker: the version that answers now; "" while none does. Where it is not the task's
            target, `reason` and `message` say why: the target is prepared, or failed and the former goes on.
        reason: one CamelCase word, where `status` is ``failed`` or the worker waits.
    """

    name: str
    namespace: str
    owner_name: str
    owner_kind: str
    kind: str = "inference"
    status: WorkerStatus
    task_info: TaskInfo | None = None
    service: str = ""
    node: str = ""
    boot: str = ""
    number: Count = 0
    task_hash: str = ""
    ledger: Ledger | None = None
    models: list[ModelOutput] = field(default_factory=list)
    stream: str = ""
    accepted: Count = 0
    batches: Count = 0
    processed: Count = 0
    undecodable: Count = 0
    failed: Count = 0
    refused: Count = 0
    serving_version: str = ""
    reason: str = ""
    message: str = ""


class Accepted(Body, kw_only=True):
    """What the LC has committed of a worker's hard samples.

    Attributes:
        stream: the stream that `seq` numbers.
        seq: every sample up to this one is in the LC's outbox, or was.
    """

    stream: str
    seq: Count


class Output(Body, kw_only=True):
    """The seeds' status output."""

    models: list[ModelOutput] = field(default_factory=list)
    task_info: TaskInfo | None = None


class DatasetStatistics(Body, kw_only=True):
    """What a dataset holds, beside the number of its samples (`nereid_shared.datasets` counts).

    Attributes:
        files: files that hold or name its samples: indices, annotations, or the pictures of a folder.
        bytes: the size of these files.
        labelled: samples with a class, or with a box that has one.
        boxes: boxes around objects.
        malformed: rows and annotations that are not what the format says; each is a sample that fails.
        classes: how often a class is named, by a sample or by a box; the most frequent ones first, at most
            `nereid_shared.defaults.MAX_CLASSES`.
        number_of_classes: all of them.
        looked: pictures that were looked at: the first ones, at most as many as the reader has time for.
        missing: of those, the ones that are not there.
        corrupt: of those, the ones that are no whole JPEG or PNG file.
        min_width / max_width / min_height / max_height: of the others, in pixels; 0 where there is none.
        digest: ``sha256:…`` over the name and content of each of `files`; of a folder's pictures over name and size.
        problems: the first few, each with its file and line.
    """

    files: Count = 0
    bytes: Count = 0
    labelled: Count = 0
    boxes: Count = 0
    malformed: Count = 0
    classes: dict[str, Count] = field(default_factory=dict)
    number_of_classes: Count = 0
    looked: Count = 0
    missing: Count = 0
    corrupt: Count = 0
    min_width: Count = 0
    max_width: Count = 0
    min_height: Count = 0
    max_height: Count = 0
    digest: str = ""
    problems: list[str] = field(default_factory=list)


class TaskStatus(Body, kw_only=True):
    """The seeds' status body, LC→GM, with what Nereid adds.

    Attributes:
        phase: ``inference`` for services, ``dataset`` for datasets, ``serving`` for inference models.
        status: ``running``, ``completed``, ``failed``, ``starting``, ``offline`` (the worker is gone).
        number_of_samples / statistics: datasets only.
        serving_version: inference models only: as in the worker's info.
        update_time: when the dataset's files, or what is said of a service, its counts too, last changed.
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
    statistics: DatasetStatistics | None = None
    serving_version: str = ""
    update_time: str | None = None
    reason: str = ""
    message: str = ""


class GmAlive(Body, kw_only=True):
    """The leading GlobalManager."""

    status: Literal["online", "offline"]
    cluster: str
    leader: str
    epoch: Count


class GmSentinel(Body, kw_only=True):
    """Unequal to what the GM last wrote: the broker lost or restored its data."""

    epoch: Count
    counter: Count


class TaskModel(Body, kw_only=True):
    """A model that a worker loads: a path or URL, its format, and its digest where the user gave one.

    Attributes:
        path: the file as the LocalController has fetched it to this node; "" where `url` is a path, or the worker is
            one in the cloud, which fetches for itself.
    """

    name: str
    url: str
    format: str = ""
    sha256: str = ""
    path: str = ""


class TaskDataset(Body, kw_only=True):
    """A dataset that a worker reads."""

    name: str
    url: str
    format: str


class TaskRule(Body, kw_only=True):
    """A hard example rule by the seeds' name, its parameters as decimal strings, and an optional budget (0..1)."""

    name: str
    parameters: dict[str, str] = field(default_factory=dict)
    budget: str | None = None


class Task(Body, kw_only=True):
    """What a worker runs: published retained to edge workers, given to cloud workers in `environment.TASK`.

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
    model: TaskModel
    script_dir: str = ""
    script_boot_file: str = CLASSIFY
    parameters: dict[str, str] = field(default_factory=dict)
    rule: TaskRule | None = None
    dataset: TaskDataset | None = None
    deadline_s: float = duration_s(DEADLINE)
    nodes: list[str] = field(default_factory=list)
    group: str = ""
    max_batch: int = 8
    max_wait_s: float = 0.005


class ServedVersion(Body, kw_only=True):
    """One version of a served model.

    Attributes:
        path: the file or folder that was prepared on this node; "" where the worker fetches `url`.
    """

    version: str
    url: str = ""
    sha256: str = ""
    path: str = ""


class ServingTask(Body, kw_only=True):
    """What a serving worker runs: published retained at the edge, given to the cloud's in `environment.TASK`.

    Attributes:
        hash: identifies this content.
        framework: the spec's ``frameworkType``: which of the worker's runtimes opens the files.
        target: the version that must serve; the others are told so that the one that serves can go on meanwhile.
        max_batch / max_wait_s: bounds of a micro-batch.
    """

    uid: str
    namespace: str
    name: str
    generation: Count
    hash: str
    model_name: str
    framework: str
    target: str
    versions: list[ServedVersion]
    port: int
    max_batch: int = 8
    max_wait_s: float = 0.005
