# SPDX-License-Identifier: Apache-2.0
from typing import Any

import pytest

from nereid_cloud.cluster.readiness import is_ready


def says(*conditions: dict[str, str]) -> dict[str, Any]:
    return {"status": {"conditions": list(conditions)}}


@pytest.mark.parametrize(
    ("obj", "ready"),
    [
        (None, False),
        ({}, False),
        ({"status": None}, False),
        (says(), False),
        (says({"type": "Running", "status": "True"}), False),
        (says({"type": "Ready", "status": "Unknown"}), False),
        (says({"type": "Ready", "status": "False"}), False),
        (says({"type": "Ready", "status": "True"}), True),
        (says({"type": "Running", "status": "False"}, {"type": "Ready", "status": "True"}), True),
    ],
)
def test_an_object_is_ready_only_by_its_own_word(obj: dict[str, Any] | None, ready: bool) -> None:
    assert is_ready(obj) is ready
