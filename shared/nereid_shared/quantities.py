# SPDX-License-Identifier: Apache-2.0
"""The texts by which a spec says how long, how much and which share.

A spec holds no floats: durations are Go's (``1h30m``, ``500ms``), sizes are Kubernetes' (``256Mi``), shares are decimal
texts (``0.2``), so that what a user wrote is what is compared.
"""

import re
from decimal import Decimal
from typing import Final

# The patterns are read by CRD schemas (Go's RE2), by pydantic (Rust) and by `re`: only what all three know.
DURATION_PATTERN: Final = r"^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+$"
SIZE_PATTERN: Final = r"^[0-9]+(k|M|G|T|Ki|Mi|Gi|Ti)?$"
FRACTION_PATTERN: Final = r"^(0(\.[0-9]+)?|1(\.0+)?)$"
POSITIVE_FRACTION_PATTERN: Final = r"^(0\.[0-9]*[1-9][0-9]*|1(\.0+)?)$"

_SECONDS: Final = {
    "ns": Decimal("1e-9"), "us": Decimal("1e-6"), "ms": Decimal("1e-3"), "s": Decimal(1), "m": Decimal(60),
    "h": Decimal(3600),
}  # fmt: skip
_BYTES: Final = {
    "": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40,
}  # fmt: skip
_DURATION_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ns|us|ms|s|m|h)")
_SIZE_PARTS: Final = re.compile(r"([0-9]+)([A-Za-z]*)")


def matches(pattern: str, text: str) -> bool:
    """Tell whether the whole text has the pattern, as CEL's ``matches`` with ``^…$`` does.

    Python's ``$`` alone would let a trailing newline through.
    """
    return re.fullmatch(pattern, text) is not None


def duration_s(text: str) -> float:
    """Return a Go-style duration such as ``1h30m`` in seconds.

    Raises:
        ValueError: it is not one.
    """
    if not matches(DURATION_PATTERN, text):
        raise ValueError(f"{text!r} is not a duration such as 500ms, 1s or 1h30m")
    return float(sum(Decimal(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text)))


def size_bytes(text: str) -> int:
    """Return a size such as ``64Ki`` or ``10M`` in bytes.

    Raises:
        ValueError: it is not one.
    """
    parts = _SIZE_PARTS.fullmatch(text)
    if not parts or parts[2] not in _BYTES:
        raise ValueError(f"{text!r} is not a size such as 500k, 64Ki or 256Mi")
    return int(parts[1]) * _BYTES[parts[2]]
