# SPDX-License-Identifier: Apache-2.0
"""Numbers of a spec, which are decimal strings, and scores of a model, which are floats, on common ground.

A float stands here for the shortest decimal that identifies it, the one that Python prints: float32 0.9 is 0.9, not
0.89999997615814. So a score that a person reads as 0.9 is not below a threshold that a person wrote as "0.9".
"""

import re
from decimal import Decimal
from typing import Final

import numpy as np

from nereid_shared.errors import UserError

_DECIMAL: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,2})?")
_MAX_CHARACTERS: Final = 40


def parse_decimal(text: str, *, where: str, low: Decimal, high: Decimal) -> Decimal:
    """Return the decimal that a spec gives.

    Raises:
        UserError: it is not a number, or outside `low`..`high`; names `where` and the range.
    """
    mend = f'Give a decimal from {low} to {high} as a string, such as "{(low + high) / 2}".'
    if len(text) > _MAX_CHARACTERS or not _DECIMAL.fullmatch(text):
        raise UserError(f"{text[:_MAX_CHARACTERS]!r} is not a decimal", where=where, mend=mend)
    value = Decimal(text)
    if not low <= value <= high:
        raise UserError(f"{text} is out of range", where=where, mend=mend)
    return value


def shortest(values: np.ndarray) -> list[Decimal]:
    """Return each float as the shortest decimal that identifies it among the floats of the array's own width."""
    return [Decimal(str(value)) for value in values]
