# SPDX-License-Identifier: Apache-2.0
"""The page of counters: what was committed belongs together, whatever interrupts."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nereid_worker.page import Page

COUNT_UNTIL_KILLED = """
import sys
from pathlib import Path
from nereid_worker.page import Page
page = Page(Path(sys.argv[1]), now_us=1)
while True:
    page.seen += 3
    page.easy += 1
    page.hard += 1
    page.failed["error"] += 1
    page.cursor += 3
    page.commit()
    if page.seen == 30000:
        print("counting", flush=True)
"""


def test_a_committed_record_is_there_after_reopening(tmp_path: Path) -> None:
    with Page(tmp_path / "p", now_us=7) as page:
        page.seen, page.easy, page.hard, page.seq, page.cursor = 5, 2, 3, 3, 5
        page.rule_state, page.source = 0.25, b"12345678"
        page.observe("edge", 0.001)
        page.commit()
        stream = page.stream
    with Page(tmp_path / "p", now_us=8) as page:
        assert (page.seen, page.easy, page.hard, page.seq, page.cursor) == (5, 2, 3, 3, 5)
        assert (page.stream, page.rule_state, page.source, page.started_us) == (stream, 0.25, b"12345678", 7)
        assert sum(page.ledger().latency["edge"].values()) == 1


def test_what_was_not_committed_is_as_if_it_had_not_been(tmp_path: Path) -> None:
    with Page(tmp_path / "p", now_us=1) as page:
        page.seen = page.easy = 1
        page.commit()
        page.seen = 99
        assert page.ledger().seen == 1
    with Page(tmp_path / "p", now_us=1) as page:
        assert page.seen == 1


def test_two_pages_have_streams_of_their_own(tmp_path: Path) -> None:
    with Page(tmp_path / "a", now_us=1) as one, Page(tmp_path / "b", now_us=1) as other:
        assert one.stream != other.stream


@pytest.mark.parametrize("attempt", range(3))
def test_a_kill_leaves_counters_that_belong_together(tmp_path: Path, attempt: int) -> None:
    path = tmp_path / "p"
    with subprocess.Popen([sys.executable, "-c", COUNT_UNTIL_KILLED, str(path)], stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        os.kill(worker.pid, signal.SIGKILL)
    with Page(path, now_us=1) as page:
        ledger = page.ledger()
        assert ledger.seen >= 30000
        assert ledger.seen == ledger.easy + ledger.hard + sum(ledger.failed.values()) == page.cursor
