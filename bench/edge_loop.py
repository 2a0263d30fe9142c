# SPDX-License-Identifier: Apache-2.0
"""What joint inference costs the edge: samples a second against the bare LiteRT loop, cloud up and cloud down.

A real worker process runs `bench/scripts/edge_loop.py`, which alternates the two in short segments; a real broker and
what stands for the LocalController are other processes, which belong on other machines. A tenth of the samples is hard.
Frames are 640x480 JPEGs in memory, the model takes about a millisecond.

Arrangements: ``others pinned`` to one core, the worker where the system puts it, which is what the target is for; ``one
core``: the worker has but the other one, so that its link's thread takes turns with the model; ``unpinned``.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from tests.mosquitto import Mosquitto
from tests.tiny_models import busy
from tests.worker.lc_peer import NODE, SERVICE, WORKER

from bench.figures import Figure
from nereid_shared.messages import Task, TaskModel, TaskRule

HARD_SHARE: Final = "0.1"
SEGMENT: Final = 100
ROUNDS: Final = 30
QUICK_ROUNDS: Final = 4
TARGET: Final = 0.97
ARRANGEMENTS: Final = ("others pinned", "one core", "unpinned")
TIMEOUT_S: Final = 300.0
SCRIPTS: Final = Path(__file__).parent / "scripts"
_PIN: Final = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); os.execv(sys.executable, sys.argv[2:])"


def run(*, quick: bool) -> list[Figure]:
    """Return rates, ratios and CPU times for cloud up and down, pinned and unpinned; then size and import time."""
    rounds = QUICK_ROUNDS if quick else ROUNDS
    figures: list[Figure] = []
    rss_mb = 0.0
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(Path(folder))
        for where in ARRANGEMENTS:
            for cloud in ("up", "down"):
                outcome = _measure(Path(folder), cloud=cloud, where=where, rounds=rounds)
                figures += _figures(outcome, f"cloud {cloud}, {where}", judged=where == "others pinned")
                rss_mb = max(rss_mb, outcome["rss_mb"])
    figures.append(Figure(name="edge worker: RSS", value=rss_mb, unit="MB"))
    figures.append(
        Figure(name="edge worker: imports", value=_import_s(), unit="s", note="beyond bare Python; min of 5")
    )
    return figures


def _figures(outcome: dict[str, Any], case: str, *, judged: bool) -> list[Figure]:
    pairs = outcome["pairs"]
    ratios = [pair["bare_s"] / pair["joint_s"] for pair in pairs]
    low, _, high = statistics.quantiles(ratios, n=4)
    spread = f"median of {len(ratios)} pairs, quartiles {low:.3f} and {high:.3f}"
    bare_ms, joint_ms = (
        statistics.median(pair[f"{which}_cpu_s"] for pair in pairs) / SEGMENT * 1e3 for which in ("bare", "joint")
    )
    rate = SEGMENT / statistics.median(pair["joint_s"] for pair in pairs)
    return [
        Figure(
            name=f"{case}: joint / bare", value=statistics.median(ratios), unit="", target=TARGET if judged else None,
            note=spread,
        ),
        Figure(name=f"{case}: joint", value=rate, unit="1/s", note=f"{outcome['hard']} of {outcome['seen']} hard"),
        Figure(name=f"{case}: CPU a sample", value=joint_ms, unit="ms", note=f"all threads; bare loop {bare_ms:.3f}"),
    ]  # fmt: skip


def _measure(folder: Path, *, cloud: str, where: str, rounds: int) -> dict[str, Any]:
    out, state = folder / "out.json", Path(tempfile.mkdtemp(dir=folder))
    out.unlink(missing_ok=True)
    task = Task(
        uid="u", service=SERVICE, role="edge", namespace="default", name="bench", generation=1, hash="h",
        model=TaskModel(name="busy", url=str(folder / "busy.tflite"), format="tflite"),
        rule=TaskRule(name="Random", parameters={"random_ratio": HARD_SHARE}), script_dir=str(SCRIPTS),
        script_boot_file="edge_loop.py",
        parameters={"out": str(out), "frames": str(folder), "rounds": str(rounds), "segment": str(SEGMENT)},
    )  # fmt: skip
    cores: list[int | None] = [*sorted(os.sched_getaffinity(0))]
    first, second = cores[:2] if len(cores) > 1 else (None, None)
    mine = first if where == "one core" else None
    theirs = None if where == "unpinned" else second
    broker = Mosquitto(state / "broker").start()
    peer = worker = None
    try:
        if theirs is not None:
            os.sched_setaffinity(broker.pid, {theirs})
        peer = _python(theirs, ["-m", "bench.edge_peer", broker.url, cloud], stdin=subprocess.PIPE)
        assert peer.stdin is not None
        peer.stdin.write(task.encode() + b"\n")
        peer.stdin.flush()
        env = {
            **os.environ, "NEREID_WORKER": WORKER, "NEREID_NODE": NODE, "NEREID_SERVICE": SERVICE,
            "NEREID_BROKER": broker.url, "NEREID_STATE": str(state / "worker"),
        }  # fmt: skip
        with (state / "log").open("wb") as log:
            worker = _python(mine, ["-m", "nereid_worker"], env=env, stdout=log, stderr=log)
        _wait_for(out, worker, state / "log")
    finally:
        for process in (worker, peer):
            if process is not None:
                process.terminate()
                process.wait(20)
        broker.kill()
    outcome: dict[str, Any] = json.loads(out.read_text())
    return outcome


def _python(core: int | None, arguments: list[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start Python, on one core where given."""
    command = [sys.executable, *arguments]
    return subprocess.Popen(command if core is None else [sys.executable, "-c", _PIN, str(core), *command], **options)


def _wait_for(out: Path, worker: subprocess.Popen[bytes], log: Path) -> None:
    pause = threading.Event()
    deadline = time.monotonic() + TIMEOUT_S
    while not out.exists():
        if worker.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the worker did not finish:\n{log.read_text()[-4000:]}")
        pause.wait(0.1)


def write_inputs(folder: Path) -> None:
    """Write a model of about a millisecond with its card, and eight JPEGs of 640x480."""
    (folder / "busy.tflite").write_bytes(busy())
    labels = [str(n) for n in range(10)]
    card = {
        "schema": "nereid.io/model-card/v1", "name": "busy", "version": "1", "task": "classification",
        "input": {
            "layout": "NHWC", "colorOrder": "RGB", "resize": "stretch", "interpolation": "linear",
            "normalization": {"unit": "unit", "mean": [0.5], "std": [0.25]},
        },
        "output": {"kind": "logits", "labels": labels},
    }  # fmt: skip
    (folder / "model.json").write_text(json.dumps(card))
    rng = np.random.default_rng(1)
    for number in range(8):
        coarse = rng.integers(0, 256, (15, 20, 3), np.uint8)
        smooth = cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC).astype(np.int16)
        noisy = np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number}.jpg"), noisy, [cv2.IMWRITE_JPEG_QUALITY, 85])


def _import_s() -> float:
    """Return what importing all of an edge worker takes beyond starting Python."""
    bare, whole = "pass", "import nereid_worker.process, nereid_worker.classifier, cv2, ai_edge_litert.interpreter"

    def fastest(code: str) -> float:
        spent = []
        for _ in range(5):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            spent.append(time.perf_counter() - began)
        return min(spent)

    return fastest(whole) - fastest(bare)
