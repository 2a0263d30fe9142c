# SPDX-License-Identifier: Apache-2.0
"""How long a hard sample takes to the cloud and back, against a bare paho echo of the same 20 kB.

Both go edge broker → relay → cloud broker → answer and back, QoS 1, TCP_NODELAY everywhere, in turns in one run; client
of both is the same process. It is judged by both echoes: paho as documented, with its network thread, and ``one
thread``, which never wakes another (see `bench.echo`). The product's way has all of it: msgpack and sha256, spool, the
worker's link thread, the LocalController's outbox with its commit (which the answer does not wait for), shared
subscription and micro-batch.
Judged without a picture's codec on either side: the clock starts with the edge's answer, the big model is a constant.
With it on both sides (whole `infer`, a trivial .tflite on each) for information.
"""

import json
import statistics
import tempfile
from pathlib import Path
from typing import Final

from bench.echo import SELECT, THREADS
from bench.figures import Figure
from bench.node import NodeRig, cloud_task, service, service_row
from bench.pictures import card, frame

SIZE_BYTES: Final = 20_000
SEGMENT: Final = 10
ROUNDS: Final = 300
QUICK_ROUNDS: Final = 20
TARGETS: Final = {50: 1.25, 99: 3.0}


def run(*, quick: bool) -> list[Figure]:
    """Return ratios and absolute times, without and with a codec."""
    rounds = QUICK_ROUNDS if quick else ROUNDS
    bare = _measure(codec="none", rounds=rounds)
    figures = [
        _ratio("product / echo", bare, "whole", percent, target=TARGETS[percent]) for percent in TARGETS
    ] + [
        _ratio("product / echo in one thread", bare, "one thread", percent, target=TARGETS[percent])
        for percent in TARGETS
    ] + [_ratio("product / echo with a short answer", bare, "short", percent) for percent in TARGETS]  # fmt: skip
    figures += _absolute(bare, {
        "product": "product", "whole": "echo, 20 kB both ways", "short": "echo, 20 kB up and 300 B down",
        "one thread": "echo, 20 kB both ways, in one thread", "floor": "floor: one broker, one client",
    })  # fmt: skip
    decoded = _measure(codec="both", rounds=rounds)
    figures += [_ratio("with codec: product / echo", decoded, "decoded", percent) for percent in TARGETS]
    return figures + _absolute(decoded, {"product": "with codec: product", "decoded": "with codec: echo"})


def _measure(*, codec: str, rounds: int) -> dict[str, list[float]]:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        model, out = card(folder), folder / "out.json"
        (folder / "frame.jpg").write_bytes(frame(SIZE_BYTES))
        with NodeRig(folder) as rig:
            for way in (THREADS, SELECT):
                rig.start(f"relay-{way}", ["bench.echo", "relay", way, str(rig.edge.port), str(rig.cloud.port)])
                rig.start(f"answer-{way}", ["bench.echo", "answer", way, str(rig.cloud.port)])
            script = "" if codec == "both" else "cloud_label.py"
            rig.start_cloud_worker(cloud_task(model=model, script=script))
            row = service_row(
                model=model, script="round_trip.py", out=str(out), codec=codec,
                frame=str(folder / "frame.jpg"), edge_port=str(rig.edge.port), rounds=str(rounds), segment=str(SEGMENT),
            )  # fmt: skip
            rig.desire(service(row))
            rig.start_edge_worker()
            rig.wait_for(out.exists)
        seconds: dict[str, list[float]] = json.loads(out.read_text())
        return seconds


def _ratio(name: str, seconds: dict[str, list[float]], base: str, percent: int, target: float | None = None) -> Figure:
    value = _percentile(seconds["product"], percent) / _percentile(seconds[base], percent)
    note = f"{len(seconds['product'])} of each, in turns of {SEGMENT}"
    return Figure(name=f"{name}, p{percent}", value=value, unit="", target=target, better="lower", note=note)


def _absolute(seconds: dict[str, list[float]], names: dict[str, str]) -> list[Figure]:
    return [
        Figure(name=f"{name}, p{percent}", value=_percentile(seconds[key], percent) * 1e3, unit="ms")
        for key, name in names.items()
        for percent in TARGETS
    ]


def _percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]
