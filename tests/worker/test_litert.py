# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests import tiny_models

from nereid_shared.errors import ModelInvalid
from nereid_worker.litert import BUCKETS, Interpreter

BATCHES = [1, 2, 3, 4, 5, 7, 8, 9, 13, 20]


def rows(count: int, *, side: int = 8, dtype: str = "float32") -> np.ndarray:
    mean = np.linspace(0, 1, count) if dtype == "float32" else np.linspace(0, 255, count).round()
    return np.broadcast_to(mean[:, None, None, None], (count, side, side, 1)).astype(dtype)


def logits(mean: np.ndarray) -> np.ndarray:
    return np.stack([4 - 8 * mean, 8 * mean - 4], axis=1)


@pytest.mark.parametrize("count", BATCHES)
@pytest.mark.parametrize("resizable", [True, False])
def test_a_batch_of_any_size_comes_out_in_order(count: int, resizable: bool) -> None:
    model = Interpreter(tiny_models.brightness(batch_resizable=resizable))
    given = rows(count)
    assert model.run(given) == pytest.approx(logits(given[:, 0, 0, 0]), abs=1e-4)
    if count > 4:
        assert model.buckets == (BUCKETS if resizable else (1,))


def test_no_rows_give_no_answers() -> None:
    assert Interpreter(tiny_models.brightness()).run(rows(0)).shape == (0, 2)


@pytest.mark.parametrize("count", [1, 6])
@pytest.mark.parametrize(("dtype", "zero_point"), [("uint8", 0), ("int8", -128)])
def test_quantised_tensors_are_read_from_the_file(count: int, dtype: str, zero_point: int) -> None:
    content = tiny_models.brightness(
        quantised_input=tiny_models.Quantised(dtype=dtype, zero_point=zero_point),  # type: ignore[arg-type] # a parameter
        quantised_output=tiny_models.Quantised(dtype="int8", scale=0.05, zero_point=10),
    )
    model = Interpreter(content)
    assert (model.input.dtype, model.input.zero_point) == (dtype, zero_point)
    assert model.input.scale == pytest.approx(1 / 255)
    given = rows(count, dtype="uint8")
    real = given[:, 0, 0, 0] / 255
    stored = (given.astype(int) + zero_point).astype(dtype)
    answer = model.run(stored)
    assert answer.dtype == np.float32
    assert answer == pytest.approx(logits(real), abs=0.026)


def test_a_row_that_is_not_finite_does_not_end_batching() -> None:
    model = Interpreter(tiny_models.brightness())
    given = rows(8)
    given[7] = np.nan
    answer = model.run(given)
    assert np.isnan(answer[7]).all()
    assert np.isfinite(answer[:7]).all()
    assert model.buckets == BUCKETS


def test_a_graph_that_mixes_the_rows_of_a_batch_runs_them_one_by_one() -> None:
    model = Interpreter(tiny_models.mixing())
    assert model.run(np.ones((4, 8, 8, 1), np.float32))[0] == pytest.approx([-4, 4])  # equal rows tell nothing
    assert model.run(rows(4)) == pytest.approx(logits(np.linspace(0, 1, 4)), abs=1e-4)
    assert model.buckets == (1,)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.5, 0.9, 0.999])
def test_a_file_cut_short_is_corrupt(share: float) -> None:
    content = tiny_models.brightness()
    with pytest.raises(ModelInvalid, match="small model") as caught:
        Interpreter(content[: int(len(content) * share)], where="small model")
    assert caught.value.reason == "ModelCorrupt"


@pytest.mark.parametrize("content", [b"hello world" * 99, b"\0" * 4096, b"<html>not found</html>"])
def test_another_file_is_corrupt(content: bytes) -> None:
    with pytest.raises(ModelInvalid) as caught:
        Interpreter(content)
    assert caught.value.reason == "ModelCorrupt"


def test_a_model_with_two_outputs_is_not_supported() -> None:
    with pytest.raises(ModelInvalid, match="2 output tensors") as caught:
        Interpreter(tiny_models.two_outputs())
    assert caught.value.reason == "ModelUnsupported"


def back_end_without_litert(*path: Path) -> str:
    """What `back_end` says where `ai_edge_litert` cannot be found, with `path` in front of the others."""
    program = (
        "import sys\n"
        "import ai_edge_litert.interpreter as hidden\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'ai_edge_litert':\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hide())\n"
        "for name in [n for n in sys.modules if n.partition('.')[0] == 'ai_edge_litert']:\n"
        "    del sys.modules[name]\n"
        "sys.made_for_test = hidden.Interpreter\n"
        "from nereid_shared.errors import UserError\n"
        "from nereid_worker.litert import back_end\n"
        "try:\n    print(back_end().__name__)\n"
        "except UserError as error:\n    print(error)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, path), *sys.path])}
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=env).stdout


def tflite_runtime(folder: Path, text: str) -> Path:
    (folder / "tflite_runtime").mkdir()
    (folder / "tflite_runtime" / "__init__.py").touch()
    (folder / "tflite_runtime" / "interpreter.py").write_text(text)
    return folder


def test_without_litert_the_error_names_the_extra() -> None:
    assert "nereid-ai[worker]" in back_end_without_litert()


def test_tflite_runtime_serves_where_only_that_is_installed(tmp_path: Path) -> None:
    there = tflite_runtime(tmp_path, "import sys\nInterpreter = sys.made_for_test\n")
    assert back_end_without_litert(there).strip() == "Interpreter"


def test_a_back_end_that_fails_at_its_first_interpreter_is_found_out(tmp_path: Path) -> None:
    # tflite-runtime 2.14 with numpy 2 imports, and does this:
    broken = "class Interpreter:\n    def __init__(self, **_):\n        raise SystemError('returned NULL')\n"
    said = back_end_without_litert(tflite_runtime(tmp_path, broken))
    assert "tflite_runtime is installed but does not work: returned NULL" in said
    assert "numpy<2" in said
