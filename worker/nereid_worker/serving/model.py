# SPDX-License-Identifier: Apache-2.0
"""One version's model behind the server: rows of tensors, or encoded pictures as its card prepares them."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

import numpy as np

from nereid_shared.card import card_path, model_path
from nereid_shared.errors import BadSample, ModelInvalid
from nereid_worker.classifier import Classifier, Prediction
from nereid_worker.estimator import FILE_NAME
from nereid_worker.litert import BUCKETS, Interpreter, TensorSpec
from nereid_worker.runtimes import ONNX, Runner, open_model

PYTHON: Final = "python"
FRAMEWORKS: Final = ("tflite", "litert", ONNX, PYTHON)
"""What `ServingTask.framework` may say of files that this worker opens."""

_PLATFORMS: Final = {f".{ONNX}": "onnxruntime_onnx", ".py": "python"}

MODEL_FAILED: Final = "model-failed"
"""The reason of a `BadSample` that the model itself could not run."""

Rows = np.ndarray | list[bytes]
"""A request's input: (rows, …) in the input tensor's dtype, or for each row a JPEG or PNG file."""


class ServedModel:
    """A loaded model. Not for several threads at once.

    Attributes:
        platform: runtime and format, as the Open Inference Protocol names them.
        digest: sha256 of the file, in hex.
        size: of the file, in bytes.
        input, output: the tensors; the output is in real numbers, whatever the file stores.
        labels: the classes' names; () where there is no card.
        warnings: what is wanting but not wrong, one sentence each.
    """

    def __init__(
        self, interpreter: Runner, *, file: Path, digest: str, size: int, classifier: Classifier | None
    ) -> None:
        """Take what `load` has made."""
        self._interpreter, self._classifier = interpreter, classifier
        self.platform = _PLATFORMS.get(file.suffix.lower(), "litert_tflite")
        self.digest, self.size = digest, size
        self.input: TensorSpec = interpreter.input
        self.output: TensorSpec = interpreter.output
        self.labels: tuple[str, ...] = classifier.labels if classifier else ()
        self.warnings: list[str] = list(classifier.warnings) if classifier else []

    @classmethod
    def load(cls, path: Path, *, framework: str, sha256: str = "", threads: int = 1) -> Self:
        """Return the model after its self-test: its card's golden inputs, or finite figures where it has no card.

        Args:
            path: the model file, or its folder, or one in which there is nothing but that, as in many archives.
            framework: the spec's ``frameworkType``.
            sha256: the digest that the spec gives, or "".
            threads: of the interpreter.

        Raises:
            ModelInvalid: see `Classifier.load`; ``ModelUnsupported`` for a framework that is not opened here;
                ``SelfTestFailed`` where a model without a card gives no finite figures for zeros.
            UserError: a library is not installed.
        """
        if framework.lower() not in FRAMEWORKS:
            raise ModelInvalid(
                f"frameworkType {framework!r} is not run by this worker; it runs {', '.join(FRAMEWORKS)}",
                reason="ModelUnsupported",
            )
        path = _innermost(path)
        if framework.lower() == PYTHON and path.is_dir():
            path /= FILE_NAME
        if card_path(path).exists():
            classifier = Classifier.load(path, threads=threads, sha256=sha256)
            file = classifier.path
            return cls(
                classifier.interpreter, file=file, digest=classifier.digest, size=file.stat().st_size,
                classifier=classifier,
            )  # fmt: skip
        file = model_path(path)
        try:
            content = file.read_bytes()
        except OSError as error:
            raise ModelInvalid(f"{file}: cannot be read: {error.strerror}", reason="ModelMissing") from error
        digest = hashlib.sha256(content).hexdigest()
        if sha256 and sha256.lower() != digest:
            raise ModelInvalid(f"{file}: its sha256 is {digest}, not {sha256.lower()}", reason="DigestMismatch")
        interpreter = open_model(content, file=file, threads=threads)
        model = cls(interpreter, file=file, digest=digest, size=len(content), classifier=None)
        model._try_zeros(str(file))
        model.warnings.append(f"NoCard: {file} has no model.json beside it: tensors only, no pictures, and untried")
        return model

    @property
    def takes_pictures(self) -> bool:
        """Whether the card says how a picture becomes a row."""
        return self._classifier is not None

    @property
    def is_tried(self) -> bool:
        """Whether its self-test compared outputs with what its card promises."""
        return self._classifier is not None and bool(self._classifier.card.golden)

    def warm_up(self, max_batch: int) -> None:
        """Make what batches of each size need, so that no request waits for it."""
        if isinstance(self._interpreter, Interpreter):
            for size in BUCKETS:
                if size <= max_batch:
                    self._run(np.zeros((size, *self.input.shape[1:]), self.input.dtype))

    def answer(self, requests: Sequence[Rows]) -> list[np.ndarray | BadSample]:
        """Return for each request its rows of output (rows, …), or why there are none; none spoils another."""
        if len(requests) == 1 and isinstance(requests[0], np.ndarray):
            return [self._run(requests[0])]
        batch = np.empty((sum(map(len, requests)), *self.input.shape[1:]), self.input.dtype)
        spans: list[slice | BadSample] = []
        end = 0
        for rows in requests:
            span = slice(end, end + len(rows))
            problem = self._fill(rows, batch[span])
            spans.append(problem or span)
            if problem is None:
                end = span.stop
        answered = self._run(batch[:end]) if end else batch
        if isinstance(answered, np.ndarray):
            return [answered[span] if isinstance(span, slice) else span for span in spans]
        return [self._run(batch[span]) if isinstance(span, slice) else span for span in spans]

    def prediction(self, scores: np.ndarray) -> Prediction:
        """Return one row of output as the card reads it.

        Raises:
            BadSample: ``malformed-scores``.
        """
        assert self._classifier is not None  # noqa: S101 - asked for where `labels` are
        return self._classifier.read(scores)

    def _fill(self, rows: Rows, into: np.ndarray) -> BadSample | None:
        if isinstance(rows, np.ndarray):
            into[...] = rows
            return None
        assert self._classifier is not None  # noqa: S101 - pictures are refused before where there is no card
        for picture, row in zip(rows, into, strict=True):
            try:
                self._classifier.preprocessor.into(picture, row)
            except BadSample as error:
                return error
        return None

    def _run(self, rows: np.ndarray) -> np.ndarray | BadSample:
        try:
            return self._interpreter.run(rows)
        except (RuntimeError, ValueError) as error:
            return BadSample(f"the model cannot be run on this input: {error}", reason=MODEL_FAILED)

    def _try_zeros(self, where: str) -> None:
        answer = self._run(np.zeros(self.input.shape, self.input.dtype))
        if isinstance(answer, BadSample) or not np.isfinite(answer).all():
            said = str(answer) if isinstance(answer, BadSample) else "its output is not finite"
            raise ModelInvalid(f"{where}: for an input of zeros: {said}", reason="SelfTestFailed")


def _innermost(path: Path) -> Path:
    """Return the folder itself, or the one that is alone in it."""
    while path.is_dir():
        inside = list(path.iterdir())
        if len(inside) != 1 or not inside[0].is_dir():
            break
        path = inside[0]
    return path
