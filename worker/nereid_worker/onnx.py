# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime behind the same narrow face as LiteRT: a model file in, batches of tensors through, real numbers out.

On the CPU. A model that says nothing of its batch, or gives it a name, runs any number of rows at once; one that fixes
it to 1 runs them one by one.
"""

from types import ModuleType
from typing import Any, Final

import numpy as np

from nereid_shared.errors import ModelInvalid, UserError
from nereid_worker.litert import DTYPES, TensorSpec

MOST_ROWS: Final = 32
"""Rows that run together: more are no faster and hold memory."""

_DTYPES: Final = {"tensor(float)": "float32", "tensor(uint8)": "uint8", "tensor(int8)": "int8"}
# What the runtime logs at its default level is either raised too or of no use: 3 is ERROR.
_LOG_LEVEL: Final = 3


def load_onnxruntime() -> ModuleType:
    """Return onnxruntime.

    Raises:
        UserError: it is not installed; names the extra.
    """
    try:
        import onnxruntime  # noqa: PLC0415 - optional
    except ImportError as error:
        raise UserError("ONNX Runtime is not installed", mend="pip install 'nereid-ai[onnx]'") from error
    assert isinstance(onnxruntime, ModuleType)  # noqa: S101 - it has no types
    return onnxruntime


class OnnxInterpreter:
    """A loaded model with one input and one output. Not for several threads at once.

    Attributes:
        input, output: the tensors, as the file describes them.
    """

    def __init__(self, content: bytes, *, threads: int = 1, where: str = "model") -> None:
        """Load the bytes of an ``.onnx`` file; `where` names it in errors.

        Raises:
            UserError: ONNX Runtime is not installed.
            ModelInvalid: ``ModelCorrupt``, or ``ModelUnsupported`` for operators or tensors that cannot be run here.
        """
        onnxruntime, self._where = load_onnxruntime(), where
        errors = onnxruntime.capi.onnxruntime_pybind11_state
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = _LOG_LEVEL
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except (errors.InvalidProtobuf, errors.InvalidGraph, errors.InvalidArgument) as error:
            raise ModelInvalid(f"{where}: not an ONNX model: {error}", reason="ModelCorrupt") from error
        except (errors.NotImplemented, errors.Fail, RuntimeError) as error:
            raise self._unsupported(str(error)) from error
        self._fixed, self.input = self._single(self._session.get_inputs(), "input")
        _, self.output = self._single(self._session.get_outputs(), "output")

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Return the model's output for each row: float32 (rows, …).

        Args:
            batch: (rows, …), as many rows as wanted, in the input's dtype.

        Raises:
            ValueError: the model does not give a row for each.
        """
        size = 1 if self._fixed else MOST_ROWS
        parts = [self._run(batch[start : start + size]) for start in range(0, len(batch), size)]
        if not parts:
            return np.empty((0, *self.output.shape[1:]), np.float32)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _run(self, rows: np.ndarray) -> np.ndarray:
        (answer,) = self._session.run(None, {self.input.name: np.ascontiguousarray(rows)})
        if answer.shape != (len(rows), *self.output.shape[1:]):
            raise ValueError(f"{len(rows)} rows gave an output of the shape {answer.shape}")
        real: np.ndarray = answer.astype(np.float32, copy=False)
        return real

    def _single(self, tensors: list[Any], side: str) -> tuple[bool, TensorSpec]:
        """Return whether the batch is fixed to 1, and the tensor."""
        if len(tensors) != 1:
            raise self._unsupported(f"{len(tensors)} {side} tensors; a classifier has one")
        tensor = tensors[0]
        dtype = _DTYPES.get(tensor.type)
        if dtype is None:
            raise self._unsupported(f"the {side} is {tensor.type}; {', '.join(DTYPES)} are understood")
        batch, *rest = tensor.shape or [0]
        if batch == 0 or (isinstance(batch, int) and batch != 1) or not all(isinstance(n, int) for n in rest):
            raise self._unsupported(
                f"the {side}'s shape is {tensor.shape}; the first must be the batch, open or 1, the others fixed"
            )
        spec = TensorSpec(name=tensor.name, shape=(1, *rest), dtype=dtype, scale=1.0, zero_point=0, quantised=False)
        return batch == 1, spec

    def _unsupported(self, why: str) -> ModelInvalid:
        return ModelInvalid(f"{self._where}: {why}", reason="ModelUnsupported")
