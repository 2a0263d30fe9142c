# SPDX-License-Identifier: Apache-2.0
"""The demo as a user runs it: whole, interrupted, and with each part killed in the middle of the stream."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.check_demo import problems_of
from tests.flow import patience, processes

from nereid_cloud.laptop.system import BASE_PORT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(480)]
PARTS = ["gm", "lc-edge-0", "broker-cloud", "broker-edge-0", "worker-edge", "worker-cloud", "podrunner-edge-0"]


@contextlib.contextmanager
def demo(state: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    argv = [
        sys.executable,
        "-m",
        "nereid_cloud.cli",
        "demo",
        "--json",
        "--base-port",
        "0",
        "--state",
        str(state),
        *arguments,
    ]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def logged(state: Path) -> int:
    """How many samples the edge workers have answered."""
    return sum(
        line.count('"event": "edge"')
        for log in state.glob("nodes/*/var/lib/nereid/workers/*/answers.jsonl")
        for line in log.read_text().splitlines()
    )


def until_it_streams(process: subprocess.Popen[str], state: Path, *, samples: int) -> None:
    """Return when so many samples were answered; fail with the demo's own words where it ends before."""
    is_over = patience.until(
        lambda: process.poll() is not None or (logged(state) > samples and "streams"), "the stream", within_s=150
    )
    assert is_over == "streams", process.communicate()[1]


def finished(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate()
    assert process.returncode == 0, err
    report = json.loads(out)
    assert isinstance(report, dict)
    return report


def test_the_demo_tells_the_truth_and_leaves_nothing_behind(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with demo(state, "--samples", "300", "--nodes", "2") as process:
        report = finished(process)
    assert problems_of(report, samples=300) == []
    processes.assert_none_left(state)


def test_a_cut_link_makes_corrections_and_loses_nothing(tmp_path: Path) -> None:
    with demo(tmp_path / "state", "--samples", "400") as process:
        report = finished(process)
    assert problems_of(report, samples=400) == []
    assert report["degraded"] > 0
    assert report["corrected"] > 0
    assert report["accuracy"]["joint"] >= report["accuracy"]["joint_live"]


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_killed_in_the_middle_costs_no_sample(tmp_path: Path, part: str) -> None:
    state = tmp_path / "state"
    with demo(state, "--samples", "250", "--no-cut") as process:
        until_it_streams(process, state, samples=60)
        os.kill(processes.part(state, part), signal.SIGKILL)
        report = finished(process)
    assert problems_of(report, samples=250) == []
    processes.assert_none_left(state)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_an_interrupted_demo_takes_everything_down(tmp_path: Path, number: signal.Signals) -> None:
    state = tmp_path / "state"
    with demo(state) as process:
        until_it_streams(process, state, samples=20)
        process.send_signal(number)
        process.communicate()
    assert process.returncode == {signal.SIGKILL: -signal.SIGKILL}.get(number, 130)
    processes.assert_none_left(state, within_s=60)


def test_taken_ports_do_not_hinder_the_demo(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # where they are taken already, that is as good
            stack.enter_context(socket.create_server(("127.0.0.1", BASE_PORT)))
        words = ["demo", "--json", "--state", str(tmp_path / "state"), "--samples", "40", "--no-cut"]
        argv = [sys.executable, "-m", "nereid_cloud.cli", *words]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["seen"] == 40


def test_too_many_samples_are_refused_with_the_mend(tmp_path: Path) -> None:
    with demo(tmp_path / "state", "--samples", "999999") as process:
        _, err = process.communicate()
    assert process.returncode == 2
    assert "--samples" in err
    assert "Traceback" not in err


def test_a_used_state_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("keep me")
    with demo(tmp_path) as process:
        _, err = process.communicate()
    assert process.returncode == 2
    assert "fresh" in err
    assert (tmp_path / "mine").read_text() == "keep me"


def test_a_served_model_rolls_out_and_its_broken_versions_never_answer(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with demo(state, "serving", "--samples", "40") as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    report = json.loads(out)
    assert (report["failed"], report["wrong"]) == (0, 0)
    assert report["versions"].keys() == {"1", "2"}
    assert report["requests"] == sum(report["versions"].values()) >= 2 * 4 * 40
    assert {(one["place"], one["version"], one["reason"]) for one in report["rollbacks"]} == {
        (place, version, reason)
        for place in ("cloud", "edge-0")
        for version, reason in (("3", "DigestMismatch"), ("4", "SelfTestFailed"))
    }
    assert {model["status"]["servingVersion"] for model in report["models"].values()} == {"2"}
    processes.assert_none_left(state)
