# SPDX-License-Identifier: Apache-2.0
"""LiteRT behind a narrow face: a model file in, batches of tensors through, real numbers out.

`ai_edge_litert` where it is installed, else `tflite_runtime`. Nothing above this module knows which, nor that a batch
size costs an interpreter of its own with its own packed weights.
"""

import base64
import functools
import importlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from nereid_shared.errors import ModelInvalid, UserError

BUCKETS: Final = (1, 4, 8)
_BACK_ENDS: Final = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter")
DTYPES: Final = ("float32", "uint8", "int8")
# A model of one tensor that is input and output. tflite-runtime imports with numpy 2 and fails only here.
_PROBE: Final = base64.b64decode(
    "CAAAAFRGTDPC////FAAAACAAAAAoAAAApAAAAAMAAAABAAAACAAAAAQABAAEAAAABAAAAHRpbnkAAAAAAQAAABQAAAAAAA4AGAAUABAADAAIAAQADgAA"
    "ABQAAAAcAAAAHAAAACAAAAAkAAAABAAAAG1haW4AAAAAAAAAAAEAAAAAAAAAAQAAAAAAAAABAAAAEAAAAAwADAAIAAAAAAAEAAwAAAAIAAAADAAAAAIA"
    "AAB0MAAAAQAAAAEAAAAAAAAA"
)
# The largest value of the noise that tries a new batch size.
_NOISE: Final = {"float32": 1, "uint8": 255, "int8": 127}
# Rows of one batch may differ from the same rows alone by the order of additions, not by more.
_SAME_ROW: Final = 1e-2


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One tensor of a model: real = scale · (stored - zero_point).

    Attributes:
        shape: with the batch as 1.
        dtype: a numpy name.
        scale: 1 where the tensor is not quantised.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int
    quantised: bool


class Interpreter:
    """A loaded model with one input and one output. Not for several threads at once.

    Attributes:
        input, output: the tensors, as the file describes them.
        buckets: the batch sizes that the model can run; (1,) where its batch cannot be resized.
    """

    def __init__(self, content: bytes, *, threads: int = 1, where: str = "model") -> None:
        """Load the bytes of a ``.tflite`` file; `where` names it in errors.

        Raises:
            UserError: no back-end is installed, or the one that is does not work.
            ModelInvalid: ``ModelCorrupt``, or ``ModelUnsupported`` for operators or tensors that cannot be run here.
        """
        self._content, self._threads, self._where = content, threads, where
        single = self._allocated(1)
        self.input, self.output = self._single(single, "input"), self._single(single, "output")
        if self.input.shape[:1] != (1,):
            raise self._unsupported(
                f"the input's shape is {self.input.shape}; its first dimension must be a batch of 1"
            )
        self._runners = {1: _Runner(single, self.input, self.output)}
        self.buckets: tuple[int, ...] = BUCKETS

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Return the model's output for each row, in real numbers: float32 (rows, …).

        Args:
            batch: (rows, …), as many rows as wanted, in the input's dtype.
        """
        if len(batch) == 1:
            return self._runners[1].run(batch)
        parts, start = [], 0
        while start < len(batch):
            left = len(batch) - start
            # A bucket that is three quarters full costs less than several smaller ones.
            size = next((b for b in reversed(self.buckets) if left >= b * 3 / 4), 1)
            rows = batch[start : start + size]
            runner = self._runner(size)
            if runner is None:
                continue
            parts.append(runner.run(rows)[: len(rows)])
            start += len(rows)
        return np.concatenate(parts) if parts else np.empty((0, *self.output.shape[1:]), np.float32)

    def _runner(self, size: int) -> "_Runner | None":
        """Return the interpreter for a batch size, or None after finding that only smaller ones run."""
        if size not in self._runners:
            try:
                runner = _Runner(self._allocated(size), self.input, self.output)
            except ModelInvalid:
                self.buckets = (1,)
                return None
            if not self._agrees(runner):
                self.buckets = (1,)
                return None
            self._runners[size] = runner
        return self._runners[size]

    def _agrees(self, runner: "_Runner") -> bool:
        """Return whether a batch's last row comes out as it does alone: some graphs mix the rows."""
        noise = np.random.default_rng(0).random((runner.size, *self.input.shape[1:])) * _NOISE[self.input.dtype]
        rows = noise.astype(self.input.dtype)
        together, alone = runner.run(rows), self._runners[1].run(rows[-1:])
        room = _SAME_ROW + self.output.scale * self.output.quantised
        return len(together) == runner.size and np.allclose(
            together[-1], alone[0], rtol=_SAME_ROW, atol=room, equal_nan=True
        )

    def _allocated(self, size: int) -> Any:
        make = back_end()
        try:
            interpreter = make(model_content=self._content, num_threads=self._threads)
        except (ValueError, RuntimeError) as error:
            raise ModelInvalid(f"{self._where}: not a LiteRT model: {error}", reason="ModelCorrupt") from error
        try:
            if size > 1:
                given = interpreter.get_input_details()[0]
                interpreter.resize_tensor_input(given["index"], [size, *given["shape"][1:]])
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise self._unsupported(str(error)) from error
        return interpreter

    def _single(self, interpreter: Any, side: str) -> TensorSpec:
        details = getattr(interpreter, f"get_{side}_details")()
        if len(details) != 1:
            raise self._unsupported(f"{len(details)} {side} tensors; a classifier has one")
        spec = _spec(details[0])
        if spec.dtype not in DTYPES:
            raise self._unsupported(f"the {side} is {spec.dtype}; {', '.join(DTYPES)} are understood")
        return spec

    def _unsupported(self, why: str) -> ModelInvalid:
        return ModelInvalid(f"{self._where}: {why}", reason="ModelUnsupported")


class _Runner:
    """One allocated interpreter for one batch size."""

    def __init__(self, interpreter: Any, given: TensorSpec, answer: TensorSpec) -> None:
        self._interpreter, self._answer = interpreter, answer
        details = interpreter.get_input_details()[0]
        self._given, self._output = details["index"], interpreter.get_output_details()[0]["index"]
        self.size = int(details["shape"][0])
        self._padded = np.zeros((self.size, *given.shape[1:]), given.dtype)

    def run(self, rows: np.ndarray) -> np.ndarray:
        """Return all rows of the bucket in real numbers; what was not given is noise."""
        if len(rows) != self.size:
            self._padded[: len(rows)] = rows
            rows = self._padded
        self._interpreter.set_tensor(self._given, rows)
        self._interpreter.invoke()
        stored: np.ndarray = self._interpreter.get_tensor(self._output)
        if not self._answer.quantised:
            return stored.astype(np.float32, copy=False)
        return (stored.astype(np.float32) - self._answer.zero_point) * np.float32(self._answer.scale)


@functools.cache
def back_end() -> Any:
    """Return the class that makes interpreters.

    Raises:
        UserError: none is installed, or none works; names the extra, or the numpy to pin.
    """
    broken = ""
    for name in _BACK_ENDS:
        try:
            make = importlib.import_module(name).Interpreter
            make(model_content=_PROBE)
        except ModuleNotFoundError:
            continue
        except (ImportError, AttributeError, SystemError) as error:
            broken = f"{name.partition('.')[0]} is installed but does not work: {error}"
            continue
        return make
    if broken:
        raise UserError(broken, mend="pip install ai-edge-litert; tflite-runtime needs 'numpy<2'.")
    raise UserError("LiteRT is not installed", mend="pip install 'nereid-ai[worker]'")


def _spec(details: dict[str, Any]) -> TensorSpec:
    scale, zero_point = details["quantization"]
    quantised = bool(scale)
    return TensorSpec(
        name=str(details["name"]),
        shape=tuple(int(n) for n in details["shape"]),
        dtype=np.dtype(details["dtype"]).name,
        scale=float(scale) if quantised else 1.0,
        zero_point=int(zero_point) if quantised else 0,
        quantised=quantised,
    )
