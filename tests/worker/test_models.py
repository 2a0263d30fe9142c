# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.shared.storage.file_server import serving

from nereid_shared.errors import UserError
from nereid_shared.messages import TaskModel
from nereid_worker.classifier import Classifier
from nereid_worker.models import name_of, on_this_node
from nereid_worker.scratch import PREFIX, Scratch

LITTLE = Path(__file__).parents[2] / "examples" / "digits" / "models" / "little"


@pytest.fixture
def url() -> Iterator[str]:
    with serving() as server:
        files = {
            f"/models/{file.relative_to(LITTLE)}": file.read_bytes() for file in LITTLE.rglob("*") if file.is_file()
        }
        server.files = files
        yield server.url


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Scratch]:
    made = Scratch(tmp_path)
    yield made
    made.remove()


def test_a_cloud_worker_fetches_a_model_with_its_card_and_golden_inputs(url: str, scratch: Scratch) -> None:
    model = Classifier.load(on_this_node(TaskModel(name="little", url=url), into=scratch))
    assert model.path.is_relative_to(scratch.path)
    assert len(model.card.golden) > 0
    assert model.warnings == []


def test_an_edge_worker_takes_the_file_that_was_prepared_and_fetches_none(url: str, tmp_path: Path) -> None:
    prepared = str(LITTLE / "little.tflite")
    assert on_this_node(TaskModel(name="m", url=url, path=prepared), into=None) == Path(prepared)
    with pytest.raises(UserError, match="has not fetched") as caught:
        on_this_node(TaskModel(name="m", url=url), into=None)
    assert caught.value.reason == "ModelNotPrepared"


def test_a_path_is_used_in_place() -> None:
    file = LITTLE / "little.tflite"
    for given in (str(file), file.as_uri()):
        assert on_this_node(TaskModel(name="little", url=given), into=None) == file
    assert on_this_node(TaskModel(name="little", url=str(LITTLE)), into=None) == LITTLE


@pytest.mark.parametrize(
    ("url", "sha256", "name"),
    [("/nowhere/x.onnx", "ab", "ab"), ("/nowhere/x.onnx", "", "big"), ("https://host/x", "", "big"), ("/", "", "big")],
)
def test_a_model_that_is_no_file_here_is_called_by_its_digest_or_name(url: str, sha256: str, name: str) -> None:
    assert name_of(TaskModel(name="big", url=url, sha256=sha256)) == name


HOLD = """
import sys
from pathlib import Path
from nereid_worker.scratch import Scratch
scratch = Scratch(Path(sys.argv[1]))
(scratch.path / "model.tflite").write_text("x")
print(scratch.path, flush=True)
sys.stdin.read()
"""


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().strip())
        mine, third = Scratch(tmp_path), Scratch(tmp_path)
        assert len({theirs, mine.path, third.path}) == 3
        assert (theirs / "model.tflite").exists()
        third.remove()
        other.kill()
        other.wait(10)
        assert third.path
        assert set(tmp_path.iterdir()) == {mine.path, third.path}
        assert all(path.name.startswith(PREFIX) for path in tmp_path.iterdir())
    mine.remove()
    third.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_here_needs_no_folder(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "none")
    assert (
        on_this_node(TaskModel(name="m", url=str(LITTLE / "little.tflite")), into=scratch) == LITTLE / "little.tflite"
    )
