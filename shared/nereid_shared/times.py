# SPDX-License-Identifier: Apache-2.0
"""Moments as RFC 3339 texts in UTC; each takes seconds since the epoch, by default those of now."""

import time


def rfc3339(at: float | None = None) -> str:
    """Return whole seconds, as Kubernetes' Time has them: ``2026-01-02T03:04:05Z``."""
    return _whole(time.time() if at is None else at) + "Z"


def rfc3339_millis(at: float | None = None) -> str:
    """Return milliseconds, for times that are compared: ``2026-01-02T03:04:05.678Z``."""
    at = time.time() if at is None else at
    return f"{_whole(at)}.{int(at % 1 * 1e3):03d}Z"


def rfc3339_micros(at: float | None = None) -> str:
    """Return Kubernetes' MicroTime; always six digits, since it refuses fewer: ``2026-01-02T03:04:05.000000Z``."""
    at = time.time() if at is None else at
    return f"{_whole(at)}.{int(at % 1 * 1e6):06d}Z"


def _whole(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))
