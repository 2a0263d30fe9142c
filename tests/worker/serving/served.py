# SPDX-License-Identifier: Apache-2.0
"""A serving worker on a free port, with models whose answers tell which of them gave them."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tests import tiny_models

from nereid_shared.messages import ServedVersion, ServingTask
from nereid_worker.serving.process import ServingProcess
from nereid_worker.settings import Settings

MODEL, WAIT_S = "brightness", 20.0


def png(value: int) -> bytes:
    done, data = cv2.imencode(".png", np.full((8, 8), value, np.uint8))
    assert done
    return bytes(data)


def model_in(folder: Path, *, shift: float = 0.0, card: bool = True, golden: float | None = None, **more: Any) -> Path:
    """Write a model of (-8m, 8m + shift) for the mean m of its picture.

    Args:
        shift: tells models apart: it is what the second figure is for a black picture.
        golden: what the card promises that figure to be; None leaves the card without a golden input.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ones = np.full(64, 8 / 64)
    file = folder / "model.tflite"
    file.write_bytes(tiny_models.dense(np.stack([-ones, ones]), np.array([0.0, shift]), (8, 8, 1), **more))
    if card:
        body: dict[str, Any] = {
            "schema": "nereid.io/model-card/v1", "name": MODEL, "version": "1", "task": "classification",
            "input": {
                "layout": "NHWC", "colorOrder": "GRAY", "resize": "stretch", "interpolation": "linear",
                "normalization": {"unit": "unit", "mean": [0], "std": [1]},
            },
            "output": {"kind": "logits", "labels": ["dark", "bright"]},
        }  # fmt: skip
        if golden is not None:
            (folder / "black.png").write_bytes(png(0))
            body["golden"] = [{"input": "black.png", "output": [0.0, golden]}]
        (folder / "model.json").write_text(json.dumps(body))
    return file


def version_of(file: Path, version: str, *, sha256: str = "") -> ServedVersion:
    return ServedVersion(version=version, url=str(file), sha256=sha256)


def task_of(*versions: ServedVersion, target: str = "", **more: Any) -> ServingTask:
    target = target or versions[-1].version
    fields: dict[str, Any] = {
        "uid": "01234567-89ab", "namespace": "default", "name": "isv", "generation": 1, "model_name": MODEL,
        "framework": "tflite", "port": 0,
    }  # fmt: skip
    body = repr((versions, target, more)).encode()
    fields["hash"] = hashlib.sha256(body).hexdigest()
    return ServingTask(**(fields | more), target=target, versions=list(versions))


def settings_of(task: ServingTask | None, **more: Any) -> Settings:
    fields: dict[str, Any] = {
        "role": "serving", "worker": "isv-1", "node": "", "service": "", "broker": "", "state": Path(),
        "task": task.encode().decode() if task else "", "info_interval_s": 0.1, "json_logs": False,
        "listen": "127.0.0.1",
    }  # fmt: skip
    return Settings(**(fields | more))


@asynccontextmanager
async def running(task: ServingTask | None, **more: Any) -> AsyncIterator[ServingProcess]:
    """A process's whole worker, not yet serving; drained at the end."""
    process = ServingProcess(settings_of(task, **more), lame_duck_s=0.0)
    async with asyncio.TaskGroup() as group:
        group.create_task(process.run())
        try:
            yield process
        finally:
            process.stop()


@asynccontextmanager
async def serving(task: ServingTask, **more: Any) -> AsyncIterator[ServingProcess]:
    """A worker that listens."""
    async with running(task, **more) as process:
        await listening(process)
        yield process


async def listening(process: ServingProcess) -> str:
    """Return the worker's address once it listens."""
    async with asyncio.timeout(WAIT_S):
        await process.listening.wait()
    return f"127.0.0.1:{process.server.port}"


def url(process: ServingProcess, path: str = "") -> str:
    return f"http://127.0.0.1:{process.server.port}{path}"
