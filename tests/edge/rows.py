# SPDX-License-Identifier: Apache-2.0
"""Desired rows and documents as a GlobalManager makes them."""

from collections.abc import Mapping
from typing import Any

from nereid_shared.digests import digest_of, task_hash
from nereid_shared.messages import Desired, TaskRow

CLUSTER = "cluster-a"
SERVICE_UID = "5f0c2a10-0000-4000-8000-000000000001"
SERVICE_ID = "digits-5f0c2a10"
WORKER = "digits-edge-0"


def row(
    name: str = "digits",
    *,
    kind: str = "Dataset",
    generation: int = 1,
    spec: dict[str, Any] | None = None,
    refs: dict[str, Any] | None = None,
) -> TaskRow:
    spec, refs = spec if spec is not None else {"dataUrl": f"/data/{name}.csv", "format": "csv"}, refs or {}
    return TaskRow(
        kind=kind, namespace="default", name=name, generation=generation, hash=task_hash(spec, refs), spec=spec,
        refs=refs,
    )  # fmt: skip


def service_row(*, generation: int = 1, worker: str = WORKER, service: str = SERVICE_ID, **edge: Any) -> TaskRow:
    spec = {
        "edgeWorker": {
            "name": "edge",
            "model": {"name": "little"},
            "nodeName": "edge-0",
            "hardExampleAlgorithm": {
                "name": "Margin",
                "parameters": [{"key": "threshold", "value": "0.4"}],
                "budget": "0.2",
            },
            "deadline": "1s",
            "workerSpec": {"scriptDir": "", "scriptBootFile": "builtin:classify"},
            **edge,
        },
        "cloudWorker": {"name": "cloud", "model": {"name": "big"}, "nodeName": "cloud"},
    }
    refs = {
        "worker": worker,
        "service": service,
        "models": {
            "little": {"uid": "m", "generation": 1, "spec": {"modelUrl": "/m/little.tflite", "format": "tflite"}}
        },
        "datasets": {"frames": {"uid": "d", "generation": 1, "spec": {"dataUrl": "/data/frames.csv", "format": "csv"}}},
    }
    return row(kind="JointInferenceService", generation=generation, spec=spec, refs=refs)


def document(
    tasks: Mapping[str, TaskRow] | None = None, *, cluster: str = CLUSTER, epoch: int = 1, rev: int = 1
) -> Desired:
    held = dict(tasks or {})
    return Desired(cluster=cluster, epoch=epoch, rev=rev, digest=digest_of(held), tasks=held)
