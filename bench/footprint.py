# SPDX-License-Identifier: Apache-2.0
"""What the edge has to spare for Nereid: the LocalController's memory and idle CPU, size on disk, start of a worker.

The LocalController is the real process with two real brokers, a service with a running worker, a dataset, and the
laptop's status interval of a second; then 5,000 samples of 2 kB go through it.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import zipfile
from pathlib import Path
from typing import Final

from bench.figures import Figure
from bench.node import NodeRig, cloud_task, cpu_s, dataset_row, rss_mib, service, service_row
from bench.pictures import card, frame

SAMPLES: Final = 5000
QUICK_SAMPLES: Final = 200
SAMPLE_BYTES: Final = 2000
IDLE_S: Final = 20.0
QUICK_IDLE_S: Final = 5.0
RSS_MIB: Final = 40.0
IDLE_CPU_PERCENT: Final = 0.5
DISK_MB: Final = 20.0
_REPOSITORY: Final = Path(__file__).parent.parent
_MB: Final = 1e6


def run(*, quick: bool) -> list[Figure]:
    """Return memory and CPU of the LocalController, size on disk, and what a worker's start takes."""
    return [*_controller(quick=quick), *_on_disk(), *_imports(repeats=1 if quick else 5)]


def _controller(*, quick: bool) -> list[Figure]:
    idle_s = QUICK_IDLE_S if quick else IDLE_S
    samples = QUICK_SAMPLES if quick else SAMPLES
    pause = threading.Event()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        frames = folder / "frames"
        frames.mkdir()
        (frames / "0.jpg").write_bytes(frame(SAMPLE_BYTES))
        (folder / "data.csv").write_text("name\n" + "frame\n" * 1000)
        model = card(folder)
        with NodeRig(folder) as rig:
            rss: dict[str, float] = {}

            def run_phase(name: str) -> None:
                (folder / f"{name}.go").touch()
                rig.wait_for((folder / f"{name}.done").exists)

            def settle() -> float:
                pause.wait(idle_s)
                return rss_mib(rig.lc_pid)

            cloud = rig.start_cloud_worker(cloud_task(model=model, script="cloud_label.py"))
            rss["no task"] = settle()
            alone = _idle_percent(rig.lc_pid, idle_s)
            row = service_row(
                model=model, script="many.py", folder=made, frames=str(frames), each=str(samples),
                phases="live waiting",
            )  # fmt: skip
            rig.desire({**service(row), "dataset-uid": dataset_row(folder / "data.csv")})
            rig.start_edge_worker()
            rss["service and dataset"] = settle()
            idle = _idle_percent(rig.lc_pid, idle_s)
            run_phase("live")
            rss[f"at the end of {samples} samples"] = rss_mib(rig.lc_pid)
            rss["idle after them"] = settle()
            rig.stop(cloud)
            run_phase("waiting")
            waiting = settle()
            worker_mib = rss_mib(rig.edge_worker_pid)
        figures = [
            Figure(name=f"LocalController: RSS, {when}", value=mb, unit="MiB", target=RSS_MIB, better="lower")
            for when, mb in rss.items()
        ]
        name = f"LocalController: RSS, {samples} samples waiting for the cloud"
        figures.append(Figure(name=name, value=waiting, unit="MiB", note="an outage, not idle"))
        note = f"over {idle_s:g} s"
        for name, percent in (("alone", alone), ("with a service, its worker and a dataset", idle)):
            figures.append(
                Figure(
                    name=f"LocalController: idle CPU, {name}", value=percent, unit="%", target=IDLE_CPU_PERCENT,
                    better="lower", note=note,
                )
            )  # fmt: skip
        return [*figures, Figure(name="edge worker: RSS", value=worker_mib, unit="MiB", note="tiny model, own script")]


def _idle_percent(pid: int, seconds: float) -> float:
    began = cpu_s(pid)
    threading.Event().wait(seconds)
    return (cpu_s(pid) - began) / seconds * 100


def _on_disk() -> list[Figure]:
    """Return what `pip install nereid-ai[edge]` adds to a node that has Python."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        uv = _uv()
        subprocess.run([uv, "build", "--quiet", "--wheel", "--out-dir", made, str(_REPOSITORY)], check=True)
        wheel = next(folder.glob("*.whl"))
        subprocess.run(
            [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", sys.executable, "--target",
             str(folder / "site"), f"{wheel}[edge]"],
            check=True,
        )  # fmt: skip
        sizes = {part.name: _size_mb(part) for part in (folder / "site").iterdir()}
        with zipfile.ZipFile(wheel) as packed:
            data = sum(one.file_size for one in packed.infolist() if "/_data/" in one.filename)
    largest = ", ".join(f"{name} {size:.1f}" for name, size in sorted(sizes.items(), key=lambda one: -one[1])[:4])
    return [
        Figure(
            name="nereid-ai[edge] on disk", value=sum(sizes.values()), unit="MB", target=DISK_MB, better="lower",
            note=f"bytecode included; {largest}; the laptop's data in the wheel {data / _MB:.1f}",
        )
    ]  # fmt: skip


def _uv() -> str:
    beside = Path(sys.executable).parent / "uv"
    found = str(beside) if beside.exists() else shutil.which("uv")
    assert found, "uv is not installed: pip install uv"
    return found


def _size_mb(part: Path) -> float:
    files = [part] if part.is_file() else [file for file in part.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / _MB


def _imports(*, repeats: int) -> list[Figure]:
    """Return what the parts of the edge take to import beyond Python itself, with bytecode on disk."""
    parts = {
        "LocalController": "import nereid_edge.controller",
        "edge worker": "import nereid_worker.process, nereid_worker.classifier, cv2, ai_edge_litert.interpreter",
    }
    probe = (
        "import time; began = time.perf_counter(); {}; spent = time.perf_counter() - began;"
        "kb = next(line.split()[1] for line in open('/proc/self/status') if 'VmRSS' in line); print(spent, kb)"
    )
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    figures = []
    with tempfile.TemporaryDirectory() as bytecode:
        for name, code in parts.items():
            spent, kilobytes = [], []
            for _ in range(repeats + 1):
                said = json.loads(
                    "[" + subprocess.run(
                        [sys.executable, "-c", probe.format(code)], check=True, capture_output=True, text=True,
                        env={**env, "PYTHONPYCACHEPREFIX": bytecode},
                    ).stdout.replace(" ", ",") + "]"
                )  # fmt: skip
                spent.append(said[0])
                kilobytes.append(said[1])
            figures += [
                Figure(name=f"{name}: imports", value=min(spent[1:]), unit="s", note=f"min of {repeats}, warm"),
                Figure(name=f"{name}: RSS after them", value=statistics.median(kilobytes[1:]) / 1024, unit="MiB"),
            ]
    return figures
