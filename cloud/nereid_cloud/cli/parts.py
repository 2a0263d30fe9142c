# SPDX-License-Identifier: Apache-2.0
"""The logs of a laptop's own parts: ``nereid logs gm``, ``nereid logs lc/edge-0``, ``nereid logs broker/cloud``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from nereid_cloud.cluster import local_logs
from nereid_cloud.laptop import statelock
from nereid_shared.errors import UserError

_SINGLE: Final = frozenset({"gm", "links", "controllers", "up"})
_PER_NODE: Final = frozenset({"lc", "broker", "podrunner"})


def is_part(target: str) -> bool:
    """Whether the words of a command line mean a part of the system, not a Pod."""
    kind, slash, _ = target.partition("/")
    return kind in (_PER_NODE if slash else _SINGLE)


def part_lines(state: Path, target: str, *, follow: bool, tail: int | None) -> Iterator[str]:
    """Return the lines of a part's log; followed ones end with the system.

    Raises:
        UserError: no such part ran on this state folder.
    """
    file = state / "up.log" if target == "up" else state / "logs" / f"{target.replace('/', '-')}.log"
    if not file.is_file():
        there = ", ".join(sorted(map(_word, (state / "logs").glob("*.log"))))
        mend = f"There are {there}" if there else "Start a system: nereid up"
        raise UserError("no such part has run here", where=target, mend=mend)
    return local_logs.lines(file, tail=tail, follow=follow, ended=lambda: not statelock.is_held(state))


def _word(file: Path) -> str:
    kind, dash, node = file.stem.partition("-")
    return f"{kind}/{node}" if dash else kind
