# SPDX-License-Identifier: Apache-2.0
"""A user's own Python, served like any other model."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from tests.worker.serving.http import get, post
from tests.worker.serving.served import MODEL, WAIT_S, running, serving, task_of, url, version_of

WHOLE = """
import numpy

class Estimator:
    input = {"name": "x", "datatype": "FP32", "shape": [-1, 2]}
    output = {"name": "y", "datatype": "FP32", "shape": [-1, 1]}

    def load(self, folder):
        self.weights = numpy.load(folder / "weights.npy")

    def predict(self, rows):
        if rows.min() < 0:
            raise KeyError("negative")
        return rows @ self.weights
"""


def folder(path: Path, text: str = WHOLE, *, factor: float = 1.0) -> Path:
    path.mkdir(parents=True)
    (path / "estimator.py").write_text(text)
    np.save(path / "weights.npy", np.array([[factor], [factor * 10]], np.float32))
    return path


async def test_each_version_answers_with_its_own_code_and_files(tmp_path: Path) -> None:
    versions = [version_of(folder(tmp_path / n, factor=float(n)), n) for n in ("1", "2")]
    async with serving(task_of(*versions, framework="python", target="1")) as process:
        async with asyncio.timeout(WAIT_S):
            await process.versions.until(lambda: len(process.versions.loaded) == 2)
        model = url(process, f"/v1/models/{MODEL}")
        for version in ("1", "2"):
            status, said = await post(f"{model}/versions/{version}:predict", {"instances": [[1, 2], [3, 4]]})
            factor = float(version)
            assert (status, said["predictions"]) == (200, [[21.0 * factor], [43.0 * factor]])
        assert (await get(url(process, f"/v2/models/{MODEL}")))[1]["platform"] == "python"


async def test_what_it_raises_spoils_no_other_request(tmp_path: Path) -> None:
    task = task_of(version_of(folder(tmp_path / "1"), "1"), framework="python")
    async with serving(task) as process:
        model = url(process, f"/v1/models/{MODEL}:predict")
        bad, *good = await asyncio.gather(
            post(model, {"instances": [[-1, 2]]}), *(post(model, {"instances": [[1, 2]]}) for _ in range(8))
        )
        assert (bad[0], "KeyError" in bad[1]["error"]) == (500, True)
        assert all(one == (200, {"predictions": [[21.0]]}) for one in good)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (WHOLE.replace("class Estimator", "class Other"), "Estimator"),
        (WHOLE.replace("weights.npy", "nothing.npy"), "FileNotFoundError"),
        (WHOLE.replace('"FP32", "shape": [-1, 2]', '"FP32", "shape": [2]'), "input should be like"),
        (WHOLE.replace('"FP32", "shape": [-1, 1]', '"TEXT", "shape": [-1, 1]'), "output should be like"),
        (WHOLE.replace("[-1, 1]", "[-1, 3]"), "not figures of (1, 3)"),
    ],
)
async def test_one_that_is_not_whole_never_serves_and_says_why(tmp_path: Path, text: str, words: str) -> None:
    task = task_of(version_of(folder(tmp_path / "1", text), "1"), framework="python")
    async with running(task) as process:
        async with asyncio.timeout(WAIT_S):
            await process.versions.until(lambda: process.versions.problem is not None)
        problem = process.versions.problem
        assert problem is not None
        assert words in problem.message
        assert process.versions.default is None
