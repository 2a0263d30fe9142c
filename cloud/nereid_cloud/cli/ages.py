# SPDX-License-Identifier: Apache-2.0
"""Times as kubectl shows them: ``45s``, ``5m12s``, ``3h``, ``2d4h``."""

from datetime import UTC, datetime
from typing import Any, Final

# Below each bound (in seconds) an age shows one unit, and the rest in a smaller one where that is given.
_STEPS: Final = (
    (120, (1, "s"), None),
    (600, (60, "m"), (1, "s")),
    (3 * 3600, (60, "m"), None),
    (8 * 3600, (3600, "h"), (60, "m")),
    (48 * 3600, (3600, "h"), None),
    (8 * 86400, (86400, "d"), (3600, "h")),
    (2 * 365 * 86400, (86400, "d"), None),
    (8 * 365 * 86400, (365 * 86400, "y"), (86400, "d")),
)
_YEAR: Final = 365 * 86400
# A clock that is a little behind the server's is no error.
_TOLERATED_S: Final = -2


def age(seconds: float) -> str:
    """Return a duration in one or two units."""
    if seconds <= _TOLERATED_S:
        return "<invalid>"
    whole = max(0, int(seconds))
    for bound, (unit, letter), rest in _STEPS:
        if whole < bound:
            shown = f"{whole // unit}{letter}"
            left = whole % unit // rest[0] if rest else 0
            return f"{shown}{left}{rest[1]}" if rest and left else shown
    return f"{whole // _YEAR}y"


def since(time: Any, now: datetime) -> str:
    """Return the age of a time as the API writes it."""
    if not time:
        return "<unknown>"
    try:
        return age((now - datetime.fromisoformat(str(time))).total_seconds())
    except (ValueError, TypeError):
        return "<invalid>"


def now() -> datetime:
    """Return the time, with its zone."""
    return datetime.now(UTC)
