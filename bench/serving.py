# SPDX-License-Identifier: Apache-2.0
"""What serving over HTTP costs: requests a second and latencies against the bare LiteRT loop and against LitServe.

The servers have one core, the bare loop the same one in its turns, and the load the other core. The model takes about a
millisecond; a tensor is its input as bytes (28 kB), a picture a 640x480 JPEG. LitServe, a small model server from PyPI,
serves the same model with the same preprocessing where it is installed (``uv sync --inexact --group peers``). CPU times
are those of a server's processes together, and steadier than rates where others work on the machine.
"""

import base64
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import psutil
from tests.mosquitto import free_port

from bench.edge_loop import write_inputs
from bench.figures import Figure
from bench.serving_load import Outcome, closed_loop, post
from nereid_shared.messages import ServedVersion, ServingTask
from nereid_worker.classifier import Classifier

CONNECTIONS: Final = (1, 8)
ROUNDS: Final = 9
QUICK_ROUNDS: Final = 2
SEGMENT: Final = 400
START_S: Final = 60.0
_PIN: Final = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); os.execv(sys.executable, sys.argv[2:])"
_PEER: Final = Path(__file__).parent / "scripts" / "litserve_peer.py"


def run(*, quick: bool) -> list[Figure]:
    """Return rates and latencies of tensors and pictures, and their ratios to the bare loop's rate."""
    rounds = QUICK_ROUNDS if quick else ROUNDS
    cores = sorted(os.sched_getaffinity(0))
    theirs, mine = cores[0], cores[-1]
    has_peer = importlib.util.find_spec("litserve") is not None
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as made, _pinned():
        folder = Path(made)
        write_inputs(folder)
        model = Classifier.load(folder)
        rows = np.random.default_rng(1).random(model.interpreter.input.shape).astype(np.float32)
        picture = (folder / "0.jpg").read_bytes()
        text = base64.b64encode(picture).decode()
        with _ours(folder, core=theirs) as ours, _peer(folder, core=theirs, wanted=has_peer) as peer:
            cases = [
                _Case("tensor", ours, _tensor(model.interpreter.input.name, rows), lambda: model.interpreter.run(rows)),
                _Case("picture", ours, _picture(picture), lambda: model.predict(picture)),
                _Case(
                    "picture in JSON", ours,
                    post("/v1/models/busy:predict", json.dumps({"instances": [{"b64": text}]}).encode()),
                    lambda: model.predict(base64.b64decode(text)),
                ),
            ]  # fmt: skip
            if peer is not None:
                request = post("/predict", json.dumps({"b64": text}).encode(), Content_Type="application/json")
                cases.append(
                    _Case("LitServe, picture in JSON", peer, request, lambda: model.predict(base64.b64decode(text)))
                )
            for case in cases:
                figures += _measure(case, cores=(theirs, mine), rounds=rounds)
    if not has_peer:
        print("LitServe is not installed: uv sync --inexact --group peers", file=sys.stderr)
    return figures


class _Served(NamedTuple):
    """A server: its port, and its process."""

    port: int
    process: psutil.Process

    def cpu_s(self) -> float:
        """Return the CPU time that it has taken, its children's too."""
        times = [one.cpu_times() for one in (self.process, *self.process.children(recursive=True))]
        return sum(one.user + one.system for one in times)


class _Case(NamedTuple):
    name: str
    server: _Served
    request: bytes
    bare: Callable[[], object]


def _measure(case: _Case, *, cores: tuple[int, int], rounds: int) -> list[Figure]:
    """Run the bare loop and each number of connections in turn."""
    bares: list[tuple[float, float]] = []
    loops: dict[int, list[tuple[Outcome, float]]] = {count: [] for count in CONNECTIONS}
    for _ in range(rounds + 1):
        os.sched_setaffinity(0, {cores[0]})
        began, cpu_s = time.perf_counter(), time.process_time()
        for _ in range(SEGMENT):
            case.bare()
        bares.append((SEGMENT / (time.perf_counter() - began), time.process_time() - cpu_s))
        os.sched_setaffinity(0, {cores[1]})
        for count, outcomes in loops.items():
            cpu_s = case.server.cpu_s()
            outcome = closed_loop(case.server.port, case.request, connections=count, total=SEGMENT)
            outcomes.append((outcome, case.server.cpu_s() - cpu_s))
    bare_ms = statistics.median(cpu_s for _, cpu_s in bares[1:]) / SEGMENT * 1e3
    rate = statistics.median(rate for rate, _ in bares[1:])
    figures = [Figure(name=f"{case.name}: bare loop", value=rate, unit="1/s", note=f"CPU {bare_ms:.3f} ms")]
    for count, outcomes in loops.items():
        # The first round warms up, caches and batch sizes alike.
        ratios = [one.rate / alone for (one, _), (alone, _) in zip(outcomes[1:], bares[1:], strict=True)]
        p50, p99 = (statistics.median(one.quantile_ms(share) for one, _ in outcomes[1:]) for share in (0.5, 0.99))
        cpu_ms = statistics.median(cpu_s for _, cpu_s in outcomes[1:]) / SEGMENT * 1e3
        rate = statistics.median(one.rate for one, _ in outcomes[1:])
        at = f"{case.name}, {count} connection{'s' if count > 1 else ''}"
        figures += [
            Figure(
                name=f"{at}: served / bare", value=statistics.median(ratios), unit="",
                note=f"median of {rounds} rounds, {min(ratios):.2f} to {max(ratios):.2f}; {rate:.0f}/s",
            ),
            Figure(name=f"{at}: CPU a request", value=cpu_ms, unit="ms", note=f"bare loop {bare_ms:.3f}"),
            Figure(name=f"{at}: p99", value=p99, unit="ms", note=f"p50 {p50:.2f}"),
        ]  # fmt: skip
    return figures


def _tensor(name: str, rows: np.ndarray) -> bytes:
    data = rows.tobytes()
    given = {
        "name": name, "shape": rows.shape, "datatype": "FP32", "parameters": {"binary_data_size": len(data)},
    }  # fmt: skip
    return _infer(given, data)


def _picture(file: bytes) -> bytes:
    data = len(file).to_bytes(4, "little") + file
    given = {
        "name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(data)},
    }  # fmt: skip
    return _infer(given, data)


def _infer(given: Mapping[str, object], data: bytes) -> bytes:
    head = json.dumps({"inputs": [given], "parameters": {"binary_data_output": True}}).encode()
    return post("/v2/models/busy/infer", head + data, Inference_Header_Content_Length=str(len(head)))


@contextmanager
def _ours(folder: Path, *, core: int) -> Iterator[_Served]:
    port = free_port()
    task = ServingTask(
        uid="u", namespace="default", name="bench", generation=1, hash="h", model_name="busy", framework="tflite",
        target="1", versions=[ServedVersion(version="1", url=str(folder / "busy.tflite"))], port=port,
    )  # fmt: skip
    env = {
        "NEREID_ROLE": "serving", "NEREID_WORKER": "bench", "NEREID_PORT": str(port), "NEREID_LISTEN": "127.0.0.1",
        "NEREID_TASK": task.encode().decode(),
    }  # fmt: skip
    with _server(["-m", "nereid_worker"], f"http://127.0.0.1:{port}/v2/health/ready", core=core, env=env) as process:
        yield _Served(port, process)


@contextmanager
def _peer(folder: Path, *, core: int, wanted: bool) -> Iterator[_Served | None]:
    if not wanted:
        yield None
        return
    port = free_port()
    command = [str(_PEER), str(folder), str(port)]
    with _server(command, f"http://127.0.0.1:{port}/health", core=core, env={}) as process:
        yield _Served(port, process)


@contextmanager
def _server(arguments: list[str], ready: str, *, core: int, env: dict[str, str]) -> Iterator[psutil.Process]:
    command = [sys.executable, "-c", _PIN, str(core), sys.executable, *arguments]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, env={**os.environ, **env}, stdout=log, stderr=log)
        try:
            _wait_for(ready, process)
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(30)


def _wait_for(ready: str, process: "subprocess.Popen[bytes]") -> None:
    pause, deadline = threading.Event(), time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(ready, timeout=5) as answer:  # noqa: S310 - ours
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pause.wait(0.1)
    raise RuntimeError(f"{ready} was not there within {START_S:g} s")


@contextmanager
def _pinned() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
