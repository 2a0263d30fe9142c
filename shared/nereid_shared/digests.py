# SPDX-License-Identifier: Apache-2.0
"""What both sides compute of a desired state: hashes, digests and their order (protocol, "Desired state")."""

import hashlib
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from nereid_shared.messages import Task, TaskRow, canonical_json


def task_hash(spec: Mapping[str, Any], refs: Mapping[str, Any]) -> str:
    """Return the sha256, in hex, of a task's content."""
    return hashlib.sha256(canonical_json({"spec": spec, "refs": refs})).hexdigest()


def sealed(task: Task) -> Task:
    """Return a task under the hash of all that its worker reads; another generation alone is the same task."""
    return replace(task, hash=hashlib.sha256(canonical_json(task.content(without={"hash", "generation"}))).hexdigest())


def digest_of(tasks: Mapping[str, TaskRow]) -> str:
    """Return the sha256, in hex, over the sorted (uid, generation, hash) of a node's tasks."""
    rows = sorted((uid, row.generation, row.hash) for uid, row in tasks.items())
    return hashlib.sha256(canonical_json(rows)).hexdigest()
