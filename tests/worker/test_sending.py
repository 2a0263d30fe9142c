# SPDX-License-Identifier: Apache-2.0
"""What a hard sample leaves in the page and in the spool, with no network there."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.worker.scenes import HARD, write_dataset

from nereid_shared import topics
from nereid_worker.answers import Answer
from nereid_worker.encoding import ENVELOPE_BYTES, from_spool
from nereid_worker.files import Files
from nereid_worker.page import Page
from nereid_worker.rules import make_rule
from nereid_worker.sending import Sending
from nereid_worker.sources import frame
from nereid_worker.spool import Spool
from nereid_worker.waiting import Inbox, Waiting


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with Page(tmp_path / "page", now_us=1) as made:
        yield made


def make_sending(page: Page, spool: Spool) -> Sending:
    rule = make_rule("Margin", {"threshold": "0.5"}, None)
    return Sending(rule=rule, page=page, spool=spool, waiting=Waiting(), notify=lambda: None, look_after=lambda: None)


def send(sending: Sending, data: bytes, *, source: Files | None = None) -> list[Answer]:
    """Send one hard sample; return what its caller has got already."""
    inbox, item = Inbox(), frame(data, index=0)
    answer = Answer(key=item.key, index=0, label="dark", score=0.5, tier="edge", model="m", is_hard=True)
    sending.send(item, answer, inbox, source, deadline_s=item.captured_s + 3600.0)
    return list(inbox.arrived)


def test_a_sample_that_a_kill_kept_from_the_spool_is_not_counted_and_its_frame_comes_again(tmp_path: Path) -> None:
    dataset = Files(str(write_dataset(tmp_path / "data", [HARD])), "csv")
    with Page(tmp_path / "page", now_us=1) as page:
        spool = Spool(tmp_path / "spool", capacity_bytes=1000)
        sending = make_sending(page, spool)
        spool.close()  # from here on nothing reaches its file, as after a kill
        with pytest.raises((TypeError, ValueError), match="mmap"):
            send(sending, b"frame", source=dataset)
    with Page(tmp_path / "page", now_us=2) as page:
        assert (page.seen, page.hard, page.seq, page.cursor) == (0, 0, 0, 0)


def test_a_refused_sample_has_the_edges_answer_at_once_and_counts_as_degraded(page: Page, tmp_path: Path) -> None:
    with Spool(tmp_path / "spool", capacity_bytes=400) as spool:
        sending = make_sending(page, spool)
        assert send(sending, b"x" * 200) == []
        (full,) = send(sending, b"x" * 200)
        (large,) = send(sending, b"x" * 400)
    assert [(one.degraded, one.reason, one.tier) for one in (full, large)] == [
        (True, "buffer-full", "edge"), (True, "too-large", "edge"),
    ]  # fmt: skip
    ledger = page.ledger()
    assert (ledger.hard, ledger.degraded, ledger.dropped) == (3, 2, {"buffer-full": 1, "too-large": 1})
    assert page.seq == 1


def test_what_the_spool_takes_can_travel_and_a_byte_more_is_refused(page: Page, tmp_path: Path) -> None:
    most = topics.SAMPLES.max_bytes
    with Spool(tmp_path / "spool", capacity_bytes=2 * most) as spool:
        sending = make_sending(page, spool)
        send(sending, b"")
        empty = spool.after(0)
        assert empty is not None
        payload = bytes(most - ENVELOPE_BYTES - len(empty[1]))
        assert send(sending, payload) == []
        assert [answer.reason for answer in send(sending, payload + b"x")] == ["too-large"]
        largest = spool.after(1)
        assert largest is not None
        assert spool.after(2) is None
        assert len(from_spool(largest[1], stream=page.stream, seq=2, now_s=time.monotonic())) <= most
