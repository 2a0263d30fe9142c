# SPDX-License-Identifier: Apache-2.0
import functools
import http.server
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nereid_shared.errors import ModelInvalid
from nereid_shared.messages import TaskModel
from nereid_worker.classifier import Classifier
from nereid_worker.models import name_of, on_this_node
from nereid_worker.scratch import PREFIX, Scratch

LITTLE = Path(__file__).parents[2] / "examples" / "digits" / "models" / "little"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        pass


@pytest.fixture
def served(tmp_path: Path) -> Path:
    return Path(shutil.copytree(LITTLE, tmp_path / "served"))


@pytest.fixture
def url(served: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(served)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/little.tflite"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_model_by_url_comes_with_its_card_and_golden_inputs(url: str, tmp_path: Path) -> None:
    model = Classifier.load(on_this_node(TaskModel(name="little", url=url), into=tmp_path / "models"))
    assert model.path.is_relative_to(tmp_path / "models")
    assert len(model.card.golden) > 0
    assert model.warnings == []


def test_two_models_of_one_file_name_keep_apart(url: str, tmp_path: Path) -> None:
    other = url.replace("127.0.0.1", "localhost")
    paths = {on_this_node(TaskModel(name="m", url=one), into=tmp_path / "models") for one in (url, other)}
    assert len(paths) == 2


def test_a_url_without_a_card_is_refused_by_the_card_s_name(served: Path, url: str, tmp_path: Path) -> None:
    (served / "model.json").unlink()
    with pytest.raises(ModelInvalid, match=r"model\.json"):
        on_this_node(TaskModel(name="little", url=url), into=tmp_path / "models")


def test_a_path_is_used_in_place(tmp_path: Path) -> None:
    file = LITTLE / "little.tflite"
    for given in (str(file), file.as_uri()):
        assert on_this_node(TaskModel(name="little", url=given), into=tmp_path / "models") == file
    assert on_this_node(TaskModel(name="little", url=str(LITTLE)), into=tmp_path / "models") == LITTLE
    assert not (tmp_path / "models").exists()


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
