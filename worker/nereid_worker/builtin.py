# SPDX-License-Identifier: Apache-2.0
"""``builtin:classify``: the service's dataset through the pair of models, answers into a log of JSON lines.

Parameters: ``fps`` paces the dataset (default: as fast as it goes), ``answers`` ``"false"`` writes no log.
"""

import json
import logging
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, Self

from nereid_shared.defaults import CLASSIFY
from nereid_shared.errors import UserError
from nereid_worker.answers import Answer
from nereid_worker.edge import JointInference
from nereid_worker.sources import Source

logger = logging.getLogger(__name__)

ANSWERS_FILE: Final = "answers.jsonl"
ANSWERS_MAX_BYTES: Final = 32 * 1024 * 1024
"""Of one file, some 60,000 samples; there are at most two. The demo, which reads along, has below 2,000 samples."""

Event = Literal["edge", "answer", "correction"]


class AnswerLog:
    """One JSON line per event: ``edge`` for each sample, ``answer`` for each hard one, ``correction`` for late ones.

    Each line is one write, so that a kill loses none that was handed over. After a kill the sample in flight comes
    again, under its key. Hard samples that were waiting then have no ``answer``, since who waited is gone: what the
    cloud says of them is a ``correction``.

    A file that is full becomes ``<name>.1``, in place of the one that was that before.
    """

    def __init__(self, path: Path, *, max_bytes: int = ANSWERS_MAX_BYTES) -> None:
        self._path, self._max_bytes = path, max_bytes
        self._open()
        # A full disk may have torn the last line.
        self._is_torn = self._size > 0 and os.pread(self._file, 1, self._size - 1) != b"\n"

    def _open(self) -> None:
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._size = os.fstat(self._file).st_size

    def write(self, event: Event, answer: Answer) -> None:
        """Append one event. A full disk costs lines of the log, which a warning tells, and never an answer."""
        line = json.dumps({"event": event, **answer.as_json()}).encode() + b"\n"
        if self._size and self._size + len(line) > self._max_bytes:
            self._begin_another()
        if self._is_torn:
            line = b"\n" + line
        try:
            written = os.write(self._file, line)
        except OSError as error:
            logger.warning("answer not logged", extra={"key": answer.key, "problem": error.strerror})
            return
        self._size += written
        self._is_torn = written < len(line)
        if self._is_torn:
            logger.warning("answer not logged", extra={"key": answer.key, "problem": "the disk is full"})

    def _begin_another(self) -> None:
        try:
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        except OSError as error:
            logger.warning("the log of answers grows on", extra={"problem": error.strerror})
            self._size = 0  # tried again after as much again
            return
        os.close(self._file)
        self._open()
        self._is_torn = False

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class NoLog:
    """What stands for the log where none is wanted."""

    def write(self, event: Event, answer: Answer) -> None:
        """Write nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        """Nothing to close."""


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
        fps = math.nan
    if not 0.0 < fps <= 1e6:
        raise UserError(
            f"{text!r} is not a positive number of frames per second",
            where="edgeWorker.workerSpec.parameters[fps]",
            mend='Write for instance "25".',
        )
    return 1.0 / fps


def classify(service: JointInference, state: Path, *, on_end: Callable[[], None], on_more: Callable[[], None]) -> None:
    """Answer the service's dataset from its cursor on, and what is added to it later; never returns.

    Args:
        service: the service.
        state: folder of the log.
        on_end: called when all samples there are were answered; corrections still come.
        on_more: called when the dataset has grown.

    Raises:
        UserError: the service names no dataset, it has vanished, or a parameter has no sense.
    """
    source = service.dataset
    if source is None:
        raise UserError(
            f"{CLASSIFY} has nothing to read", where="spec.edgeWorker.dataset", mend="Name a Dataset on this node."
        )
    source.interval_s = interval_s(service.parameters)
    with NoLog() if service.parameters.get("answers") == "false" else AnswerLog(state / ANSWERS_FILE) as answers:
        service.on_correction = lambda answer: answers.write("correction", answer)
        while True:
            for answer in service.stream(on_edge=lambda answer: answers.write("edge", answer)):
                if answer.is_hard:
                    answers.write("answer", answer)
            on_end()
            wait_for_more(service, source, service.dataset_version)
            on_more()


def wait_for_more(service: JointInference, source: Source | None, before: object) -> None:
    """Take in corrections until the source's version is another than `before`; without a source, for ever."""
    while source is None or source.version() == before:
        service.look_after()
