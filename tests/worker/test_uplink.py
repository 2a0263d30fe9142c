# SPDX-License-Identifier: Apache-2.0
"""The uplink and the page: what a kill could take back does not leave the process, and nobody can accept it."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.mosquitto import Mosquitto
from tests.worker.lc_peer import NODE, SERVICE, WORKER, LcPeer, answer_to, never
from tests.worker.scenes import HARD, picture

from nereid_shared.messages import WorkerInfo
from nereid_shared.samples import Result
from nereid_worker.encoding import encode_frame, to_spool
from nereid_worker.page import Page
from nereid_worker.settings import Settings
from nereid_worker.spool import Spool
from nereid_worker.uplink import Uplink

WAIT_S = 30.0


class Edge:
    """An uplink with its page and spool, and the inference thread's part played by the test."""

    def __init__(self, url: str, folder: Path) -> None:
        self.page, self.spool = Page(folder / "page", now_us=1), Spool(folder / "spool", capacity_bytes=1 << 20)
        self.message = ""
        self.answered = threading.Event()
        settings = Settings.from_env({
            "NEREID_WORKER": WORKER, "NEREID_SERVICE": SERVICE, "NEREID_NODE": NODE, "NEREID_BROKER": url,
            "NEREID_STATE": str(folder),
        })  # fmt: skip
        self.uplink = Uplink(
            settings, info=self.info, on_task=lambda _: None, on_result=self.take, on_room=lambda: None,
            on_failure=lambda: None,
        )  # fmt: skip
        self.uplink.start()
        self.uplink.attach(self.page, self.spool)

    def info(self, number: int) -> WorkerInfo:
        return WorkerInfo(
            name=WORKER, namespace="n", owner_name="o", owner_kind="k", status="running", number=number,
            stream=self.page.stream, accepted=self.uplink.accepted, message=self.message,
        )  # fmt: skip

    def take(self, _result: Result) -> None:
        self.answered.set()

    def spool_one(self) -> None:
        """Put the next sample into the spool and number it; `Page.commit` is the test's."""
        seq = self.page.seq + 1
        body = to_spool(
            stream=self.page.stream, seq=seq, key=str(seq), captured_at=1.0, deadline_s=time.monotonic() + 3600.0,
            label="dark", score=0.5, counts=(seq, 0, seq, 0), encoded=encode_frame(picture(HARD)),
        )  # fmt: skip
        assert self.spool.append(seq, body)
        self.page.seq = seq

    def report(self, message: str) -> None:
        """Ring, and then say something: what was rung for goes before it."""
        self.message = message
        self.uplink.notify()
        self.uplink.report()


@pytest.fixture
def edge(broker: Mosquitto, tmp_path: Path) -> Iterator[Edge]:
    made = Edge(broker.url, tmp_path / "state")
    yield made
    made.uplink.stop()
    made.page.close()
    made.spool.close()


def test_a_sample_that_is_not_counted_yet_is_not_sent(broker: Mosquitto, edge: Edge) -> None:
    with LcPeer(broker.url) as peer:
        edge.spool_one()
        edge.page.commit()
        edge.spool_one()
        edge.report("one is counted")
        peer.wait(lambda: peer.infos and peer.last.message == "one is counted" and edge.uplink.accepted == 1)
        edge.report("one is accepted")
        peer.wait(lambda: peer.last.message == "one is accepted")
        assert [sample.seq for sample in peer.samples] == [1]
        edge.page.commit()
        edge.uplink.notify()
        peer.wait(lambda: [sample.seq for sample in peer.samples] == [1, 2])


@pytest.mark.parametrize("seq", [2, 10])
def test_an_acceptance_of_what_is_not_counted_yet_releases_nothing(broker: Mosquitto, edge: Edge, seq: int) -> None:
    with LcPeer(broker.url, behaviour=never) as peer:
        edge.spool_one()
        edge.page.commit()
        edge.uplink.notify()
        peer.wait(lambda: edge.uplink.accepted == 1)
        edge.spool_one()
        peer.accept(edge.page.stream, seq)
        peer.send(answer_to(peer.samples[0]))  # what comes after it shows that it was taken in
        assert edge.answered.wait(WAIT_S)
        assert (edge.uplink.accepted, edge.spool.oldest_seq) == (1, 2)
        edge.page.commit()
        edge.uplink.notify()
        peer.wait(lambda: [sample.seq for sample in peer.samples] == [1, 2])
        peer.wait(lambda: edge.uplink.accepted == 2)
