# SPDX-License-Identifier: Apache-2.0
"""Waiting for something to become true, with an end."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(probe: Callable[[], T], what: str, *, within_s: float = 60.0) -> T:
    """Return the first truthy value of `probe`; fail where there is none in time."""
    end = time.monotonic() + within_s
    while not (value := probe()):
        assert time.monotonic() < end, f"waited {within_s} s in vain for {what}"
        time.sleep(0.05)
    return value
