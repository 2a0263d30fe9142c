# SPDX-License-Identifier: Apache-2.0
"""How an error reaches the user: one line on stderr that says what to do, an exit code, never a traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from nereid_shared.errors import (
    AlreadyExists,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NereidError,
    NotFound,
    Unavailable,
    UserError,
)

FAILED: Final = 1
MENDABLE: Final = 2
_FROM_SERVER: Final = (NotFound, AlreadyExists, Conflict, Forbidden, Gone, Unavailable)


def note(text: str) -> None:
    """Write one line to stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def told(error: NereidError) -> int:
    """Write an error to stderr and return the exit code for it."""
    if isinstance(error, Invalid):
        for cause in error.causes:
            note(f"error: {error.what}: {cause.field}: {cause.message}")
        return MENDABLE
    if isinstance(error, _FROM_SERVER):
        note(f"Error from server ({type(error).__name__}): {error}")
        return FAILED
    note(f"error: {error}")
    return MENDABLE if isinstance(error, UserError) else FAILED


@contextmanager
def reported() -> Iterator[None]:
    """Turn what the body raises for the user into a line and an exit code."""
    try:
        yield
    except NereidError as error:
        sys.exit(told(error))
    except OSError as error:
        if error.filename is None:
            raise  # no file that the user could mend: a bug, with its traceback
        sys.exit(told(UserError(str(error.strerror), where=str(error.filename), mend="Look at the path and its disk")))
