# SPDX-License-Identifier: Apache-2.0
"""The bound on the numbers by which the messages of one boot are taken in order."""

from typing import Final

MAX_STEP: Final = 2**32
"""A thousand messages a second for seven weeks: more than who listens again after the longest cut can have missed."""


def is_incredible(number: int, *, last: int) -> bool:
    """Whether a number is further ahead of the last of its boot, 0 where none came, than a boot ever gets.

    It is somebody else's, or damaged: taken in, it would have every later message of the boot ignored.
    """
    return number > last + MAX_STEP
