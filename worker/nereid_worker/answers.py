# SPDX-License-Identifier: Apache-2.0
"""What a caller gets for one sample.

msgspec Structs, as they are made for each sample: a frozen dataclass of this size takes ten times as long.
"""

from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import asdict

Tier = Literal["edge", "cloud"]


class Opinion(Struct, frozen=True, kw_only=True, gc=False):
    """What one model said of a sample.

    Attributes:
        label: the class by name.
        score: its probability, 0..1.
        model: sha256 of the model file, in hex.
    """

    label: str
    score: float
    model: str


class Answer(Struct, frozen=True, kw_only=True, gc=False):
    """The one answer to one sample, or a correction of it.

    Attributes:
        key: the source's name for the sample (a file name, or its index as text).
        index: its place in the source.
        label: the answer: the cloud's where it came in time, else the edge's; "" where `error` is set.
        score: its probability, 0..1.
        tier: who said `label`.
        model: sha256 of the model file that said it.
        is_hard: whether the rule sent the sample to the cloud.
        reason: why the rule found it hard or easy.
        hardness: the rule's own score.
        degraded: it is hard, and this is the edge's answer: the deadline passed, or the cloud will not answer.
        edge: what the little model said; None for a failed sample and for corrections after a restart.
        cloud: what the big model said, where it was asked and answered.
        latency_s: from capture to this answer.
        captured_at: seconds since the epoch.
        error: why there is no answer at all (`nereid_shared.errors.BadSample.reason`), else "".
    """

    key: str
    index: int
    label: str
    score: float
    tier: Tier
    model: str
    is_hard: bool = False
    reason: str = ""
    hardness: float = 0.0
    degraded: bool = False
    edge: Opinion | None = None
    cloud: Opinion | None = None
    latency_s: float = 0.0
    captured_at: float = 0.0
    error: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the answer as one object for a log of answers."""
        body = asdict(self)
        edge, cloud = body.pop("edge"), body.pop("cloud")
        body["edge_label"] = edge.label if edge else None
        body["cloud_label"] = cloud.label if cloud else None
        body["latency_ms"] = round(body.pop("latency_s") * 1e3, 3)
        return body
