# SPDX-License-Identifier: Apache-2.0
"""``nereid explain``, ``diff``, ``patch``, ``scale`` and ``edit``."""

import sys
from pathlib import Path

import pytest
import yaml
from tests.cloud.cli.conftest import Nereid
from tests.cloud.cli.objects import SERVICE_REF
from tests.shared.resources.cases import INFERENCE_MODEL, MODEL, SERVICE, Object

from nereid_cloud.cluster.kinds import INFERENCE_MODEL as INFERENCE_MODEL_KIND
from nereid_cloud.cluster.kinds import MODEL as MODEL_KIND
from nereid_cloud.cluster.local import LocalCluster
from nereid_cloud.cluster.port import Ref

pytestmark = pytest.mark.slow  # each test starts processes
LITTLE = Ref(kind=MODEL_KIND, name="little", namespace="default")


def spec(cluster: LocalCluster) -> Object:
    found: Object = cluster.get(LITTLE)["spec"]
    return found


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["jis"], ["KIND:     JointInferenceService", "  spec <object> -required-"]),
        (
            ["jis.spec.edgeWorker.deadline"],
            ["<string>", "before the edge answers", "default: 1s", "between 1ms and 1h"],
        ),
        (["jis.spec.edgeWorker.workerSpec.parameters"], ["<[]object>", "key <string> -required-"]),
        (["models", "--recursive"], ["    modelUrl <string> -required-"]),
    ],
)
def test_a_field_is_explained(nereid: Nereid, words: list[str], said: list[str]) -> None:
    done = nereid("explain", *words)
    assert done.returncode == 0, done.stderr
    assert all(text in done.stdout for text in said)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("jis.spec.edge", "there is no field 'edge'. There are cloudWorker, edgeWorker"),
        ("pods", "kubectl explain"),
        ("nothing", "There are datasets"),
    ],
)
def test_what_cannot_be_explained_is_said_with_what_there_is(nereid: Nereid, path: str, said: str) -> None:
    done = nereid("explain", path)
    assert done.returncode == 2
    assert said in done.stderr


def test_a_diff_shows_what_applying_would_change_and_changes_nothing(
    nereid: Nereid, cluster: LocalCluster, tmp_path: Path
) -> None:
    manifest = tmp_path / "m.yaml"
    manifest.write_text(yaml.safe_dump(SERVICE))
    assert nereid("apply", "-f", str(manifest)).returncode == 0
    same = nereid("diff", "-f", str(manifest))
    assert (same.returncode, same.stdout) == (0, ""), "defaults that the server fills in are no change"
    changed = {**SERVICE, "spec": {**SERVICE["spec"], "cloudWorker": {**SERVICE["spec"]["cloudWorker"], "replicas": 3}}}
    manifest.write_text(yaml.safe_dump(changed))
    done = nereid("diff", "-f", str(manifest))
    assert done.returncode == 1
    assert "\n+    replicas: 3\n" in done.stdout
    assert "\n-    replicas: 2\n" in done.stdout
    assert cluster.get(SERVICE_REF)["spec"]["cloudWorker"]["replicas"] == 2


def test_a_diff_of_what_is_refused_says_why(nereid: Nereid, tmp_path: Path) -> None:
    manifest = tmp_path / "m.yaml"
    manifest.write_text(yaml.safe_dump({**MODEL, "spec": {"format": "tflite"}}))
    done = nereid("diff", "-f", str(manifest))
    assert done.returncode == 2
    assert "spec.modelUrl" in done.stderr


def test_a_patch_changes_what_it_names(nereid: Nereid, cluster: LocalCluster) -> None:
    cluster.create(MODEL)
    before = spec(cluster)
    done = nereid("patch", "model/little", "--type", "merge", "-p", '{"spec": {"modelUrl": "/m/other.tflite"}}')
    assert (done.returncode, done.stdout) == (0, "model.edgeai.io/little patched\n")
    assert spec(cluster) == {**before, "modelUrl": "/m/other.tflite"}
    again = nereid("patch", "model", "little", "-p", "spec: {modelUrl: /m/other.tflite}")
    assert again.stdout == "model.edgeai.io/little patched (no change)\n"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["-p", "spec: {modelUrl: relative}"], 2, "must be an absolute path on the node"),
        (["-p", "[]"], 2, "a patch is an object"),
        (["-p", "{"], 2, "cannot be read"),
        ([], 2, "give the patch once"),
        (["-p", "spec: {}", "--type", "json"], 2, "json"),
    ],
)
def test_a_patch_that_is_none_is_refused(
    nereid: Nereid, cluster: LocalCluster, words: list[str], code: int, said: str
) -> None:
    cluster.create(MODEL)
    done = nereid("patch", "model/little", *words)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_model_is_scaled_and_a_service_is_not(nereid: Nereid, cluster: LocalCluster) -> None:
    cluster.create(INFERENCE_MODEL)
    name = INFERENCE_MODEL["metadata"]["name"]
    done = nereid("scale", f"infm/{name}", "--replicas", "3")
    assert (done.returncode, done.stdout) == (0, f"inferencemodel.sedna.io/{name} scaled\n")
    ref = Ref(kind=INFERENCE_MODEL_KIND, name=name, namespace="default")
    assert cluster.get(ref)["spec"]["replicas"] == 3
    refused = nereid("scale", "jis/digits", "--replicas", "3")
    assert refused.returncode == 2
    assert '"cloudWorker": {"replicas": 2}' in refused.stderr


def editor(tmp_path: Path, *steps: str) -> str:
    """Return an editor that does one step each time that it is opened, and keeps what it was shown."""
    script = tmp_path / "editor.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\n"
        f"folder, file = Path({str(tmp_path)!r}), Path(sys.argv[-1])\n"
        "text = file.read_text()\n"
        "turn = len(list(folder.glob('shown-*')))\n"
        "(folder / f'shown-{turn}').write_text(text)\n"
        f"step = {list(steps)!r}[turn]\n"
        "old, _, new = step.partition('=>')\n"
        "file.write_text(text.replace(old, new) if old else text)\n"
    )
    return f"{sys.executable} {script}"


def test_an_edit_writes_what_the_user_changed(nereid: Nereid, cluster: LocalCluster, tmp_path: Path) -> None:
    cluster.create(MODEL)
    cluster.patch(LITTLE, {"status": {"updateTime": "2026-01-01T00:00:00Z"}}, subresource="status")
    before = spec(cluster)
    url = before["modelUrl"]
    done = nereid("edit", "model/little", "--editor", editor(tmp_path, f"{url}=>/m/other.tflite"))
    assert (done.returncode, done.stdout) == (0, "model.edgeai.io/little edited\n"), done.stderr
    assert spec(cluster) == {**before, "modelUrl": "/m/other.tflite"}
    shown = (tmp_path / "shown-0").read_text()
    assert "status" not in shown
    assert "resourceVersion" not in shown


def test_a_refused_edit_opens_again_with_the_reason(nereid: Nereid, cluster: LocalCluster, tmp_path: Path) -> None:
    cluster.create(MODEL)
    url = spec(cluster)["modelUrl"]
    steps = editor(tmp_path, f"{url}=>relative", "relative=>/m/other.tflite")
    assert nereid("edit", "model/little", "--editor", steps).returncode == 0
    assert "must be an absolute path on the node" in (tmp_path / "shown-1").read_text()
    assert spec(cluster)["modelUrl"] == "/m/other.tflite"


@pytest.mark.parametrize("bad", ["relative", "{", "/m/x\n  nonsense: 1"])
def test_an_edit_that_stays_refused_is_kept(nereid: Nereid, cluster: LocalCluster, tmp_path: Path, bad: str) -> None:
    cluster.create(MODEL)
    before = spec(cluster)
    done = nereid("edit", "model/little", "--editor", editor(tmp_path, f"{before['modelUrl']}=>{bad}", "=>"))
    assert done.returncode == 2
    file = Path(done.stderr.split("nereid apply -f ")[1].strip())
    assert bad.split("\n", maxsplit=1)[0] in file.read_text()
    assert spec(cluster) == before
    file.unlink()


def test_an_edit_without_change_or_of_the_name_changes_nothing(
    nereid: Nereid, cluster: LocalCluster, tmp_path: Path
) -> None:
    cluster.create(MODEL)
    assert nereid("edit", "model/little", "--editor", "true").stdout == "model.edgeai.io/little unchanged\n"
    steps = editor(tmp_path, "name: little=>name: other", "name: other=>name: little")
    assert nereid("edit", "model/little", "--editor", steps).stdout == "model.edgeai.io/little unchanged\n"
    assert "metadata.name cannot be changed" in (tmp_path / "shown-1").read_text()
    assert "does not start" in nereid("edit", "model/little", "--editor", "/no/such/editor").stderr
