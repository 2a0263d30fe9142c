# SPDX-License-Identifier: Apache-2.0
"""Which model an edge worker serves, and which it served before, on disk.

So a model that takes its process along within its probation is not taken again, and the former one is. What a life
leaves is whether its model was on probation, and whether it ended in order; one that ended with its machine did not end
because of its model, and the probation begins anew.
"""

import logging
import os
from pathlib import Path
from typing import Final

from nereid_shared.errors import MessageInvalid, MessageTooLarge
from nereid_shared.messages import Body, TaskModel

logger = logging.getLogger(__name__)

FILE: Final = "models.json"
_MAX_BYTES: Final = 1 << 20
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class _Record(Body, kw_only=True):
    """What is on disk.

    Attributes:
        present, former: the model that serves, and the last one before it that passed; None where there is none.
        is_on_probation: `present` has not served for long enough.
        running: id of the machine's boot under which a process serves; "" where it has ended in order.
        refused: the model that ended with its process.
    """

    present: TaskModel | None = None
    former: TaskModel | None = None
    is_on_probation: bool = False
    running: str = ""
    refused: TaskModel | None = None


class Slots:
    """The record of a service's models. A file that cannot be read begins anew; one that cannot be written is told.

    Args:
        folder: the state folder.
        machine: id of the machine's boot; by default as Linux has it.

    Attributes:
        rolled_back: the model that the last process ended with, where the former one was put back for that now.
    """

    def __init__(self, folder: Path, *, machine: str | None = None) -> None:
        self._path = folder / FILE
        self._machine = _boot_id() if machine is None else machine
        self._record = self._read()
        self.rolled_back: TaskModel | None = None
        self._roll_back()

    @property
    def present(self) -> TaskModel | None:
        """The model that served last."""
        return self._record.present

    @property
    def is_on_probation(self) -> bool:
        """Whether a crash of this process would put the former model back."""
        return self._record.is_on_probation

    def refuses(self, model: TaskModel) -> bool:
        """Whether a process has ended with this model; under another URL or digest it is another model."""
        return self._record.refused is not None and same_file(self._record.refused, model)

    def serve(self, model: TaskModel) -> None:
        """Take down that a model serves from now on; before it does, since it may be the end of the process."""
        record = self._record
        if record.present is None or not same_file(record.present, model):
            # A model that is on probation itself is none to go back to.
            former = record.former if record.is_on_probation else record.present
            is_new = former is not None and not same_file(former, model)
            self._record = _Record(
                present=model, former=former if is_new else None, is_on_probation=is_new, running=self._machine
            )
        else:
            self._record = _Record(
                present=model, former=record.former, is_on_probation=record.is_on_probation, running=self._machine,
                refused=record.refused,
            )  # fmt: skip
        self._save()

    def passed(self) -> None:
        """End the probation: the model has served for long enough."""
        record = self._record
        self._record = _Record(present=record.present, former=record.former, running=record.running)
        self._save()

    def ended(self) -> None:
        """Take down that the process ends in order."""
        record = self._record
        if record.running:
            self._record = _Record(
                present=record.present, former=record.former, is_on_probation=record.is_on_probation,
                refused=record.refused,
            )  # fmt: skip
            self._save()

    def _roll_back(self) -> None:
        record = self._record
        if record.is_on_probation and record.former is not None and record.running == self._machine:
            self._record = _Record(present=record.former, refused=record.present)
            self.rolled_back = record.present
            self._save()

    def _read(self) -> _Record:
        try:
            return _Record.decode(self._path.read_bytes(), max_bytes=_MAX_BYTES, topic=str(self._path))
        except FileNotFoundError:
            return _Record()
        except (OSError, MessageInvalid, MessageTooLarge) as error:
            logger.warning("what model served last is not known", extra={"problem": str(error)})
            return _Record()

    def _save(self) -> None:
        draft = self._path.with_suffix(".new")
        try:
            with draft.open("wb") as out:
                out.write(self._record.encode())
                out.flush()
                os.fsync(out.fileno())
            draft.replace(self._path)
        except OSError as error:
            logger.warning("a crash could not be told from an orderly end", extra={"problem": str(error)})


def same_file(one: TaskModel, other: TaskModel) -> bool:
    """Whether two tasks mean the same file, whatever they call it."""
    return (one.url, one.sha256, one.path, one.format) == (other.url, other.sha256, other.path, other.format)


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return "unknown"
