# SPDX-License-Identifier: Apache-2.0
"""Hard samples and their answers: msgpack maps with short keys, plain dataclasses, nothing else on the hot path.

A sample's identity is (service, node, stream, seq, sha256 of the payload): service and node stand in the topic, the
rest in the body. The answer repeats stream, seq, digest, key and capture time, so that neither the LocalController nor
a restarted worker has to remember the frame.
"""

import hashlib
import math
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from nereid_shared.errors import MessageInvalid, MessageTooLarge

VERSION: Final = 1
MAX_COUNT: Final = 2**53
"""Bound of every count that is taken from outside: exact as JSON's number and as SQLite's."""

MAX_KEY_BYTES: Final = 512


def _plain(value: object) -> object:
    """Return the built-in value of what a script may give for one, such as numpy's float64."""
    for kind in (str, float, int):
        if isinstance(value, kind):
            return kind(value)
    raise TypeError(f"{type(value).__name__} cannot be packed")


pack: Final = msgspec.msgpack.Encoder(enc_hook=_plain).encode
unpack: Final = msgspec.msgpack.Decoder().decode
"""Raises ValueError or RecursionError for what is not msgpack."""

# Encodings of `Sample.payload`: files as they came, or raw tensor bytes (C order) with shape and dtype.
JPEG: Final = "jpeg"
PNG: Final = "png"
RAW: Final = "raw"

# What `Result.error` says; a script may say other words, which count as `REFUSED`.
UNDECODABLE: Final = "undecodable"
MALFORMED_SCORES: Final = "malformed-scores"
PREDICT_FAILED: Final = "predict-failed"
REFUSED: Final = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """The edge worker's counters as of one sample, itself included (see `nereid_shared.messages.Ledger`)."""

    seen: int
    easy: int
    hard: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One hard sample on its way to the cloud.

    Attributes:
        stream: random id of the worker's stream of samples.
        seq: 1, 2, 3, … within the stream, without gaps.
        digest: sha256 of `payload`, 32 bytes.
        key: the caller's name for the frame, such as a file name.
        captured_at: seconds since the epoch, by the edge's clock; informative only.
        remaining_ms: what was left of the deadline when the worker published it.
        label: the edge model's answer, by name.
        score: the edge model's confidence in it, 0..1.
        counts: the worker's counters, which the LC commits together with the sample.
        encoding: ``jpeg``, ``png`` or ``raw``.
        payload: the original encoded bytes, or raw pixels.
        shape: raw only: (height, width, channels).
        dtype: raw only: a numpy dtype name.
    """

    stream: str
    seq: int
    digest: bytes
    key: str
    captured_at: float
    remaining_ms: int
    label: str
    score: float
    counts: Counts
    encoding: str
    payload: bytes
    shape: tuple[int, ...] = ()
    dtype: str = ""

    def encode(self) -> bytes:
        """Return the msgpack body."""
        c = self.counts
        body: dict[str, Any] = {
            "v": VERSION, "s": self.stream, "n": self.seq, "d": self.digest, "k": self.key, "t": self.captured_at,
            "r": self.remaining_ms, "l": self.label, "p": self.score, "c": (c.seen, c.easy, c.hard, c.failed),
            "e": self.encoding, "b": self.payload,
        }  # fmt: skip
        if self.encoding == RAW:
            body["h"], body["y"] = self.shape, self.dtype
        return pack(body)

    @classmethod
    def decode(cls, body: bytes, *, max_bytes: int) -> "Sample":
        """Parse a body; the payload is not looked into, its digest is not recomputed.

        Raises:
            MessageTooLarge, MessageInvalid.
        """
        raw = _unpack(body, max_bytes, "sample")
        try:
            seen, easy, hard, failed = raw["c"]
            return cls(
                stream=_text(raw["s"]), seq=_count(raw["n"]), digest=_digest(raw["d"]), key=_text(raw["k"]),
                captured_at=_number(raw["t"]), remaining_ms=_integer(raw["r"]), label=_text(raw["l"]),
                score=_number(raw["p"]),
                counts=Counts(seen=_count(seen), easy=_count(easy), hard=_count(hard), failed=_count(failed)),
                encoding=_text(raw["e"]), payload=_bytes(raw["b"]),
                shape=tuple(_count(n) for n in raw.get("h", ())), dtype=_text(raw.get("y", "")),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise MessageInvalid(f"sample: {error!r}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The cloud's answer to one sample.

    Attributes:
        stream, seq, digest, key, captured_at: as in the sample.
        label: the big model's answer, by name; "" where `error` says why there is none.
        score: its confidence, 0..1.
        scores: the best classes with their probabilities, the most likely first.
        model: sha256 of the model file that answered, in hex.
        error: why there is no answer, such as `UNDECODABLE`; "" for an answer.
        compute_ms: time in the model for the whole batch.
        batch: how many samples ran together.
    """

    stream: str
    seq: int
    digest: bytes
    key: str
    captured_at: float
    label: str = ""
    score: float = 0.0
    scores: tuple[tuple[str, float], ...] = field(default=())
    model: str = ""
    error: str = ""
    compute_ms: float = 0.0
    batch: int = 1

    def encode(self) -> bytes:
        """Return the msgpack body."""
        return pack({
            "v": VERSION, "s": self.stream, "n": self.seq, "d": self.digest, "k": self.key, "t": self.captured_at,
            "l": self.label, "p": self.score, "q": self.scores, "m": self.model, "x": self.error,
            "u": self.compute_ms, "z": self.batch,
        })  # fmt: skip

    @classmethod
    def decode(cls, body: bytes, *, max_bytes: int) -> "Result":
        """Parse a body.

        Raises:
            MessageTooLarge, MessageInvalid.
        """
        raw = _unpack(body, max_bytes, "result")
        try:
            return cls(
                stream=_text(raw["s"]), seq=_count(raw["n"]), digest=_digest(raw["d"]), key=_text(raw["k"]),
                captured_at=_number(raw["t"]), label=_text(raw["l"]), score=_number(raw["p"]),
                scores=tuple((_text(name), _number(share)) for name, share in raw["q"]), model=_text(raw["m"]),
                error=_text(raw["x"]), compute_ms=_number(raw["u"]), batch=_count(raw["z"]),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise MessageInvalid(f"result: {error!r}") from error


def digest_of(payload: bytes) -> bytes:
    """Return the sha256 of a payload, 32 bytes."""
    return hashlib.sha256(payload).digest()


def _unpack(body: bytes, max_bytes: int, what: str) -> dict[str, Any]:
    if len(body) > max_bytes:
        raise MessageTooLarge(what, size_bytes=len(body), limit_bytes=max_bytes)
    try:
        raw = unpack(body)
    except (ValueError, RecursionError) as error:
        raise MessageInvalid(f"{what}: not msgpack: {error}") from error
    if not isinstance(raw, dict):
        raise MessageInvalid(f"{what}: not a map")
    if raw.get("v") != VERSION:
        raise MessageInvalid(f"{what}: version {raw.get('v')!r} is not understood; this side speaks {VERSION}")
    return raw


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_KEY_BYTES:
        raise TypeError(f"{type(value).__name__} where a short text belongs")
    return value


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"{type(value).__name__} where bytes belong")
    return value


def _digest(value: object) -> bytes:
    if not isinstance(value, bytes) or len(value) != hashlib.sha256().digest_size:
        raise TypeError("not a sha256")
    return value


def _number(value: object) -> float:
    if not isinstance(value, float | int) or isinstance(value, bool) or not math.isfinite(value):
        raise TypeError(f"{value!r} is not a finite number")
    return float(value)


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is not a whole number")
    return value


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_COUNT:
        raise TypeError(f"{value!r} is not a count")
    return value
