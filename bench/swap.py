# SPDX-License-Identifier: Apache-2.0
"""What swapping the model of a running edge worker costs: its memory over many swaps, and what its frames notice.

A process of its own streams one picture as fast as it goes through two models that are swapped to and fro by the
worker's own `Swapper`, golden inputs, record on disk and all. Each answer is held against the model that it names.
"""

import itertools
import json
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import cv2
import msgspec
import numpy as np
from tests.tiny_models import busy

from bench.figures import Figure
from nereid_shared.digests import sealed
from nereid_shared.messages import Task, TaskModel
from nereid_worker.classifier import Classifier
from nereid_worker.edge import JointInference
from nereid_worker.litert import Interpreter
from nereid_worker.page import Page
from nereid_worker.rules import make_rule
from nereid_worker.slots import Slots
from nereid_worker.spool import Spool
from nereid_worker.swapper import Swapper

SWAPS: Final = 1000
QUICK_SWAPS: Final = 100
SETTLED_AFTER: Final = 10
WINDOW: Final = 10
GROWTH_PERCENT: Final = 5.0
SIDE: Final = 48
ALONE_FRAMES: Final = 2000


def run(*, quick: bool) -> list[Figure]:
    """Return the growth of the memory, what went wrong, and the frames' times with and without swaps."""
    swaps = QUICK_SWAPS if quick else SWAPS
    done = subprocess.run(
        [sys.executable, "-m", "bench.swap", str(swaps)], check=True, stdout=subprocess.PIPE, text=True
    )
    said = json.loads(done.stdout)
    # Right after a swap the former model may still be there: one reading says less than several.
    first = statistics.median(said["rss_mib"][SETTLED_AFTER : SETTLED_AFTER + WINDOW])
    last = statistics.median(said["rss_mib"][-WINDOW:])
    return [
        Figure(
            name=f"RSS growth from swap {SETTLED_AFTER} to {swaps}", value=(last / first - 1) * 100, unit="%",
            target=GROWTH_PERCENT, better="lower",
            note=f"{first:.1f} to {last:.1f} MiB, at most {max(said['rss_mib']):.1f}",
        ),
        Figure(
            name="samples lost, doubled or answered by another model than they name", value=said["wrong"], unit="",
            target=0, better="lower", note=f"of {said['frames']}",
        ),
        Figure(name="a swap: load, golden inputs, record on disk", value=said["swap_ms"], unit="ms", note="median"),
        Figure(
            name="a frame while models are swapped", value=said["frame_ms"], unit="ms",
            note=f"median; {said['alone_ms']:.3f} without",
        ),
        Figure(
            name="the longest of these frames", value=said["longest_ms"], unit="ms",
            note=f"{said['alone_longest_ms']:.1f} without",
        ),
    ]  # fmt: skip


class _Rig:
    """Two models of about a millisecond, and a service that goes from one to the other."""

    def __init__(self, folder: Path) -> None:
        frame = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        self.picture = cv2.imencode(".png", frame)[1].tobytes()
        self.files = [_model(folder / name, seed, self.picture) for name, seed in (("a", 1), ("b", 2))]
        self.settled: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self.swapper = Swapper(
            slots=Slots(folder), load=lambda model: Classifier.load(model.url), swap=self._swap,
            on_settled=self.settled.put,
        )  # fmt: skip
        self.service = JointInference(
            classifier=self.swapper.first(self.task(0)), rule=make_rule("EdgeOnly", {}),
            page=Page(folder / "ledger.page", now_us=1), spool=Spool(folder / "samples.spool"), notify=lambda: None,
        )  # fmt: skip

    def task(self, number: int) -> Task:
        model = TaskModel(name="m", url=str(self.files[number % 2]), format="tflite")
        return sealed(
            Task(
                uid="u", service="s", role="edge", namespace="n", name="x", generation=number, hash="", model=model,
                parameters={"number": str(number)},
            )
        )  # fmt: skip

    def _swap(self, classifier: Classifier) -> None:
        self.service.swap(classifier)


def _model(folder: Path, seed: int, picture: bytes) -> Path:
    """Write a model whose card promises what it answers to the picture."""
    folder.mkdir()
    file = folder / "little.tflite"
    file.write_bytes(busy(side=SIDE, seed=seed))
    (folder / "one.png").write_bytes(picture)
    card = {
        "schema": "nereid.io/model-card/v1", "name": "busy", "version": "1", "task": "classification",
        "input": {
            "layout": "NHWC", "colorOrder": "RGB", "resize": "stretch", "interpolation": "nearest",
            "normalization": {"unit": "unit", "mean": [0.0], "std": [1.0]},
        },
        "output": {"kind": "logits", "labels": [str(number) for number in range(10)]},
    }  # fmt: skip
    (folder / "model.json").write_text(json.dumps(card))
    untried = Classifier.load(file)
    given = untried.preprocessor.one(picture)
    output = Interpreter(file.read_bytes()).run(given)[0].ravel().tolist()
    golden = [{"input": "one.png", "output": output, "tolerance": 1e-3}]
    (folder / "model.json").write_text(json.dumps({**card, "golden": golden}))
    return file


def _measure(swaps: int, folder: Path) -> dict[str, object]:
    rig = _Rig(folder)
    expected = {}
    for file in rig.files:
        model = Classifier.load(file)
        expected[model.digest] = model.predict(rig.picture).score
    alone = _times(rig, itertools.repeat(rig.picture, ALONE_FRAMES), expected)
    done, rss, swap_s = threading.Event(), [_rss_mib()], list[float]()

    def swap_to_and_fro() -> None:
        try:
            for number in range(1, swaps + 1):
                began = time.perf_counter()
                rig.swapper.want(rig.task(number))
                rig.settled.get(timeout=60)
                swap_s.append(time.perf_counter() - began)
                rss.append(_rss_mib())
        finally:
            done.set()

    def frames() -> Iterator[bytes]:
        while not done.is_set():
            yield rig.picture

    thread = threading.Thread(target=swap_to_and_fro)
    thread.start()
    swapped = _times(rig, frames(), expected)
    thread.join()
    rig.swapper.stop()
    ledger = rig.service._page.ledger()
    frames_seen = len(alone[0]) + len(swapped[0])
    wrong = alone[1] + swapped[1] + abs(ledger.seen - frames_seen) + (swaps - len(swap_s))
    return {
        "rss_mib": rss, "frames": len(swapped[0]), "wrong": wrong, "swap_ms": statistics.median(swap_s) * 1e3,
        "frame_ms": statistics.median(swapped[0]) * 1e3, "longest_ms": max(swapped[0]) * 1e3,
        "alone_ms": statistics.median(alone[0]) * 1e3, "alone_longest_ms": max(alone[0]) * 1e3,
    }  # fmt: skip


def _times(rig: _Rig, frames: Iterator[bytes], expected: dict[str, float]) -> tuple[list[float], int]:
    """Return each frame's time, and how many answers were not those of the model that they name, or out of order."""
    times: list[float] = []
    wrong, began = 0, time.perf_counter()
    for index, answer in enumerate(rig.service.stream(frames)):
        now = time.perf_counter()
        times.append(now - began)
        is_right = abs(answer.score - expected.get(answer.model, -1.0)) < 1e-5
        wrong += answer.index != index or not is_right
        began = time.perf_counter()
    return times, wrong


def _rss_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        sys.stdout.write(msgspec.json.encode(_measure(int(sys.argv[1]), Path(made))).decode())
