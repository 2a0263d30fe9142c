# SPDX-License-Identifier: Apache-2.0
"""The one place where logging is configured: JSON lines in a pod, readable lines on a terminal.

Events are constant texts; what varies is in ``extra`` and comes out as fields of the line.
"""

import json as json_
import logging
import sys
import time
from typing import Any, Final, TextIO

from nereid_shared.times import rfc3339_millis

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure(*, json: bool, level: int | str = logging.INFO, stream: TextIO | None = None) -> None:
    """Send all records of `level` and above to `stream` (standard error), one line each.

    May be called again: it replaces what an earlier call set up.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if json else ReadableLines())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)


class JsonLines(logging.Formatter):
    """One JSON object per line: time, level, logger, event, the extras, and the traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": rfc3339_millis(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **_extras(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json_.dumps(line, default=str, ensure_ascii=False)


class ReadableLines(logging.Formatter):
    """``12:00:00.123 INFO  nereid_edge.sync  applied  rev=7 tasks=2``, then the traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        fields = " ".join(f"{name}={_short(value)}" for name, value in _extras(record).items())
        line = f"{clock}.{int(record.msecs):03d} {record.levelname:<7} {record.name}  {record.getMessage()}"
        if fields:
            line = f"{line}  {fields}"
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return line


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _short(value: object) -> str:
    text = str(value)
    return json_.dumps(text, ensure_ascii=False) if not text or any(c.isspace() for c in text) else text
