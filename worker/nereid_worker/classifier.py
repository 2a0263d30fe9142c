# SPDX-License-Identifier: Apache-2.0
"""A model with its card as one thing that answers pictures: checked against its tensors, and tried before it serves."""

import hashlib
import math
from collections.abc import Sequence
from decimal import Decimal
from math import exp, isfinite
from pathlib import Path
from typing import Self

import numpy as np
from msgspec import Struct

from nereid_shared.card import Card, card_path, model_path
from nereid_shared.errors import BadSample, ModelInvalid
from nereid_shared.messages import NO_GOLDEN_SAMPLES
from nereid_shared.samples import MALFORMED_SCORES
from nereid_worker.decimals import shortest
from nereid_worker.preprocess import Picture, Preprocessor
from nereid_worker.rules import SLACK
from nereid_worker.runtimes import open_model


class Prediction(Struct, frozen=True, kw_only=True):
    """The model's answer to one picture.

    Attributes:
        label: the most likely class by name; "" where its score is below the card's `minScore`.
        index: the most likely class in the order of the labels.
        score: its probability, 0..1.
        values: the probabilities, one per label, as plain floats.
    """

    label: str
    index: int
    score: float
    values: list[float]

    @property
    def probabilities(self) -> np.ndarray:
        """The probabilities as an array: float32 (labels,)."""
        return np.array(self.values, np.float32)


class Classifier:
    """A classification model, ready to answer. Not for several threads at once.

    Attributes:
        path: the model file; `digest` its sha256 in hex, `size` its bytes.
        card: the model's card; `labels` its classes' names.
        warnings: what is wanting but not wrong, one sentence each.
        preprocessor, interpreter: the two stages, for callers that run them apart.
    """

    def __init__(self, *, path: Path, content: bytes, card: Card, threads: int = 1, sha256: str = "") -> None:
        """Take a model's bytes and its card. `load` is what most callers want.

        Raises:
            ModelInvalid: see `load`.
        """
        self.path, self.card = path, card
        self.digest, self.size = hashlib.sha256(content).hexdigest(), len(content)
        self._check_digest(sha256, "the Model's spec.sha256")
        self._check_digest(card.file.sha256 if card.file else "", f"{card_path(path)}: file.sha256")
        self.interpreter = open_model(content, file=path, threads=threads)
        self._check_tensors()
        self.labels: tuple[str, ...] = tuple(card.output.labels)
        self.preprocessor = Preprocessor(card, self.interpreter.input)
        self.warnings: list[str] = []
        self._softmax = card.output.kind == "logits"
        self._min_score = Decimal(card.output.min_score)

    @classmethod
    def load(cls, path: Path | str, *, card: Card | None = None, threads: int = 1, sha256: str = "") -> Self:
        """Return the model at `path`, after its golden inputs gave the outputs that its card promises.

        Args:
            path: the model file, or its folder.
            card: instead of the ``model.json`` beside it.
            threads: of the interpreter.
            sha256: the digest that the spec gives, or "".

        Raises:
            ModelInvalid: ``ModelMissing``, ``ModelCorrupt``, ``ModelUnsupported``, ``CardMissing``, ``CardInvalid``,
                ``CardMismatch``, ``DigestMismatch``, ``GoldenMismatch``.
            UserError: LiteRT or OpenCV is not installed.
        """
        file = Path(path)
        if card is None:
            if not file.exists():
                model_path(file)
            card = Card.load(file)
        file = model_path(file, card)
        try:
            content = file.read_bytes()
        except OSError as error:
            raise ModelInvalid(f"{file}: cannot be read: {error.strerror}", reason="ModelMissing") from error
        model = cls(path=file, content=content, card=card, threads=threads, sha256=sha256.lower())
        model.run_golden()
        return model

    def predict(self, frame: Picture) -> Prediction:
        """Return the answer to one picture (see `Preprocessor.one` for what a frame may be).

        Raises:
            BadSample: ``undecodable``, or ``malformed-scores`` where the model's answer is no distribution.
        """
        return self.read(self.interpreter.run(self.preprocessor.one(frame))[0])

    def predict_batch(self, frames: Sequence[Picture]) -> list[Prediction | BadSample]:
        """Return for each picture its answer, or why there is none; a bad picture spoils no other."""
        answers: list[Prediction | BadSample | None] = [None] * len(frames)
        given = self.interpreter.input
        batch = np.empty((len(frames), *given.shape[1:]), given.dtype)
        rows: list[int] = []
        for number, frame in enumerate(frames):
            try:
                self.preprocessor.into(frame, batch[len(rows)])
            except BadSample as error:
                answers[number] = error
            else:
                rows.append(number)
        for number, scores in zip(rows, self.interpreter.run(batch[: len(rows)]), strict=True):
            try:
                answers[number] = self.read(scores)
            except BadSample as error:
                answers[number] = error
        return [answer for answer in answers if answer is not None]

    def run_golden(self) -> None:
        """Return after every golden input gave its output; without any, leave a warning.

        Raises:
            ModelInvalid: ``GoldenMismatch``, naming the input and the difference; ``CardInvalid`` for an input that
                cannot be read.
        """
        if not self.card.golden:
            self.warnings.append(
                f"{NO_GOLDEN_SAMPLES}: {card_path(self.path)} has no golden inputs; the model runs untried"
            )
        for golden in self.card.golden:
            file = self.path.parent / golden.input
            try:
                got = self.interpreter.run(self.preprocessor.one(file.read_bytes()))[0].ravel()
            except (OSError, BadSample) as error:
                raise ModelInvalid(f"{file}: the golden input cannot be read: {error}", reason="CardInvalid") from error
            if got.size != len(golden.output):
                raise self._mismatch(
                    f"golden output of {golden.input} has {len(golden.output)} figures, not {got.size}"
                )
            worst = float(np.max(np.abs(got.astype(np.float64) - golden.output)))
            if not worst <= golden.tolerance:
                raise ModelInvalid(
                    f"{self.path}: for {golden.input} the output is {worst:.3g} off the card's, more than the "
                    f"tolerance of {golden.tolerance:g}: another model, or a card that describes its input wrongly",
                    reason="GoldenMismatch",
                )

    def read(self, raw: np.ndarray) -> Prediction:
        """Return one row of the model's output as the card reads it.

        Raises:
            BadSample: ``malformed-scores``.
        """
        # Plain floats: for the few classes of a classifier, fifteen calls into numpy cost more than all the arithmetic.
        values: list[float] = raw.ravel().tolist()
        if not isfinite(sum(values)):
            raise BadSample("the model's scores are not finite", reason=MALFORMED_SCORES)
        most = max(values)
        index = values.index(most)
        if self._softmax:
            powers = [exp(value - most) for value in values]
            total = sum(powers)
            values, most = [power / total for power in powers], 1.0 / total
        elif most > 1 + SLACK or min(values) < -SLACK:
            raise BadSample(f"the model's probabilities run from {min(values)} to {most}", reason=MALFORMED_SCORES)
        label = self.labels[index]
        if self._min_score and shortest(np.array([most], np.float32))[0] < self._min_score:
            label = ""
        return Prediction(label=label, index=index, score=min(most, 1.0), values=values)

    def _check_digest(self, expected: str, where: str) -> None:
        if expected and expected != self.digest:
            raise ModelInvalid(
                f"{self.path}: its sha256 is {self.digest}, {where} says {expected}", reason="DigestMismatch"
            )

    def _check_tensors(self) -> None:
        given, answer = self.interpreter.input, self.interpreter.output
        if len(given.shape) != 4:
            raise self._mismatch(f"the input's shape is {given.shape}; a picture has four dimensions")
        axis = {"NHWC": 3, "NCHW": 1}[self.card.input.layout]
        if given.shape[axis] != self.card.input.channels:
            raise self._mismatch(
                f"input.colorOrder {self.card.input.color_order} with input.layout {self.card.input.layout} means "
                f"{self.card.input.channels} channels, the tensor {given.shape} has {given.shape[axis]}"
            )
        classes = math.prod(answer.shape)
        if classes != len(self.card.output.labels):
            raise self._mismatch(f"output.labels has {len(self.card.output.labels)} names for {classes} outputs")

    def _mismatch(self, why: str) -> ModelInvalid:
        return ModelInvalid(f"{card_path(self.path)}: {why}", reason="CardMismatch")
