# SPDX-License-Identifier: Apache-2.0
"""What the big model says of a batch, as results: one per sample, whatever happens to its neighbours."""

import hashlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from nereid_shared.errors import BadSample
from nereid_shared.samples import MALFORMED_SCORES, PREDICT_FAILED, RAW, REFUSED, UNDECODABLE, Result, Sample
from nereid_worker.classifier import Prediction
from nereid_worker.preprocess import Picture
from nereid_worker.rules import SLACK

logger = logging.getLogger(__name__)

BEST: Final = 5
"""Classes that travel with an answer."""

Answered = Prediction | BadSample | tuple[str, float]
Predict = Callable[[list[Picture]], Sequence[Answered]]
"""What a script may give instead of the model: pictures in, for each a `Prediction`, a (label, score), or a
`BadSample`. A picture is a file's bytes, or uint8 pixels where the edge had no file."""

_RAW_DTYPES: Final = frozenset({"uint8", "uint16", "int16", "float16", "float32"})


def answer(samples: Sequence[Sample], predict: Predict, *, model: str, labels: Sequence[str] = ()) -> list[Result]:
    """Return a result for each sample, in their order; where there is no answer, `Result.error` says why.

    Args:
        samples: one batch.
        predict: the big model, or the script's function.
        model: digest of the model, to stand in the results.
        labels: the names of a `Prediction`'s probabilities.
    """
    began = time.perf_counter()
    outcomes: list[Answered] = [BadSample("", reason=UNDECODABLE)] * len(samples)
    frames: list[Picture] = []
    places: list[int] = []
    for place, sample in enumerate(samples):
        try:
            frames.append(_frame(sample))
        except BadSample as error:
            outcomes[place] = error
        else:
            places.append(place)
    for place, outcome in zip(places, _predicted(predict, frames), strict=True):
        outcomes[place] = outcome
    spent_ms = (time.perf_counter() - began) * 1e3
    results = []
    for sample, outcome in zip(samples, outcomes, strict=True):
        label, score, scores, reason = _said(outcome, labels)
        results.append(
            Result(
                stream=sample.stream, seq=sample.seq, digest=sample.digest, key=sample.key,
                captured_at=sample.captured_at, label=label, score=score, scores=scores, model=model, error=reason,
                compute_ms=spent_ms, batch=len(samples),
            )
        )  # fmt: skip
    return results


def _predicted(predict: Predict, frames: list[Picture]) -> Sequence[Answered]:
    if not frames:
        return []
    try:
        outcomes = predict(frames)
        if len(outcomes) != len(frames):
            raise ValueError(f"predict gave {len(outcomes)} answers for {len(frames)} samples")
    except Exception:  # a user's function; one sample must not take its neighbours or the worker with it
        logger.exception("predict failed", extra={"batch": len(frames)})
        if len(frames) == 1:
            return [BadSample("predict raised; its log has the traceback", reason=PREDICT_FAILED)]
        return [outcome for frame in frames for outcome in _predicted(predict, [frame])]
    return outcomes


def _frame(sample: Sample) -> Picture:
    if hashlib.sha256(sample.payload).digest() != sample.digest:
        raise BadSample("the payload is not what its digest says", reason=UNDECODABLE)
    if sample.encoding != RAW:
        return sample.payload
    if sample.dtype not in _RAW_DTYPES:
        raise BadSample(f"raw pixels of type {sample.dtype!r}", reason=UNDECODABLE)
    dtype = np.dtype(sample.dtype)
    if math.prod(sample.shape) * dtype.itemsize != len(sample.payload):
        raise BadSample(f"{len(sample.payload)} bytes for the shape {sample.shape}", reason=UNDECODABLE)
    return np.frombuffer(sample.payload, dtype).reshape(sample.shape)


def _said(outcome: Answered, labels: Sequence[str]) -> tuple[str, float, tuple[tuple[str, float], ...], str]:
    """Return label, score, best classes and error."""
    if isinstance(outcome, BadSample):
        return "", 0.0, (), outcome.reason or REFUSED
    if isinstance(outcome, Prediction):
        best = outcome.probabilities.argsort()[::-1][:BEST]
        scores = tuple((labels[i], float(outcome.probabilities[i])) for i in best) if labels else ()
        return outcome.label, outcome.score, scores, ""
    label, score = outcome
    if not -SLACK <= score <= 1 + SLACK:
        return "", 0.0, (), MALFORMED_SCORES
    clipped = min(max(float(score), 0.0), 1.0)
    return str(label), clipped, ((str(label), clipped),), ""
