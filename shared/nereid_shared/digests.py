# SPDX-License-Identifier: Apache-2.0
"""What both sides compute of a desired state: hashes, digests and their order (protocol, "Desired state")."""

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

from msgspec.structs import replace

from nereid_shared.messages import Task, TaskRow, canonical_json


def task_hash(spec: Mapping[str, Any], refs: Mapping[str, Any]) -> str:
    """Return the sha256, in hex, of a task's content."""
    return hashlib.sha256(canonical_json({"spec": spec, "refs": refs})).hexdigest()


def sealed(task: Task) -> Task:
    """Return a task under the hash of all that its worker reads; another generation alone is the same task."""
    return replace(task, hash=hashlib.sha256(canonical_json(content_of(task))).hexdigest())


def content_of(task: Task, *, without: Collection[str] = ()) -> dict[str, Any]:
    """Return all that a task's worker reads, as its hash covers it, but for some fields."""
    content = task.content(without={"hash", "generation", *without})
    # A field that came later: had it always a place here, every worker would start over with the version that has it.
    if "model" in content and not task.model.path:
        del content["model"]["path"]
    return content


def is_swap(one: Task, other: Task) -> bool:
    """Whether two tasks differ in nothing but the model, so that a worker goes from one to the other as it runs."""
    return content_of(one, without={"model"}) == content_of(other, without={"model"})


def digest_of(tasks: Mapping[str, TaskRow]) -> str:
    """Return the sha256, in hex, over the sorted (uid, generation, hash) of a node's tasks."""
    rows = sorted((uid, row.generation, row.hash) for uid, row in tasks.items())
    return hashlib.sha256(canonical_json(rows)).hexdigest()
