# SPDX-License-Identifier: Apache-2.0
"""``builtin:classify``: the service's dataset through the pair of models, answers into a log of JSON lines.

Parameters: ``fps`` paces the dataset (default: as fast as it goes), ``answers`` ``"false"`` writes no log.
"""

import json
import logging
import os
from pathlib import Path
from typing import Final, Literal, Self

from nereid_shared.errors import UserError
from nereid_worker.answers import Answer
from nereid_worker.edge import JointInference

log = logging.getLogger(__name__)

PREFIX: Final = "builtin:"
ANSWERS_FILE: Final = "answers.jsonl"
LOOK_AGAIN_S: Final = 2.0

Event = Literal["edge", "answer", "correction"]


class AnswerLog:
    """One JSON line per event: ``edge`` for each sample, ``answer`` for each hard one, ``correction`` for late ones.

    Each line is one write, so that a kill loses none that was handed over.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, event: Event, answer: Answer) -> None:
        """Append one event."""
        os.write(self._file, json.dumps({"event": event, **answer.as_json()}).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def interval_s(parameters: dict[str, str]) -> float:
    """Return the pace that ``fps`` asks for, in seconds; 0 for none.

    Raises:
        UserError: it is not a positive number.
    """
    text = parameters.get("fps", "")
    if not text:
        return 0.0
    try:
        fps = float(text)
    except ValueError:
        fps = 0.0
    if not 0.0 < fps <= 1e6:
        raise UserError(
            f"{text!r} is not a positive number of frames per second",
            where="edgeWorker.workerSpec.parameters[fps]",
            mend='Write for instance "25"',
        )
    return 1.0 / fps


def classify(service: JointInference, state: Path) -> None:
    """Answer the service's dataset from its cursor on.

    Raises:
        UserError: the service names no dataset.
    """
    if service.dataset is None:
        raise UserError(
            "builtin:classify has nothing to read", where="spec.edgeWorker.dataset", mend="Name a Dataset on this node"
        )
    service.dataset.interval_s = interval_s(service.parameters)
    if service.parameters.get("answers", "true") == "false":
        for _ in service.stream():
            pass
        return
    with AnswerLog(state / ANSWERS_FILE) as answers:
        service.on_correction = lambda answer: answers.write("correction", answer)
        for answer in service.stream(on_edge=lambda answer: answers.write("edge", answer)):
            if answer.is_hard:
                answers.write("answer", answer)


def look_after(service: JointInference, state: Path) -> None:
    """Log corrections after the dataset's end, until it grows."""
    source = service.dataset
    before = source.version() if source is not None else None
    with AnswerLog(state / ANSWERS_FILE) as answers:
        service.on_correction = lambda answer: answers.write("correction", answer)
        while source is None or source.version() == before:
            service.collect(LOOK_AGAIN_S)
