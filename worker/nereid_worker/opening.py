# SPDX-License-Identifier: Apache-2.0
"""What an edge worker's task names, opened; and what is told where that cannot be done."""

import logging
from typing import TYPE_CHECKING, Final

from nereid_shared.defaults import DATASET_FORMATS
from nereid_shared.errors import ModelInvalid, UserError
from nereid_shared.messages import TaskDataset, TaskModel
from nereid_worker.files import Files
from nereid_worker.models import on_this_node

if TYPE_CHECKING:
    from nereid_worker.classifier import Classifier

logger = logging.getLogger(__name__)

EXTRAS: Final = {"numpy": "worker", "ai_edge_litert": "worker", "cv2": "vision"}


def mendable(error: Exception) -> tuple[str, str] | None:
    """Return reason and message where trying again makes sense, None where the script itself is wrong."""
    if isinstance(error, ModuleNotFoundError):
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        return None if extra is None else ("ExtraMissing", f"{error}. pip install 'nereid-ai[{extra}]'")
    if isinstance(error, UserError):
        missing = "pip install 'nereid-ai[" in error.mend
        return error.reason or ("ExtraMissing" if missing else "TaskInvalid"), str(error)
    return (error.reason if isinstance(error, ModelInvalid) else "ModelUnavailable"), str(error)


def load_model(model: TaskModel) -> "Classifier":
    """Return a task's model, after its golden inputs gave the outputs that its card promises.

    Raises:
        ModelInvalid, UserError: it cannot be run here, or is not there.
    """
    from nereid_worker.classifier import Classifier  # noqa: PLC0415 - needs the extra [worker]

    classifier = Classifier.load(on_this_node(model, into=None), sha256=model.sha256)
    for warning in classifier.warnings:
        logger.warning("model", extra={"warning": warning})
    return classifier


def open_dataset(ref: TaskDataset) -> Files:
    """Return a task's dataset.

    Raises:
        UserError: its format is none that the LocalController counts.
    """
    if ref.format not in DATASET_FORMATS:
        raise UserError(
            f"format {ref.format!r}: known are {', '.join(DATASET_FORMATS)}",
            where=f"Dataset {ref.name}: spec.format",
            mend="Write one of them; let a script open anything else.",
            reason="DatasetFormatUnknown",
        )
    return Files(ref.url, ref.format)
