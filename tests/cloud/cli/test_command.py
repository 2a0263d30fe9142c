# SPDX-License-Identifier: Apache-2.0
"""What all commands share: options anywhere, help, exit codes, the parts that need no cluster."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.cloud.cli.conftest import TIMEOUT_S, Nereid, command

from nereid_cloud.cli import COMMANDS
from nereid_cloud.cli.ages import age, since
from nereid_cloud.cli.jsonpath import fill, find
from nereid_cloud.cli.manifests import documents
from nereid_cloud.cli.options import arranged, command_in
from nereid_cloud.cli.tables import pod_status
from nereid_shared.errors import UserError

pytestmark = pytest.mark.slow  # each test starts processes


def bare(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def test_help_lists_every_command() -> None:
    done = bare("--help")
    assert done.returncode == 0
    assert all(f"  {name} " in done.stdout for name in COMMANDS)


def test_a_version_is_printed() -> None:
    assert bare("version").stdout.startswith("nereid 0.")


def test_a_command_that_there_is_not_is_a_users_error() -> None:
    done = bare("gte")
    assert done.returncode == 2
    assert "No such command 'gte'" in done.stderr


def test_a_state_folder_without_a_cluster_is_named_with_its_mend(tmp_path: Path) -> None:
    done = bare("get", "jis", "--state", str(tmp_path))
    assert done.returncode == 2
    assert f"{tmp_path}: there is no cluster in this state folder. Start one with `nereid up`" in done.stderr


def test_a_folder_that_cannot_be_made_is_named_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    done = bare("up", "-d", "--state", str(tmp_path / "file" / "state"))
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path}/file/state: Not a directory. Look at the path and its disk\n"


def test_a_kubeconfig_that_there_is_not_is_named(tmp_path: Path) -> None:
    done = bare("--kubeconfig", str(tmp_path / "config"), "get", "jis")
    assert done.returncode == 2
    assert "there is no such kubeconfig" in done.stderr


def test_shared_options_may_follow_the_command(nereid: Nereid, state: Path) -> None:
    done = bare("get", "ns", "-o", "name", f"--state={state}")
    assert "namespace/default\n" in done.stdout


@pytest.mark.parametrize(
    ("given", "own", "expected"),
    [
        (["get", "jis", "--state", "x"], False, ["--state", "x", "get", "jis"]),
        (["--state=x", "get", "jis"], False, ["--state=x", "get", "jis"]),
        (["--state", "x", "up"], True, ["up", "--state", "x"]),
        (["delete", "a", "--wait=false"], False, ["delete", "a", "--no-wait"]),
        (["delete", "a", "--wait=true"], False, ["delete", "a", "--wait"]),
        (["get", "--", "--state"], False, ["get", "--", "--state"]),
    ],
)
def test_shared_options_are_put_where_click_reads_them(given: list[str], own: bool, expected: list[str]) -> None:
    assert arranged(given, command_in(given), own=own) == expected


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5, "<invalid>"), (-1, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (125, "2m5s"), (600, "10m"),
        (10799, "179m"), (10800, "3h"), (11000, "3h3m"), (28800, "8h"), (172799, "47h"), (172800, "2d"),
        (176400, "2d1h"), (691200, "8d"), (62985600, "729d"), (63072000, "2y"), (63158400, "2y1d"), (252288000, "8y"),
    ],
)  # fmt: skip
def test_an_age_is_shown_as_kubectl_shows_it(seconds: float, shown: str) -> None:
    assert age(seconds) == shown


def test_an_age_since_a_time_of_the_api() -> None:
    now = datetime(2026, 1, 1, 1, tzinfo=UTC)
    assert since("2026-01-01T00:00:00Z", now) == "60m"
    assert since("2026-01-01T00:59:59.500000Z", now) == "0s"
    assert (since(None, now), since("yesterday", now), since("2026-01-01", now)) == (
        "<unknown>", "<invalid>", "<invalid>",
    )  # fmt: skip


OBJECT = {
    "a": {"b.c": 1, "list": [{"type": "Ready", "n": 1}, {"type": "Other", "n": 2}]},
    "conditions": [{"type": "Pending"}, {"type": "Running"}],
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".a['b.c']", [1]),
        (r".a.b\.c", [1]),
        (".conditions[-1].type", ["Running"]),
        (".conditions[0].type", ["Pending"]),
        (".conditions[5].type", []),
        (".conditions[*].type", ["Pending", "Running"]),
        ('.a.list[?(@.type=="Ready")].n', [1]),
        ('.a.list[?(@.type=="None")].n', []),
        (".none.at.all", []),
        (".", [OBJECT]),
    ],
)
def test_a_jsonpath_finds(path: str, found: list[object]) -> None:
    assert find(path, OBJECT) == found


def test_a_jsonpath_that_is_not_understood_is_a_users_error() -> None:
    with pytest.raises(UserError, match="not understood"):
        find(".a[1:2]", OBJECT)


def test_a_template_is_filled() -> None:
    assert fill('types: {.conditions[*].type}{"\\n"}', OBJECT) == "types: Pending Running\n"


@pytest.mark.parametrize(
    ("phase", "state", "shown"),
    [
        ("Pending", {}, "Pending"),
        ("Running", {"waiting": {"reason": "CrashLoopBackOff"}}, "CrashLoopBackOff"),
        ("Failed", {"terminated": {"exitCode": 3}}, "ExitCode:3"),
        ("Failed", {"terminated": {"exitCode": 1, "reason": "Error"}}, "Error"),
    ],
)
def test_a_pods_status_is_what_its_containers_say(phase: str, state: dict[str, object], shown: str) -> None:
    status = {"phase": phase, "containerStatuses": [{"state": state}]}
    assert pod_status({"metadata": {}, "status": status}) == shown
    assert pod_status({"metadata": {"deletionTimestamp": "x"}, "status": status}) == "Terminating"


def test_a_date_is_text_and_a_field_has_its_line(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text("kind: Model\napiVersion: v1\nmetadata:\n  name: 2026-01-01\nspec:\n  list:\n  - a: 1\n  - a: 2\n")
    (document,) = documents([str(file)])
    assert document.obj["metadata"]["name"] == "2026-01-01"
    assert document.where("spec.list[1].a") == f"{file}:8: document 1 (Model 2026-01-01)"
    assert document.where("spec.absent.below") == f"{file}:5: document 1 (Model 2026-01-01)"
