# SPDX-License-Identifier: Apache-2.0
"""What a cloud worker says of itself."""

from typing import Protocol

from nereid_shared import topics
from nereid_shared.messages import ModelOutput, Task, WorkerInfo
from nereid_worker.info import Info


class Counted(Protocol):
    """What is told in figures: see `nereid_worker.cloud.CloudWorker`."""

    processed: int
    batches: int
    undecodable: int
    failed: int
    refused: int

    @property
    def model(self) -> ModelOutput:
        """What is told of the task's model."""


def cloud_info(task: Task, *, worker: str, counted: Counted) -> Info:
    """Return what one worker says of itself.

    Args:
        task: what it runs.
        worker: the Pod's name.
        counted: the worker.
    """

    def describe() -> WorkerInfo:
        return WorkerInfo(
            name=worker, namespace=task.namespace, owner_name=task.name, owner_kind=task.kind.lower(),
            status="starting", service=task.service, task_hash=task.hash,
            models=[counted.model],
            batches=counted.batches, processed=counted.processed, undecodable=counted.undecodable,
            failed=counted.failed, refused=counted.refused,
        )  # fmt: skip

    return Info(topic=topics.CLOUD_INFO.of(service=task.service, pod=worker), describe=describe)
