# SPDX-License-Identifier: Apache-2.0
"""SDK and runtimes of the workers: the little model at the edge, the big model in the cloud."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nereid_worker.answers import Answer as Answer
    from nereid_worker.cloud import CloudWorker as CloudWorker
    from nereid_worker.edge import JointInference as JointInference
    from nereid_worker.files import Files as Files
    from nereid_worker.rules import RULES as RULES
    from nereid_worker.rules import Rule as Rule
    from nereid_worker.sources import Live as Live
    from nereid_worker.sources import camera as camera

_EXPORTS = {
    "Answer": "answers",
    "CloudWorker": "cloud",
    "Files": "files",
    "JointInference": "edge",
    "Live": "sources",
    "RULES": "rules",
    "Rule": "rules",
    "camera": "sources",
}

__all__ = list(_EXPORTS)


def __getattr__(name: str) -> Any:
    """Import on first use: an edge script does without the cloud's parts, and the other way round."""
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - as lazy as the rest

    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)
