# SPDX-License-Identifier: Apache-2.0
"""A user's own Python behind the face of a runtime: a file ``estimator.py`` with a class ``Estimator``.

    class Estimator:
        input = {"name": "x", "datatype": "FP32", "shape": [-1, 4]}
        output = {"name": "y", "datatype": "FP32", "shape": [-1, 3]}

        def load(self, folder):  # a pathlib.Path: where this file stands, with what was shipped beside it
            self.weights = numpy.load(folder / "weights.npy")

        def predict(self, rows):  # (rows, 4) in, (rows, 3) out
            return rows @ self.weights

Its tensors are described as the Open Inference Protocol does. It is code, and runs as such: whoever may name a model's
URL may run code in the worker.
"""

import importlib.util
import logging
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from nereid_shared.errors import ModelInvalid
from nereid_worker.litert import TensorSpec

logger = logging.getLogger(__name__)

FILE_NAME: Final = "estimator.py"
CLASS_NAME: Final = "Estimator"
_DTYPES: Final = {"FP32": "float32", "UINT8": "uint8", "INT8": "int8"}


class Estimator(Protocol):
    """What a user writes.

    Attributes:
        input, output: name, datatype and shape of a tensor, with the batch as -1.
    """

    input: dict[str, Any]
    output: dict[str, Any]

    def load(self, folder: Path) -> None:
        """Prepare to predict; called once."""

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Return a row of output for each row of input; never called twice at once."""


class EstimatorRunner:
    """An estimator as a runtime. Not for several threads at once.

    Attributes:
        input, output: the tensors, with the batch as 1.
    """

    def __init__(self, file: Path) -> None:
        """Import the file and load its estimator.

        Raises:
            ModelInvalid: ``EstimatorFailed``: it raised, or lacks what it should have.
        """
        self._file = file
        try:
            self._estimator = _made(file)
            self._estimator.load(file.parent)
        except Exception as error:
            logger.exception("the estimator failed", extra={"file": str(file)})
            raise self._failed(f"{type(error).__name__}: {error}") from error
        self.input, self.output = self._spec("input"), self._spec("output")

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Return the estimator's output for each row: float32 (rows, …).

        Raises:
            RuntimeError: it raised; the log has the traceback.
            ValueError: its answer is not what `output` says.
        """
        if not len(batch):
            return np.empty((0, *self.output.shape[1:]), np.float32)
        try:
            answer = np.asarray(self._estimator.predict(batch))
        except Exception as error:
            logger.exception("the estimator failed", extra={"file": str(self._file), "rows": len(batch)})
            raise RuntimeError(f"{type(error).__name__}: {error}") from error
        wanted = (len(batch), *self.output.shape[1:])
        if answer.shape != wanted or answer.dtype.kind not in "fiu":
            raise ValueError(f"the estimator gave {answer.dtype} of shape {answer.shape}, not figures of {wanted}")
        return answer.astype(np.float32, copy=False)

    def _spec(self, side: str) -> TensorSpec:
        """Return a tensor as the estimator describes it."""
        said = getattr(self._estimator, side, None)
        try:
            batch, *sizes = said["shape"]  # type: ignore[index] # whatever it is, it may fail
            name, dtype = str(said["name"]), _DTYPES[said["datatype"]]  # type: ignore[index] # likewise
            if batch != -1 or not all(type(size) is int and size > 0 for size in sizes):
                raise ValueError(said["shape"])  # type: ignore[index] # likewise
        except (TypeError, KeyError, ValueError) as error:
            raise self._failed(
                f'{side} should be like {{"name": "x", "datatype": "FP32", "shape": [-1, 4]}}, not {said!r}; datatypes '
                f"are {', '.join(_DTYPES)}"
            ) from error
        return TensorSpec(name=name, shape=(1, *sizes), dtype=dtype, scale=1.0, zero_point=0, quantised=False)

    def _failed(self, why: str) -> ModelInvalid:
        return ModelInvalid(f"{self._file}: {why}", reason="EstimatorFailed")


def _made(file: Path) -> Estimator:
    """Return an estimator of the file's class, imported apart from those of other versions."""
    found = importlib.util.spec_from_file_location(f"nereid_estimator_{abs(hash(file))}", file)
    if found is None or found.loader is None:
        raise ImportError(f"{file} cannot be imported")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    made: Estimator = getattr(module, CLASS_NAME)()
    return made
