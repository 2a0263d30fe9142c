# SPDX-License-Identifier: Apache-2.0
"""A task's model as a file on this node, with its card and golden inputs beside it."""

import hashlib
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urljoin, urlsplit

from nereid_shared.card import FILE_NAME, MAX_BYTES, Card
from nereid_shared.errors import ModelInvalid
from nereid_shared.messages import TaskModel
from nereid_shared.storage import fetch
from nereid_worker.scratch import Scratch

FORMATS: Final = ("", "tflite", "litert")
"""What `Model.spec.format` may say of a file that LiteRT is to run."""

MAX_MODEL_BYTES: Final = 2 * 1024**3
MAX_GOLDEN_BYTES: Final = 16 * 1024**2


def name_of(model: TaskModel) -> str:
    """Return what answers call a model that a script loads by itself: its sha256 where it is known, else its name."""
    parts = urlsplit(model.url)
    file = Path(unquote(parts.path) if parts.scheme == "file" else model.url)
    if parts.scheme in {"", "file"} and file.is_file():
        try:
            with file.open("rb") as content:
                return hashlib.file_digest(content, "sha256").hexdigest()
        except OSError:
            pass
    return model.sha256 or model.name


def on_this_node(model: TaskModel, *, into: Path | Scratch) -> Path:
    """Return the path of the model: where it stands on this node, or where it was downloaded to.

    Args:
        model: the task's.
        into: folder for downloads.

    Raises:
        ModelInvalid, UserError, TemporaryError: see `nereid_shared.storage.fetch` and `nereid_shared.card.Card.load`;
            ``ModelUnsupported`` where the format is none that LiteRT runs.
    """
    if model.format.lower() not in FORMATS:
        raise ModelInvalid(
            f"Model {model.name}: spec.format is {model.format!r}, and this worker runs tflite. Convert the file, or "
            "let a script of the cloud worker load it by itself",
            reason="ModelUnsupported",
        )
    parts = urlsplit(model.url)
    if parts.scheme == "":
        return Path(model.url)
    if parts.scheme == "file" and parts.netloc in {"", "localhost"}:
        return Path(unquote(parts.path))
    folder = (into.path if isinstance(into, Scratch) else into) / hashlib.sha256(model.url.encode()).hexdigest()[:16]
    file = fetch(model.url, into=folder, sha256=model.sha256 or None, max_bytes=MAX_MODEL_BYTES)
    fetch(urljoin(model.url, FILE_NAME), into=folder, sha256=None, max_bytes=MAX_BYTES)
    for golden in Card.load(file).golden:
        fetch(
            urljoin(model.url, golden.input),
            into=(folder / golden.input).parent, sha256=None, max_bytes=MAX_GOLDEN_BYTES,
        )  # fmt: skip
    return file
