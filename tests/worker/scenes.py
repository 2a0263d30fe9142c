# SPDX-License-Identifier: Apache-2.0
"""Models, pictures, tasks and worker processes for the tests of the edge worker's SDK."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tests.tiny_models import brightness
from tests.worker.lc_peer import NODE, SERVICE, WORKER

from nereid_shared.messages import Task, TaskDataset, TaskModel, TaskRule

EASY, HARD = 0, 128
"""Grey values: black is "dark" without doubt, the middle is a tie."""

EXIT_S = 30.0
"""What an end may take on a busy machine."""

CARD = {
    "schema": "nereid.io/model-card/v1",
    "name": "brightness",
    "version": "1",
    "task": "classification",
    "input": {
        "layout": "NHWC", "colorOrder": "GRAY", "resize": "stretch", "interpolation": "nearest",
        "normalization": {"unit": "unit", "mean": [0.0], "std": [1.0]},
    },
    "output": {"kind": "logits", "labels": ["dark", "bright"]},
}  # fmt: skip


def write_model(folder: Path) -> Path:
    """Write the brightness model with its card; return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "little.tflite"
    file.write_bytes(brightness())
    (folder / "model.json").write_text(json.dumps(CARD))
    return file


def picture(grey: int, *, suffix: str = ".png", side: int = 8) -> bytes:
    """Return an encoded picture of one grey."""
    taken, data = cv2.imencode(suffix, np.full((side, side), grey, np.uint8))
    assert taken
    return bytes(data.tobytes())


def write_dataset(folder: Path, greys: list[int]) -> Path:
    """Write pictures ``00000.png`` … and ``index.csv``; return the index."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    pictures = {grey: picture(grey) for grey in set(greys)}
    for number, grey in enumerate(greys):
        (folder / "images" / f"{number:05}.png").write_bytes(pictures[grey])
    index = folder / "index.csv"
    index.write_text("path\n" + "".join(f"images/{number:05}.png\n" for number in range(len(greys))))
    return index


def make_task(file: Path | str, **changes: object) -> Task:
    """Return an edge task with Margin and a threshold of 0.5, so that `EASY` is easy and `HARD` is hard."""
    values: dict[str, Any] = {
        "uid": "u", "service": SERVICE, "role": "edge", "namespace": "default", "name": "svc", "generation": 1,
        "hash": "h1", "model": TaskModel(name="little", url=str(file), format="tflite"),
        "rule": TaskRule(name="Margin", parameters={"threshold": "0.5"}), "deadline_s": 60.0,
    }  # fmt: skip
    return Task(**{**values, **changes})


def dataset_of(index: Path, format_: str = "csv") -> TaskDataset:
    """Return a task's reference to a dataset."""
    return TaskDataset(name="frames", url=str(index), format=format_)


class Worker:
    """``python -m nereid_worker`` as a process of its own."""

    def __init__(
        self, broker_url: str, state: Path, *, env: Mapping[str, str] | None = None, log: Path | None = None
    ) -> None:
        self.state = state
        self._env = {
            **os.environ, "NEREID_ROLE": "edge", "NEREID_WORKER": WORKER, "NEREID_NODE": NODE,
            "NEREID_SERVICE": SERVICE, "NEREID_BROKER": broker_url, "NEREID_STATE": str(state),
            "NEREID_INFO_INTERVAL": "0.1", **(env or {}),
        }  # fmt: skip
        self._log = log or state.parent / "worker.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Worker":
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "nereid_worker"], env=self._env, stdout=log, stderr=log
            )
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        """End it by SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(EXIT_S)

    def stop(self) -> int:
        """End it by SIGTERM and return its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(EXIT_S)

    def log(self) -> str:
        """Return what it has logged."""
        return self._log.read_text()

    def answers(self) -> list[dict[str, object]]:
        """Return the events in its log of answers."""
        file = self.state / "answers.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@contextmanager
def running(worker: Worker) -> Iterator[Worker]:
    """Start a worker, and end it at the end whatever happened."""
    worker.start()
    try:
        yield worker
    except BaseException:
        sys.stderr.write(worker.log()[-4000:])
        raise
    finally:
        if worker.process is not None and worker.process.poll() is None:
            worker.process.kill()
            worker.process.wait(EXIT_S)
