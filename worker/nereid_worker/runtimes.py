# SPDX-License-Identifier: Apache-2.0
"""Which runtime opens a model file, and the face that all of them have."""

from pathlib import Path
from typing import Final, Protocol

import numpy as np

from nereid_worker.estimator import FILE_NAME, EstimatorRunner
from nereid_worker.litert import Interpreter, TensorSpec

ONNX: Final = "onnx"


class Runner(Protocol):
    """A loaded model with one input and one output. Not for several threads at once.

    Attributes:
        input, output: the tensors, with the batch as 1.
    """

    input: TensorSpec
    output: TensorSpec

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Return the model's output for each row, in real numbers: float32 (rows, …).

        Raises:
            ValueError, RuntimeError: it cannot be run on this input.
        """


def open_model(content: bytes, *, file: Path, threads: int = 1) -> Runner:
    """Return what runs a file's bytes, by its name: ONNX Runtime, a user's estimator, else LiteRT.

    Raises:
        UserError: the runtime is not installed.
        ModelInvalid: ``ModelCorrupt``, ``ModelUnsupported`` or ``EstimatorFailed``.
    """
    if file.name == FILE_NAME:
        return EstimatorRunner(file)
    if file.suffix.lower() == f".{ONNX}":
        from nereid_worker.onnx import OnnxInterpreter  # noqa: PLC0415 - on first use, like its library

        return OnnxInterpreter(content, threads=threads, where=str(file))
    return Interpreter(content, threads=threads, where=str(file))
