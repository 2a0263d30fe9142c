# SPDX-License-Identifier: Apache-2.0
"""The supervisor keeps programs running and leaves none behind."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nereid_cloud.laptop.supervisor import NOT_STARTED, Kept, Program, Supervisor

SLEEP = (sys.executable, "-c", "import time; time.sleep(600)")
DEAF = (
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)",
)
SUPERVISE = """
import asyncio, sys
from pathlib import Path
from nereid_cloud.laptop.supervisor import Program, Supervisor
async def main():
    async with Supervisor() as supervisor:
        kept = supervisor.add(Program(name="x", argv=(sys.executable, "-c", "import time; time.sleep(600)"), env={},
                                      log=Path(sys.argv[1])))
        while not kept.pid:
            await asyncio.sleep(0.01)
        print(kept.pid, flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""


def program(tmp_path: Path, argv: tuple[str, ...] = SLEEP, *, stop_s: float = 5.0) -> Program:
    return Program(name="sleeper", argv=argv, env={}, log=tmp_path / "sleeper.log", stop_s=stop_s)


async def started(kept: Kept, *, times: int = 1) -> int:
    async with asyncio.timeout(30):
        while kept.starts < times or not kept.pid:
            await asyncio.sleep(0.005)
    return kept.pid


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"


async def test_a_program_that_is_killed_starts_again(tmp_path: Path) -> None:
    async with Supervisor() as supervisor:
        kept = supervisor.add(program(tmp_path))
        first = await started(kept)
        os.kill(first, signal.SIGKILL)
        assert await started(kept, times=2) != first


async def test_leaving_ends_every_program(tmp_path: Path) -> None:
    async with Supervisor() as supervisor:
        pid = await started(supervisor.add(program(tmp_path)))
    assert is_gone(pid)


async def test_a_program_that_does_not_listen_is_killed_after_its_time(tmp_path: Path) -> None:
    async with Supervisor() as supervisor:
        kept = supervisor.add(program(tmp_path, DEAF, stop_s=0.2))
        pid = await started(kept)
        async with asyncio.timeout(30):
            while "deaf" not in kept.program.log.read_text():
                await asyncio.sleep(0.01)
    assert is_gone(pid)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_programs_die_with_a_supervisor_that_is_ended(tmp_path: Path, number: signal.Signals) -> None:
    argv = [sys.executable, "-c", SUPERVISE, str(tmp_path / "log")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        pid = int(supervisor.stdout.readline())
        supervisor.send_signal(number)
    end = time.monotonic() + 30
    while not is_gone(pid):
        assert time.monotonic() < end, "the program outlived its supervisor"
        time.sleep(0.01)


async def test_a_change_that_cannot_be_told_ends_no_supervision_and_is_told_later(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    async with Supervisor(on_change=(folder / "told").touch) as supervisor:
        kept = supervisor.add(program(tmp_path))
        os.kill(await started(kept), signal.SIGKILL)
        pid = await started(kept, times=2)
        folder.mkdir()
        async with asyncio.timeout(30):
            while not (folder / "told").exists():
                await asyncio.sleep(0.01)
    assert is_gone(pid)


async def test_a_program_whose_log_cannot_be_opened_is_tried_again(tmp_path: Path) -> None:
    async with Supervisor() as supervisor:
        sleeper = Program(name="sleeper", argv=SLEEP, env={}, log=tmp_path / "later" / "log")
        kept = supervisor.add(sleeper)
        async with asyncio.timeout(30):
            while not kept.ends:
                await asyncio.sleep(0.005)
        assert kept.code == NOT_STARTED
        sleeper.log.parent.mkdir()
        await started(kept)


async def test_leaving_ends_the_others_when_one_could_not_be_supervised(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = False

    def tell() -> None:
        if broken:
            raise RuntimeError("a bug")

    async with Supervisor(on_change=tell) as supervisor:
        first = await started(supervisor.add(program(tmp_path)))
        second = await started(supervisor.add(Program(name="2", argv=SLEEP, env={}, log=tmp_path / "2.log")))
        broken = True
    assert is_gone(first)
    assert is_gone(second)
    assert [record.message for record in caplog.records] == ["process not supervised to its end"] * 2


async def test_leaving_ends_every_program_also_when_it_is_cancelled(tmp_path: Path) -> None:
    up, leave = asyncio.Event(), asyncio.Event()
    pids: list[int] = []

    async def system() -> None:
        async with Supervisor() as supervisor:
            for name in ("first", "second"):
                log = tmp_path / f"{name}.log"
                pids.append(await started(supervisor.add(Program(name=name, argv=SLEEP, env={}, log=log))))
            up.set()
            await leave.wait()

    running = asyncio.create_task(system())
    await up.wait()
    leave.set()
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert all(is_gone(pid) for pid in pids)
