# SPDX-License-Identifier: Apache-2.0
"""A run that cannot be started leaves nothing that a later start would stumble over."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nereid_cloud.laptop.podrunner.attempt import Attempt, Launch


@contextmanager
def full_disk() -> Iterator[None]:
    """Let this process write no byte to a file; it may make files, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_run_that_the_disk_has_no_room_for_can_be_started_later(tmp_path: Path) -> None:
    folder = tmp_path / "0"
    log = tmp_path / "log"
    launch = Launch(argv=(sys.executable, "-c", ""), env={}, cwd=tmp_path, log=log, log_bytes=1000)
    with full_disk(), pytest.raises(OSError, match="File too large"):
        await Attempt.start(folder, launch)
    assert not folder.exists()
    attempt = await Attempt.start(folder, launch)
    assert (await attempt.ended()).exit_code == 0
