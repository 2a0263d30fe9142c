# SPDX-License-Identifier: Apache-2.0
"""What the resources accept and refuse, and by which field's name."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.shared.resources.cases import CASES, DATASET, SERVICE, Case, changed

from nereid_shared.errors import Invalid
from nereid_shared.resources import (
    HARD_EXAMPLE_RULES,
    KINDS,
    JointInferenceService,
    JointInferenceServiceStatus,
    broken_rules,
    parse,
    rules_of,
)

SEEDS = Path(__file__).parents[2] / "seeds"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_manifest_is_accepted_or_refused_by_its_field(case: Case) -> None:
    if not case.refused:
        parse(case.manifest())
        return
    with pytest.raises(Invalid) as refusal:
        parse(case.manifest())
    assert [cause.field for cause in refusal.value.causes] == [case.refused]


@pytest.mark.parametrize("case", [case for case in CASES if case.refused and not case.by_schema], ids=lambda c: c.name)
def test_what_no_schema_can_say_is_said_by_one_rule(case: Case) -> None:
    assert [cause.field for cause in broken_rules(case.kind, case.manifest())] == [case.refused]


def test_a_dataset_stays_on_its_node() -> None:
    moved = changed(DATASET, {"spec.nodeName": "edge-1"})
    assert [cause.field for cause in broken_rules("Dataset", moved, DATASET)] == ["spec.nodeName"]
    assert broken_rules("Dataset", DATASET, DATASET) == ()


def test_a_rule_is_silent_where_its_field_is_absent() -> None:
    assert broken_rules("Dataset", {"spec": {}}, DATASET) == ()


def test_a_service_may_move_to_other_nodes() -> None:
    moved = changed(SERVICE, {"spec.edgeWorker.nodeSelector": None, "spec.edgeWorker.nodeName": "edge-7"})
    assert broken_rules("JointInferenceService", moved, SERVICE) == ()


@pytest.mark.parametrize("name", ["dataset", "model", "jointinferenceservice", "inferencemodel"])
def test_the_seeds_own_manifests_parse(name: str) -> None:
    parse(yaml.safe_load((SEEDS / f"{name}.yaml").read_text()))


def test_defaults_fill_what_a_seed_does_not_know() -> None:
    service = parse(yaml.safe_load((SEEDS / "jointinferenceservice.yaml").read_text()))
    assert isinstance(service, JointInferenceService)
    edge, cloud = service.spec.edge_worker, service.spec.cloud_worker
    assert (edge.deadline, edge.outbox.keep_for, edge.outbox.max_bytes) == ("1s", "1h", "256Mi")
    assert (cloud.replicas, cloud.batching.max_size, cloud.batching.max_wait_s) == (1, 8, 0.005)
    assert edge.outbox.max_bytes_per_second is None


def test_a_status_is_written_in_camel_case() -> None:
    status = JointInferenceServiceStatus.model_validate({"startTime": "2026-01-01T00:00:00Z", "heldBy": ["edge-0"]})
    assert status.model_dump(mode="json", by_alias=True, exclude_unset=True) == {
        "startTime": "2026-01-01T00:00:00Z",
        "heldBy": ["edge-0"],
    }


@pytest.mark.parametrize("obj", [{}, {"apiVersion": "v1", "kind": "Pod"}, {**DATASET, "apiVersion": "edgeai.io/v1"}])
def test_another_kind_is_refused(obj: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="not a kind of Nereid's"):
        parse(obj)


def test_every_rule_has_a_case_that_breaks_it() -> None:
    broken = {cause for case in CASES if not case.by_schema for cause in broken_rules(case.kind, case.manifest())}
    broken |= set(broken_rules("Dataset", changed(DATASET, {"spec.nodeName": "other"}), DATASET))
    messages = {cause.message for cause in broken}
    assert {rule.message for kind in KINDS for rule in rules_of(kind)} == messages


def test_the_known_rules_have_seeds_and_sednas_names() -> None:
    assert {name: dict(parameters) for name, parameters in HARD_EXAMPLE_RULES.items()} == {
        "Threshold": {"threshold": "0.5"},
        "CrossEntropy": {"threshold_cross_entropy": "0.5"},
        "IBT": {"threshold_img": "0.5", "threshold_box": "0.5"},
        "Margin": {"threshold": "0.5"},
        "Random": {"random_ratio": "0.3"},
        "CloudOnly": {},
        "EdgeOnly": {},
    }
