# SPDX-License-Identifier: Apache-2.0
"""What a worker makes of a state folder that a kill, a power cut or a bad disk left behind."""

from pathlib import Path

import pytest
from tests.mosquitto import Mosquitto
from tests.worker.lc_peer import LcPeer
from tests.worker.scenes import EASY, HARD, Worker, dataset_of, make_task, picture, running, write_dataset, write_model

from nereid_shared.messages import Task
from nereid_worker.encoding import encode_frame, to_spool
from nereid_worker.page import Page
from nereid_worker.spool import Spool

pytestmark = pytest.mark.slow  # each test starts processes


def classify(tmp_path: Path, greys: list[int]) -> Task:
    index = write_dataset(tmp_path / "data", greys)
    return make_task(write_model(tmp_path / "model"), dataset=dataset_of(index))


def state(tmp_path: Path, *, counted: int, kept: list[int]) -> tuple[Path, str]:
    """Write a state folder in which `counted` hard samples were counted, and the spool has those of `kept`."""
    folder = tmp_path / "state"
    with Page(folder / "ledger.page", now_us=1) as page, Spool(folder / "samples.spool") as spool:
        page.seen = page.hard = page.seq = counted
        page.commit()
        for seq in kept:
            spool.append(seq, to_spool(
                stream=page.stream, seq=seq, key=f"old-{seq}", captured_at=1.0, deadline_s=0.0, label="dark",
                score=0.5, counts=(seq, 0, seq, 0), encoded=encode_frame(picture(HARD)),
            ))  # fmt: skip
        return folder, page.stream


def test_a_sample_written_but_never_counted_is_not_sent(tmp_path: Path, broker: Mosquitto) -> None:
    folder, stream = state(tmp_path, counted=1, kept=[1, 2])
    with LcPeer(broker.url, task=classify(tmp_path, [HARD])) as peer, running(Worker(broker.url, folder)):
        peer.wait_status("completed")
        peer.wait(lambda: peer.last.accepted == 2)
        assert [(s.stream, s.seq, s.key) for s in peer.samples] == [
            (stream, 1, "old-1"), (stream, 2, "images/00000.png"),
        ]  # fmt: skip


def test_samples_that_the_spool_has_lost_hold_up_no_later_ones(tmp_path: Path, broker: Mosquitto) -> None:
    folder, stream = state(tmp_path, counted=5, kept=[1, 2])
    with LcPeer(broker.url) as peer, running(Worker(broker.url, folder)) as worker:
        peer.wait(lambda: peer.infos and peer.last.accepted == 5)
        assert [s.seq for s in peer.samples] == [1, 2]
        assert "hard samples are lost" in worker.log()
        peer.give(classify(tmp_path, [HARD]))
        peer.wait_status("completed")
        peer.wait(lambda: peer.last.accepted == 6)
        assert [(s.stream, s.seq) for s in peer.samples] == [(stream, 1), (stream, 2), (stream, 6)]


def test_a_spool_that_is_damaged_as_a_whole_is_said_and_its_samples_given_up(tmp_path: Path, broker: Mosquitto) -> None:
    folder, _ = state(tmp_path, counted=5, kept=[4, 5])
    (folder / "samples.spool").write_bytes(b"\x07" * 5000)
    with LcPeer(broker.url, task=classify(tmp_path, [HARD])) as peer, running(Worker(broker.url, folder)):
        info = peer.wait_status("completed", reason="SpoolDamaged")
        assert "samples.spool" in info.message
        peer.wait(lambda: peer.last.accepted == 6)
        assert [s.seq for s in peer.samples] == [6]
    assert (folder / "samples.spool.damaged-1").read_bytes() == b"\x07" * 5000 + bytes(32 * 1024 * 1024 + 64 - 5000)


def test_a_damaged_page_is_set_aside_and_counting_begins_anew(tmp_path: Path, broker: Mosquitto) -> None:
    folder, stream = state(tmp_path, counted=5, kept=[4, 5])
    (folder / "ledger.page").write_bytes(b"\x07" * 8192)
    with LcPeer(broker.url, task=classify(tmp_path, [EASY, HARD])) as peer, running(Worker(broker.url, folder)) as w:
        info = peer.wait_status("completed", reason="PageDamaged")
        assert info.ledger is not None
        assert (info.ledger.seen, info.ledger.hard) == (2, 1)
        assert info.stream != stream
        assert "2 hard samples are lost" in info.message
        peer.wait(lambda: peer.last.accepted == 1)
        assert [s.key for s in peer.samples] == ["images/00001.png"]
        assert w.stop() == 0
    assert (folder / "ledger.page.damaged-1").read_bytes() == b"\x07" * 8192


def test_an_acceptance_of_what_was_never_sent_releases_nothing(tmp_path: Path, broker: Mosquitto) -> None:
    folder, stream = state(tmp_path, counted=3, kept=[1, 2, 3])
    with LcPeer(broker.url) as peer:
        peer.accepting = False
        with running(Worker(broker.url, folder)) as worker:
            peer.wait(lambda: peer.infos and peer.last.stream == stream)
            peer.accept(stream, 10)
            peer.wait(lambda: "sample 10 is accepted" in worker.log())
            peer.accepting = True
            peer.wait(lambda: peer.last.accepted == 3)
            assert [s.key for s in peer.samples] == ["old-1", "old-2", "old-3"]
