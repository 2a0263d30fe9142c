# SPDX-License-Identifier: Apache-2.0
"""From an InferenceModel's spec, in the API's camelCase, to what its workers serve.

The GlobalManager reads it for workers in the cloud, the LocalController for its node's: as a dictionary, since the
resources' models would double what the latter keeps in memory.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from msgspec.structs import replace

from nereid_shared.defaults import BATCH_SIZE, BATCH_WAIT, SERVING_PORT
from nereid_shared.messages import ServedVersion, ServingTask, canonical_json
from nereid_shared.quantities import duration_s

EDGE: Final = "edge"
SERVING_ROLE: Final = "serving"
"""What a serving worker's Pod is labelled as, and what its `environment.ROLE` is."""

LIVE_PATH: Final = "/v2/health/live"
READY_PATH: Final = "/v2/health/ready"
"""Where a serving worker answers by its status: that it is there; that it serves its target."""


def versions_of(spec: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the files of the manifest by version."""
    return {one["version"]: one for one in spec.get("manifest") or ()}


def target_of(spec: Mapping[str, Any]) -> str:
    """Return the version that is to be served: without a word of it the manifest's last one, "" where there is none."""
    return str(spec.get("targetVersion") or next(reversed(versions_of(spec)), ""))


def port_of(spec: Mapping[str, Any]) -> int:
    """Return the port on which it is served."""
    return int(spec.get("servingPort") or SERVING_PORT)


def serving_task(spec: Mapping[str, Any], *, uid: str, namespace: str, name: str, generation: int) -> ServingTask:
    """Return what a worker serves.

    Its `hash` covers what the worker reads: a change elsewhere, such as of the replicas, touches none.

    Raises:
        KeyError, TypeError, ValueError: a field is missing or malformed.
        MessageInvalid: a field has a value of another kind or range than its own.
    """
    batching = spec.get("batching") or {}
    versions = [
        ServedVersion(version=version, url=file["downloadURL"], sha256=file.get("sha256sum") or "")
        for version, file in versions_of(spec).items()
    ]
    task = ServingTask(
        uid=uid,
        namespace=namespace,
        name=name,
        generation=generation,
        hash="",
        model_name=spec["modelName"],
        framework=spec["frameworkType"],
        target=target_of(spec),
        versions=versions,
        port=port_of(spec),
        max_batch=batching.get("maxSize", BATCH_SIZE),
        max_wait_s=duration_s(batching.get("maxWait", BATCH_WAIT)),
    ).checked()
    return sealed(task)


def sealed(task: ServingTask) -> ServingTask:
    """Return a task under the hash of all that its worker reads; another generation alone is the same task."""
    content = canonical_json(task.content(without={"hash", "generation"}))
    return replace(task, hash=hashlib.sha256(content).hexdigest())
