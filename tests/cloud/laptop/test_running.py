# SPDX-License-Identifier: Apache-2.0
"""``nereid down`` says what is left of a system, also of one whose own account of its processes is lost."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cloud.cli.conftest import command

from nereid_cloud.laptop import remains

pytestmark = pytest.mark.slow  # each test starts processes

# Stands for a system: it holds the state folder and has one part, which it leaves running where it is told so.
SYSTEM = """
import signal, subprocess, sys
from pathlib import Path
from nereid_cloud.laptop import statelock
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
with statelock.held(Path(sys.argv[1])):
    part = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    print(part.pid, flush=True)
    signal.sigwait({signal.SIGTERM})
    if sys.argv[2] == "clean":
        part.kill()
        part.wait()
"""


class FakeSystem:
    """One such system and the id of its part."""

    def __init__(self, state: Path, how: str) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", SYSTEM, str(state), how], stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.part = int(self.process.stdout.readline())
        (self.of_part,) = remains.below(self.process.pid)


@pytest.fixture
def system(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[FakeSystem]:
    found = FakeSystem(tmp_path, request.param)
    with found.process:
        yield found
        if found.of_part.is_alive:
            os.kill(found.part, signal.SIGKILL)
        found.process.kill()


def down(state: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command("--state", str(state), "down"), check=False, capture_output=True, text=True, timeout=30
    )


@pytest.mark.parametrize("system", ["clean"], indirect=True)
def test_down_is_content_when_nothing_is_left(system: FakeSystem, tmp_path: Path) -> None:
    done = down(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert not system.of_part.is_alive


@pytest.mark.parametrize("system", ["leave"], indirect=True)
def test_down_names_what_is_left_and_fails(system: FakeSystem, tmp_path: Path) -> None:
    done = down(tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{system.part}  {sys.executable} -c" in done.stderr
