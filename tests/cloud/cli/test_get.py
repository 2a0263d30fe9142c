# SPDX-License-Identifier: Apache-2.0
"""``nereid get``: kubectl's tables and forms."""

import json
import signal
import subprocess
import sys
import threading

import pytest
import yaml
from tests.cloud.cli.conftest import Nereid, Start
from tests.cloud.cli.objects import SERVICE_REF, condition, pod, service
from tests.shared.resources.cases import DATASET, MODEL

from nereid_cloud.cluster import kinds
from nereid_cloud.cluster.local import LocalCluster
from nereid_cloud.cluster.port import Ref

pytestmark = pytest.mark.slow  # each test starts processes


def cells(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_a_service_has_the_seeds_columns_then_ready_and_reason(nereid: Nereid, cluster: LocalCluster) -> None:
    service(cluster, condition("Ready", "False", "ModelNotFound"), condition("Pending", "True"), active=1, failed=0)
    head, row = cells(nereid("get", "jis").stdout)
    assert head == ["NAME", "STATUS", "ACTIVE", "FAILED", "AGE", "READY", "REASON"]
    assert row[:4] == ["digits", "Pending", "1", "0"]
    assert row[5:] == ["False", "ModelNotFound"]


METRICS = [
    {"key": key, "value": value}
    for key, value in {"seen": "9", "hard": "4", "pending": "1", "uploadCloudRatio": "0.33"}.items()
]


def test_the_wide_form_and_a_watch_have_the_counts(nereid: Nereid, started: Start, cluster: LocalCluster) -> None:
    service(cluster, condition("Ready", "True", "AllUp"), condition("Running", "True"), metrics=METRICS)
    head, row = cells(nereid("get", "jis", "-o", "wide").stdout)
    assert head[-4:] == ["SEEN", "HARD", "PENDING", "RATIO"]
    assert row[-4:] == ["9", "4", "1", "0.33"]
    watching = started("get", "jis", "-w")
    assert watching.stdout is not None
    assert watching.stdout.readline().split()[-4:] == head[-4:]
    assert watching.stdout.readline().split()[-4:] == row[-4:]


def test_listing_loads_neither_models_nor_definitions() -> None:
    """Half of the time of a short command went into them."""
    words = ["get", "nereid", "--state", "/nowhere"]
    code = "import sys; from nereid_cloud.cli import main\ntry: main(sys.argv[1:])\nexcept SystemExit: pass\n"
    code += "import nereid_cloud.cluster.local; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True).stdout
    assert "nereid_cloud.cli.get" in loaded.split()
    assert not {"nereid_shared.resources", "nereid_cloud.crds", "yaml", "rich", "kubernetes"} & set(loaded.split())


def test_columns_are_three_spaces_apart_as_kubectls(nereid: Nereid, cluster: LocalCluster) -> None:
    cluster.create(MODEL)
    ref = Ref(kind=kinds.MODEL, name="little", namespace="default")
    cluster.patch(ref, {"status": {"metrics": [{"key": "accuracy", "value": "0.7"}]}}, subresource="status")
    head, row = nereid("get", "models").stdout.splitlines()
    assert head == "NAME     UPDATEAGE   METRICS                              READY   REASON"
    assert row.rstrip() == 'little               [{"key":"accuracy","value":"0.7"}]'


def test_the_category_shows_each_kind_in_a_table_of_its_own(nereid: Nereid, cluster: LocalCluster) -> None:
    service(cluster)
    cluster.create(DATASET)
    cluster.create(MODEL)
    names = [line.split()[0] for line in nereid("get", "nereid").stdout.splitlines() if line]
    assert names == [
        "NAME", "dataset.edgeai.io/digits", "NAME", "model.edgeai.io/little",
        "NAME", "jointinferenceservice.neptune.io/digits",
    ]  # fmt: skip


def test_pods_have_kubectls_columns(nereid: Nereid, cluster: LocalCluster) -> None:
    pod(cluster, "edge-worker")
    head, row = cells(nereid("get", "po", "-o", "wide").stdout)
    assert head == ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE"]
    assert [*row[:4], *row[5:]] == ["edge-worker", "1/1", "Running", "2", "<none>", "edge-0"]


def test_rows_are_sorted_and_chosen_by_labels(nereid: Nereid, cluster: LocalCluster) -> None:
    for name, app in (("c", "x"), ("a", "x"), ("b", "y")):
        pod(cluster, name, labels={"app": app})
    assert nereid("get", "pods", "-o", "name", "-l", "app=x").stdout == "pod/a\npod/c\n"
    assert [row[0] for row in cells(nereid("get", "pods", "--no-headers").stdout)] == ["a", "b", "c"]


def test_all_namespaces_have_a_column(nereid: Nereid, cluster: LocalCluster) -> None:
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "lab"}})
    cluster.create({**MODEL, "metadata": {"name": "little", "namespace": "lab"}})
    head, row = cells(nereid("get", "models", "-A").stdout)
    assert (head[:2], row[:2]) == (["NAMESPACE", "NAME"], ["lab", "little"])


def test_one_object_is_printed_whole(nereid: Nereid, cluster: LocalCluster) -> None:
    cluster.create(MODEL)
    assert yaml.safe_load(nereid("get", "model/little", "-o", "yaml").stdout)["spec"] == MODEL["spec"]
    assert json.loads(nereid("get", "model", "little", "-o", "json").stdout)["spec"] == MODEL["spec"]
    assert json.loads(nereid("get", "models", "-o", "json").stdout)["items"][0]["spec"] == MODEL["spec"]
    template = 'jsonpath={.metadata.name}={.spec.format}{"\\n"}'
    assert nereid("get", "model/little", "-o", template).stdout == "little=tflite\n"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["jis"], 0, "No resources found in default namespace."),
        (["nodes"], 0, "No resources found"),
        (["jis", "none"], 1, 'Error from server (NotFound): jointinferenceservices.neptune.io "none" not found'),
        (["jis", "none", "--ignore-not-found"], 0, ""),
        (["nonsense"], 2, 'the server doesn\'t have a resource type "nonsense"'),
        (["jis/"], 2, "this is not KIND/NAME"),
        (["nereid", "digits"], 2, "names do not go with it"),
        (["jis", "-o", "toml"], 2, "there is no output 'toml'"),
        (["jis", "digits", "-A"], 2, "cannot be asked for by name in all namespaces"),
        (
            [],
            2,
            "There are datasets, models, jointinferenceservices (jis), inferencemodels (infm), pods (po), nodes (no)",
        ),
    ],
)
def test_what_is_not_there_is_said_on_stderr(nereid: Nereid, arguments: list[str], code: int, said: str) -> None:
    done = nereid("get", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_name_that_is_absent_keeps_nobody_from_the_others(nereid: Nereid, cluster: LocalCluster) -> None:
    cluster.create(MODEL)
    done = nereid("get", "models", "none", "little", "-o", "name")
    assert (done.returncode, done.stdout) == (1, "model.edgeai.io/little\n")


def test_a_watch_goes_on_with_what_changes(started: Start, cluster: LocalCluster) -> None:
    service(cluster, condition("Pending", "True"))
    watching = started("get", "jis", "-w")
    assert watching.stdout is not None
    assert watching.stdout.readline().split()[:2] == ["NAME", "STATUS"]
    assert watching.stdout.readline().split()[:2] == ["digits", "Pending"]
    status = {"conditions": [condition("Ready", "True", "AllUp"), condition("Running", "True")]}
    cluster.patch(SERVICE_REF, {"status": status}, subresource="status")
    assert watching.stdout.readline().split()[:2] == ["digits", "Running"]


def test_ctrl_c_ends_a_watch_quietly(started: Start, cluster: LocalCluster) -> None:
    service(cluster, condition("Pending", "True"))
    watching = started("get", "jis", "-w")
    assert watching.stdout is not None
    watching.stdout.readline()
    watching.send_signal(signal.SIGINT)
    _, errors = watching.communicate(timeout=20)
    assert (watching.returncode, errors) == (-signal.SIGINT, "")


def test_a_reader_that_goes_ends_the_command_quietly(started: Start, cluster: LocalCluster) -> None:
    service(cluster, condition("Pending", "True"))
    watching = started("get", "jis", "-w")
    assert watching.stdout is not None
    assert watching.stderr is not None
    watching.stdout.readline()
    watching.stdout.close()
    quiet = threading.Event()

    def change() -> None:
        for number in range(100):
            cluster.patch(SERVICE_REF, {"status": {"active": number}}, subresource="status")
            if quiet.wait(0.1):
                return

    changing = threading.Thread(target=change)
    changing.start()
    code = watching.wait(timeout=20)
    quiet.set()
    changing.join()
    assert (code, watching.stderr.read()) == (1, "")
