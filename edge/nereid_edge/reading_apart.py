# SPDX-License-Identifier: Apache-2.0
"""Datasets whose library takes more memory than the LocalController may: read by a process of their own."""

import subprocess
import sys
from collections.abc import Callable
from typing import Final

import msgspec

from nereid_shared.datasets import Dataset, Reading
from nereid_shared.errors import UserError

APART: Final = frozenset({"parquet"})
_LOOK_UP_S: Final = 0.5


class _Refused(msgspec.Struct):
    reason: str
    message: str


def read_apart(dataset: Dataset, *, is_wanted: Callable[[], bool]) -> Reading:
    """Return the sums over a dataset.

    Args:
        dataset: what is read.
        is_wanted: asked now and then; where it says no, the process ends.

    Raises:
        UserError: the process says why it cannot read it, or has ended without a word.
        OSError: the path cannot be read.
    """
    dataset.path.stat()
    command = [sys.executable, "-m", "nereid_shared.datasets", str(dataset.path), dataset.format]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        out, errors = _output(child, is_wanted)
    if child.returncode == 0:
        return msgspec.json.decode(out, type=Reading)
    try:
        said = msgspec.json.decode(out, type=_Refused)
    except msgspec.DecodeError:
        last = errors.decode(errors="replace").strip().rpartition("\n")[2]
        said = _Refused("DatasetUnreadable", f"its reader ended with code {child.returncode}. {last}".strip())
    raise UserError(said.message, reason=said.reason)


def _output(child: "subprocess.Popen[bytes]", is_wanted: Callable[[], bool]) -> tuple[bytes, bytes]:
    while is_wanted():
        try:
            return child.communicate(timeout=_LOOK_UP_S)
        except subprocess.TimeoutExpired:
            continue
    child.kill()
    return child.communicate()
