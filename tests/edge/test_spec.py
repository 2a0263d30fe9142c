# SPDX-License-Identifier: Apache-2.0
import pytest
from tests.edge.rows import SERVICE_ID, WORKER, row, service_row

from nereid_edge.rows import OutboxPolicy
from nereid_edge.spec import SpecProblem, edge_task, relay_settings
from nereid_shared.messages import TaskRow


def test_the_edge_workers_task_is_what_the_spec_says() -> None:
    task = edge_task("uid", service_row(dataset={"name": "frames"}, deadline="250ms"))
    assert (task.role, task.service, task.deadline_s) == ("edge", SERVICE_ID, 0.25)
    assert (task.model.name, task.model.url) == ("little", "/m/little.tflite")
    assert task.rule is not None
    assert (task.rule.name, task.rule.parameters, task.rule.budget) == ("Margin", {"threshold": "0.4"}, "0.2")
    assert task.dataset is not None
    assert (task.dataset.url, task.dataset.format) == ("/data/frames.csv", "csv")


def test_a_dataset_by_labels_is_the_one_that_was_resolved_for_the_node() -> None:
    task = edge_task("uid", service_row(dataset={"labels": {"camera": "yes"}}))
    assert task.dataset is not None
    assert task.dataset.name == "frames"


def test_what_the_worker_does_not_read_does_not_restart_it() -> None:
    first = edge_task("uid", service_row())
    same = edge_task("uid", service_row(generation=2, outbox={"keepFor": "2h"}))
    other = edge_task("uid", service_row(generation=3, deadline="2s"))
    assert first.hash == same.hash != other.hash
    assert same.generation == 2


def test_the_outboxs_bounds_are_read_with_their_units() -> None:
    bounds = {"keepFor": "30m", "maxBytes": "1Mi", "maxBytesPerSecond": "64k", "maxSamples": 10, "maxAttempts": 3}
    settings = relay_settings(service_row(outbox=bounds))
    assert settings.policy == OutboxPolicy(
        keep_for_s=1800.0, max_bytes=2**20, max_samples=10, max_bytes_per_s=64_000, max_attempts=3
    )
    assert (settings.worker, settings.deadline_s) == (WORKER, 1.0)


@pytest.mark.parametrize(
    ("task", "reason", "says"),
    [
        (service_row(model={"name": "absent"}), "ModelNotFound", "absent"),
        (service_row(dataset={"name": "absent"}), "DatasetNotFound", "absent"),
        (service_row(deadline="soon"), "SpecInvalid", "spec.edgeWorker.deadline"),
        (service_row(workerSpec=None), "SpecInvalid", "spec.edgeWorker.workerSpec is missing"),
        (service_row(hardExampleAlgorithm={"name": "Margin", "budget": 0.2}), "SpecInvalid", "^rule.budget: "),
        (service_row(workerSpec={"scriptDir": 7}), "SpecInvalid", "^scriptDir: "),
        (service_row(hardExampleAlgorithm={"parameters": [{}]}), "SpecInvalid", "hardExampleAlgorithm"),
        (row(kind="JointInferenceService", spec={}), "SpecInvalid", "spec.edgeWorker is missing"),
    ],
)
def test_a_spec_that_cannot_run_says_why(task: TaskRow, reason: str, says: str) -> None:
    with pytest.raises(SpecProblem, match=says) as problem:
        edge_task("uid", task)
    assert problem.value.reason == reason


def test_outbox_bounds_without_sense_say_so() -> None:
    with pytest.raises(SpecProblem, match=r"spec\.edgeWorker\.outbox"):
        relay_settings(service_row(outbox={"keepFor": "ever"}))
