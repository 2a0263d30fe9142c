# SPDX-License-Identifier: Apache-2.0
"""The same command on a real API server."""

import subprocess
from pathlib import Path

import pytest
import yaml
from tests.cloud.cli.conftest import TIMEOUT_S, command
from tests.cluster.control_plane import ApiServer
from tests.shared.resources.cases import SERVICE, changed

pytestmark = pytest.mark.cluster
NAME = "by-kubeconfig"


def test_a_service_is_applied_shown_and_deleted_by_kubeconfig(api_server: ApiServer, tmp_path: Path) -> None:
    def nereid(*arguments: str) -> subprocess.CompletedProcess[str]:
        argv = command(*arguments, "--kubeconfig", str(api_server.kubeconfig))
        return subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)

    file = tmp_path / "service.yaml"
    service = changed(SERVICE, {"metadata.name": NAME})
    file.write_text(yaml.safe_dump(changed(service, {"spec.edgeWorker.deadLine": "1s"})))
    refused = nereid("apply", "-f", str(file))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert 'did you mean "spec.edgeWorker.deadline"?' in refused.stderr

    file.write_text(yaml.safe_dump(service))
    called = f"jointinferenceservice.neptune.io/{NAME}"
    assert nereid("apply", "-f", str(file)).stdout == f"{called} created\n"
    assert nereid("apply", "-f", str(file)).stdout == f"{called} unchanged\n"
    assert nereid("get", "jis", NAME, "--no-headers").stdout.split()[0] == NAME
    assert nereid("wait", f"jis/{NAME}", "--for=condition=Ready", "--timeout=200ms").returncode == 1
    deleted = nereid("delete", "-f", str(file))
    assert deleted.stdout == f'jointinferenceservice.neptune.io "{NAME}" deleted from default namespace\n'
    assert "NotFound" in nereid("get", f"jis/{NAME}").stderr
