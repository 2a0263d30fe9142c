# SPDX-License-Identifier: Apache-2.0
"""What answers by default, noted on a node for the next process, which may find a target that fails."""

import logging
from pathlib import Path

from nereid_shared import topics
from nereid_shared.errors import MessageInvalid, MessageTooLarge
from nereid_shared.messages import ServedVersion

logger = logging.getLogger(__name__)


class Former:
    """A file with one version in it.

    Args:
        file: where; None notes nothing.

    Attributes:
        source: the version that an earlier process, or this one, noted; None where there is nothing, or nothing whole.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self.source: ServedVersion | None = None
        if file is not None:
            try:
                self.source = ServedVersion.decode(file.read_bytes(), max_bytes=topics.TASK.max_bytes)
            except (OSError, MessageInvalid, MessageTooLarge):
                logger.debug("nothing has served here before", extra={"file": str(file)})

    def note(self, source: ServedVersion) -> None:
        """Write down a version, unless that is what stands there; a disk that is full stops nothing."""
        if self._file is None or source == self.source:
            return
        self.source = source
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            made = self._file.with_suffix(".new")
            made.write_bytes(source.encode())
            made.replace(self._file)
        except OSError as error:
            logger.warning("what serves is not noted", extra={"file": str(self._file), "problem": str(error)})
