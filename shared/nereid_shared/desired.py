# SPDX-License-Identifier: Apache-2.0
"""What both sides compute of a desired state: hashes, digests and their order (protocol, "Desired state")."""

import hashlib
from collections.abc import Mapping
from typing import Any

from nereid_shared.messages import TaskRow, canonical_json


def task_hash(spec: Mapping[str, Any], refs: Mapping[str, Any]) -> str:
    """Return the sha256, in hex, of a task's content."""
    return hashlib.sha256(canonical_json({"spec": spec, "refs": refs})).hexdigest()


def digest_of(tasks: Mapping[str, TaskRow]) -> str:
    """Return the sha256, in hex, over the sorted (uid, generation, hash) of a node's tasks."""
    rows = sorted((uid, row.generation, row.hash) for uid, row in tasks.items())
    return hashlib.sha256(canonical_json(rows)).hexdigest()
