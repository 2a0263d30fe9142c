# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys

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


def test_without_litert_the_error_names_the_extra() -> None:
    # A finder that hides the packages is what an environment without them looks like.
    program = (
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('ai_edge_litert', 'tflite_runtime'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hide())\n"
        "from nereid_shared.errors import UserError\n"
        "from nereid_worker.litert import back_end\n"
        "try:\n    back_end()\n"
        "except UserError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "nereid-ai[worker]" in done.stdout
