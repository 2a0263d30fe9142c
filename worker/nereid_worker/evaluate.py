# SPDX-License-Identifier: Apache-2.0
"""``python -m nereid_worker.evaluate``: how good a model is on a labelled dataset of this node.

One JSON object as the outcome, on stdout or in a file: in a Pod that is its termination message, which comes with the
Pod's status also from nodes whose logs nobody can read.
"""

import argparse
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

from nereid_shared import logs
from nereid_shared.datasets import Dataset, Sample
from nereid_shared.errors import BadSample, ModelInvalid, NereidError, TemporaryError, UserError
from nereid_shared.messages import TaskModel
from nereid_worker.classifier import Classifier
from nereid_worker.models import on_this_node
from nereid_worker.scoring import percentile, score
from nereid_worker.scratch import Scratch

logger = logging.getLogger(__name__)

MAX_PICTURE_BYTES: Final = 64 * 1024 * 1024
MAX_OUTCOME_BYTES: Final = 4096
"""What Kubernetes keeps of a termination message."""
_MESSAGE_CHARACTERS: Final = 1000
_TELL_EVERY_S: Final = 10.0


def evaluate(model: Classifier, dataset: Dataset, *, limit: int | None = None) -> dict[str, Any]:
    """Return what the model is worth: ``metrics`` by name as decimal strings, and how many samples made them.

    Latencies are those of one picture at a time, from its bytes to its answer.

    Args:
        model: the model.
        dataset: one whose samples are pictures with a class.
        limit: samples that are looked at, from the first on; None for all.

    Raises:
        UserError: there is nothing in it that can be judged by.
    """
    if not dataset.has_pictures:
        raise UserError("its samples are no pictures", where=str(dataset.path), mend="Name a dataset of pictures.")
    said: Counter[tuple[str, str]] = Counter()
    failed: Counter[str] = Counter()
    latencies_s: list[float] = []
    samples = unlabelled = 0
    for sample in _told(islice(dataset.samples(whole=True), limit)):
        samples += 1
        if not sample.label:
            unlabelled += 1
            continue
        try:
            picture = _read(dataset.root / sample.name)
            began = time.perf_counter()
            answer = model.predict(picture).label
        except BadSample as error:
            failed[error.reason] += 1
            logger.warning("sample failed", extra={"sample": sample.name, "problem": str(error)})
        else:
            latencies_s.append(time.perf_counter() - began)
            said[sample.label, answer] += 1
    _check(said, model, dataset, samples=samples, unlabelled=unlabelled)
    worth = score(said)
    figures = {
        "accuracy": f"{worth.accuracy:.4f}", "precision": f"{worth.precision:.4f}", "recall": f"{worth.recall:.4f}",
        "f1": f"{worth.f1:.4f}", "latencyP50Ms": f"{percentile(latencies_s, 0.5) * 1e3:.3f}",
        "latencyP99Ms": f"{percentile(latencies_s, 0.99) * 1e3:.3f}", "sizeBytes": str(model.path.stat().st_size),
        "samples": str(said.total()),
    }  # fmt: skip
    return {
        "metrics": figures, "digest": model.digest, "samples": samples, "unlabelled": unlabelled,
        "failed": dict(sorted(failed.items())),
    }  # fmt: skip


def _check(
    said: Counter[tuple[str, str]], model: Classifier, dataset: Dataset, *, samples: int, unlabelled: int
) -> None:
    """Refuse what no figure would be true of."""
    where = str(dataset.path)
    if not said:
        why = f"none of its {samples} samples has a class and can be read; {unlabelled} have no class"
        raise UserError(why, where=where, mend="Give a csv a column `label`, or name a labelled dataset.")
    if not {truth for truth, _ in said} & {*model.labels}:
        known, given = (", ".join(sorted(some)[:5]) for some in ({*model.labels}, {truth for truth, _ in said}))
        raise UserError(
            f"none of its classes ({given} …) is one of the model's ({known} …)", where=where,
            mend="Use the same names in the dataset and in the card's output.labels.",
        )  # fmt: skip


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_PICTURE_BYTES + 1)
    except OSError as error:
        raise BadSample(f"{path}: cannot be read: {error.strerror}", reason="missing") from error
    if len(content) > MAX_PICTURE_BYTES:
        raise BadSample(f"{path}: larger than {MAX_PICTURE_BYTES} bytes", reason="too-large")
    return content


def _told(samples: Iterator[Sample]) -> Iterator[Sample]:
    """Log now and then how many there were."""
    told_at = time.monotonic()
    for number, sample in enumerate(samples):
        if time.monotonic() - told_at > _TELL_EVERY_S:
            told_at = time.monotonic()
            logger.info("evaluating", extra={"samples": number})
        yield sample


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate; returns 2 where something given is wrong, 1 where it may be otherwise later."""
    parser = argparse.ArgumentParser(prog="python -m nereid_worker.evaluate", description="Measure a model.")
    parser.add_argument("--model", required=True, help="a .tflite file or its folder, or a URL")
    parser.add_argument("--model-format", default="", help="as the Model's spec says")
    parser.add_argument("--sha256", default="", help="the model file's digest")
    parser.add_argument("--data", required=True, help="the dataset's path on this node")
    parser.add_argument("--format", required=True, help="how the dataset is read")
    parser.add_argument("--limit", type=int, help="samples that are looked at; all if not given")
    parser.add_argument("--result", type=Path, help="file for the outcome; stdout if not given")
    given = parser.parse_args(arguments)
    logs.configure(json=False, level=logging.INFO)
    scratch = Scratch()
    try:
        named = TaskModel(name=given.model, url=given.model, format=given.model_format, sha256=given.sha256)
        model = Classifier.load(on_this_node(named, into=scratch), sha256=given.sha256)
        outcome, code = evaluate(model, Dataset(given.data, given.format), limit=given.limit), 0
    except (NereidError, OSError) as error:
        reason = error.reason if isinstance(error, ModelInvalid | UserError) else ""
        outcome = {"reason": reason or type(error).__name__, "message": str(error)[:_MESSAGE_CHARACTERS]}
        code = 1 if isinstance(error, TemporaryError) else 2
    finally:
        scratch.remove()
    text = json.dumps(outcome)
    if given.result is None:
        sys.stdout.write(text + "\n")
    else:
        given.result.write_text(text)
    return code


if __name__ == "__main__":
    sys.exit(main())
