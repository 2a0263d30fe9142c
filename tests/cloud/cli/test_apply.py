# SPDX-License-Identifier: Apache-2.0
"""``nereid apply``: what it makes, what it refuses, and where it points."""

import json
from pathlib import Path

import pytest
import yaml
from tests.cloud.cli.conftest import Nereid
from tests.shared.resources.cases import DATASET, MODEL, SERVICE, changed

from nereid_cloud.cli.apply import essence
from nereid_cloud.cli.manifests import documents
from nereid_cloud.cluster import kinds
from nereid_cloud.cluster.local import LocalCluster
from nereid_cloud.cluster.port import Ref
from nereid_shared.errors import UserError

pytestmark = pytest.mark.slow  # each test starts processes

SEEDS = Path(__file__).parents[2] / "seeds"


def manifest(folder: Path, *objects: object) -> Path:
    file = folder / "manifest.yaml"
    file.write_text(yaml.safe_dump_all(objects, sort_keys=False))
    return file


def test_each_document_is_created_then_unchanged_then_configured(nereid: Nereid, tmp_path: Path) -> None:
    file = manifest(tmp_path, DATASET, MODEL)
    assert (
        nereid("apply", "-f", str(file)).stdout == "dataset.edgeai.io/digits created\nmodel.edgeai.io/little created\n"
    )
    assert nereid("apply", "-f", str(file)).stdout == (
        "dataset.edgeai.io/digits unchanged\nmodel.edgeai.io/little unchanged\n"
    )
    manifest(tmp_path, DATASET, changed(MODEL, {"spec.format": "pb"}))
    assert nereid("apply", "-f", str(file)).stdout == (
        "dataset.edgeai.io/digits unchanged\nmodel.edgeai.io/little configured\n"
    )


def test_what_a_controller_writes_meanwhile_is_no_change() -> None:
    before = {**DATASET, "metadata": {"name": "digits", "resourceVersion": "1"}}
    after = {**DATASET, "metadata": {"name": "digits", "resourceVersion": "2"}, "status": {"numberOfSamples": 7}}
    assert essence(before) == essence(after)
    assert essence(before) != essence(changed(after, {"metadata.labels.app": "x"}))
    assert essence(before) != essence(changed(after, {"spec.format": "txt"}))


def test_a_folder_is_applied_in_the_order_of_its_files(nereid: Nereid, tmp_path: Path) -> None:
    folder = tmp_path / "manifests"
    folder.mkdir()
    (folder / "2.json").write_text(json.dumps(MODEL))
    (folder / "1.yaml").write_text(yaml.safe_dump(DATASET))
    (folder / "notes.txt").write_text("not a manifest")
    assert nereid("apply", "-f", str(folder)).stdout.split() == [
        "dataset.edgeai.io/digits", "created", "model.edgeai.io/little", "created",
    ]  # fmt: skip


def test_stdin_and_a_list_and_a_namespace(nereid: Nereid, cluster: LocalCluster) -> None:
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "lab"}})
    items = [changed(obj, {"metadata.namespace": None}) for obj in (DATASET, MODEL)]
    listed = {"apiVersion": "v1", "kind": "List", "items": items}
    done = nereid("apply", "-n", "lab", "-f", "-", stdin=yaml.safe_dump(listed))
    assert done.stdout.count(" created") == 2
    assert cluster.get(Ref(kind=kinds.MODEL, name="little", namespace="lab"))


def test_the_seeds_manifests_are_accepted(nereid: Nereid) -> None:
    files = [
        word for name in ("dataset", "model", "jointinferenceservice") for word in ("-f", str(SEEDS / f"{name}.yaml"))
    ]
    done = nereid("apply", *files)
    assert (done.returncode, done.stdout.count(" created")) == (0, 3)


def test_an_unknown_field_is_refused_by_file_line_and_mend(nereid: Nereid, tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(
        yaml.safe_dump(DATASET, sort_keys=False)
        + "---\n# the second document\napiVersion: edgeai.io/v1alpha1\nkind: Model\nmetadata: {name: little}\n"
        + "spec:\n  modelURL: /little.tflite\n"
    )
    line = file.read_text().splitlines().index("  modelURL: /little.tflite") + 1
    done = nereid("apply", "-f", str(file))
    assert done.returncode == 2
    assert done.stdout == "dataset.edgeai.io/digits created\n"
    assert done.stderr.startswith(f"error: {file}:{line}: document 2 (Model little): spec.modelURL: ")
    assert 'did you mean "spec.modelUrl"?' in done.stderr


def test_a_number_where_text_belongs_is_told_to_be_quoted(nereid: Nereid, tmp_path: Path) -> None:
    budget = "spec.edgeWorker.hardExampleAlgorithm.budget"
    done = nereid("apply", "-f", str(manifest(tmp_path, changed(SERVICE, {budget: 0.2}))))
    assert done.returncode == 2
    assert budget in done.stderr
    assert done.stderr.endswith("Write it in quotes\n")


def test_a_broken_rule_names_its_field_and_what_belongs_there(nereid: Nereid, tmp_path: Path) -> None:
    parameters = [{"key": "threshold", "value": "1.5"}]
    wrong = changed(SERVICE, {"spec.edgeWorker.hardExampleAlgorithm.parameters": parameters})
    done = nereid("apply", "-f", str(manifest(tmp_path, wrong)))
    assert done.returncode == 2
    assert "spec.edgeWorker.hardExampleAlgorithm: " in done.stderr
    assert "each parameter of this rule must be a decimal text from 0 to 1" in done.stderr
    assert done.stderr.endswith(": threshold is '1.5'\n")


def test_a_broken_rule_over_the_whole_spec_has_no_stray_tail(nereid: Nereid, tmp_path: Path) -> None:
    wrong = changed(SERVICE, {"spec.edgeWorker.name": "same", "spec.cloudWorker.name": "same"})
    done = nereid("apply", "-f", str(manifest(tmp_path, wrong)))
    assert done.returncode == 2
    assert done.stderr.endswith("edgeWorker.name and cloudWorker.name must differ\n")


def test_one_wrong_pattern_says_what_the_field_is(nereid: Nereid, tmp_path: Path) -> None:
    done = nereid("apply", "-f", str(manifest(tmp_path, changed(SERVICE, {"spec.edgeWorker.deadline": "soon"}))))
    assert "It is: Time from capture that a caller waits for the cloud" in done.stderr


def test_a_dry_run_changes_nothing(nereid: Nereid, cluster: LocalCluster, tmp_path: Path) -> None:
    done = nereid("apply", "--dry-run=server", "-f", str(manifest(tmp_path, MODEL)))
    assert done.stdout == "model.edgeai.io/little created (server dry run)\n"
    assert cluster.list(kinds.MODEL).items == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: b: c\n", "m.yaml:1:"),
        ("", "no objects passed"),
        ("- 1\n", "this is no manifest"),
        ("kind: Model\n", "apiVersion is not set"),
        ("apiVersion: edgeai.io/v1alpha1\nkind: Model\nmetadata: {}\n", "metadata.name is not set"),
        ("apiVersion: v1\nkind: Pod\nkind: Node\n", ':3: "kind" stands there twice, first in line 2'),
        ("apiVersion: v1\nkind: !!binary aGk=\n", "no value that the API knows"),
    ],
)
def test_what_is_no_manifest_is_a_users_error(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as refusal:
        documents([str(file)])
    assert said in str(refusal.value)


def test_a_kind_that_there_is_not_is_refused(nereid: Nereid) -> None:
    done = nereid("apply", "-f", "-", stdin="apiVersion: edgeai.io/v1\nkind: Model\nmetadata: {name: x}\n")
    assert (done.returncode, done.stdout) == (2, "")
    assert 'no matches for kind "Model" in version "edgeai.io/v1"' in done.stderr
    assert "Model (edgeai.io/v1alpha1)" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_file_is_named(nereid: Nereid, tmp_path: Path) -> None:
    done = nereid("apply", "-f", str(tmp_path / "none.yaml"))
    assert done.returncode == 2
    assert f"{tmp_path}/none.yaml: the path does not exist" in done.stderr


def test_two_namespaces_contradict(nereid: Nereid, tmp_path: Path) -> None:
    done = nereid("apply", "-n", "lab", "-f", str(manifest(tmp_path, MODEL)))
    assert done.returncode == 2
    assert 'its namespace "default" is not the "lab" of the command line' in done.stderr
