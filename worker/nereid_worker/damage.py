# SPDX-License-Identifier: Apache-2.0
"""Files of the state folder that are not what was written: a power cut, a bad disk, another program."""

from pathlib import Path
from typing import Final

KEPT: Final = 3
"""Damaged files kept of each name, since the disk of a device is small; the last one is replaced after that."""


def set_aside(path: Path, *, kept: int = KEPT) -> Path:
    """Rename a damaged file to ``<name>.damaged-<n>`` and return that; who looks for the cause finds it there."""
    names = [path.with_name(f"{path.name}.damaged-{number}") for number in range(1, kept + 1)]
    target = next((name for name in names if not name.exists()), names[-1])
    return path.replace(target)
