# SPDX-License-Identifier: Apache-2.0
"""A task's model as a file on this node, with its card and golden inputs beside it."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from nereid_shared.errors import ModelInvalid, UserError
from nereid_shared.messages import NO_GOLDEN_SAMPLES, ModelOutput, TaskModel
from nereid_shared.places import node_path
from nereid_worker.scratch import Scratch

if TYPE_CHECKING:  # it needs numpy, which an edge process may have to say is missing
    from nereid_worker.classifier import Classifier

FORMATS: Final = ("", "tflite", "litert", "onnx")
"""What `Model.spec.format` may say of a file that `nereid_worker.runtimes` is to run."""

MAX_MODEL_BYTES: Final = 2 * 1024**3


def name_of(model: TaskModel) -> str:
    """Return what answers call a model that a script loads by itself: its sha256 where it is known, else its name."""
    path = node_path(model.url)
    if path is not None and Path(path).is_file():
        try:
            with Path(path).open("rb") as content:
                return hashlib.file_digest(content, "sha256").hexdigest()
        except OSError:
            pass
    return model.sha256 or model.name


def on_this_node(model: TaskModel, *, into: Scratch | None, stop: Callable[[], bool] | None = None) -> Path:
    """Return the path of the model: where it stands on this node, or where it was downloaded to.

    Args:
        model: the task's.
        into: folder for downloads; None at the edge, where the LocalController has fetched what is elsewhere.
        stop: ends a download where it returns True.

    Raises:
        ModelInvalid, UserError, TemporaryError: see `nereid_shared.storage.Cache.obtain`; ``ModelUnsupported`` where
            the format is none that is run here.
    """
    if model.format.lower() not in FORMATS:
        raise ModelInvalid(
            f"Model {model.name}: spec.format is {model.format!r}, and this worker runs tflite and onnx. Convert the "
            "file, or let a script of the cloud worker load it by itself",
            reason="ModelUnsupported",
        )
    if model.path:
        return Path(model.path)
    if (path := node_path(model.url)) is not None:
        return Path(path)
    if into is None:
        raise UserError(
            "the LocalController has not fetched it to this node",
            where=f"Model {model.name}: {model.url}",
            mend="Update the LocalController: it is older than this worker.",
            reason="ModelNotPrepared",
        )
    from nereid_shared.storage import Cache, Wanted  # noqa: PLC0415 - an edge worker does without

    wanted = Wanted(url=model.url, sha256=model.sha256, max_bytes=MAX_MODEL_BYTES, companions=True)
    # Below the scratch folder, not in it: that is locked as long as this process lives.
    return Cache(into.path / "cache", max_bytes=MAX_MODEL_BYTES).obtain(wanted, stop=stop).path


def output_of(model: TaskModel, classifier: "Classifier | None") -> ModelOutput:
    """Return what is told of a model; `classifier` is None where it is not loaded."""
    named = ModelOutput(format=model.format, url=model.url, name=model.name)
    if classifier is None:
        return named
    reason = "" if classifier.card.golden else NO_GOLDEN_SAMPLES
    return replace(named, status="ready", digest=classifier.digest, bytes=classifier.size, reason=reason)
