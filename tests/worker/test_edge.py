# SPDX-License-Identifier: Apache-2.0
"""Joint inference as a script sees it, in this process: a real broker, a real model, a scripted LocalController."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from tests.mosquitto import Mosquitto, free_port
from tests.worker.lc_peer import NODE, SERVICE, WORKER, LcPeer, answer_to, at_once, never
from tests.worker.scenes import EASY, HARD, picture, write_dataset, write_model

from nereid_shared.messages import Ledger, WorkerInfo
from nereid_shared.samples import Result, Sample
from nereid_worker.answers import Answer
from nereid_worker.classifier import Classifier
from nereid_worker.edge import JointInference, Results
from nereid_worker.files import Files
from nereid_worker.page import Page
from nereid_worker.rules import make_rule
from nereid_worker.settings import Settings
from nereid_worker.sources import Live
from nereid_worker.spool import Spool
from nereid_worker.uplink import Uplink

FRAMES = {grey: picture(grey) for grey in (EASY, HARD)}

FAR_S = 3600.0
"""A deadline that no test lives to see: who waits for it, hangs."""

WAIT_S = 30.0


class Rig:
    """A service with its page, spool and uplink."""

    def __init__(
        self, url: str, folder: Path, *, deadline_s: float = FAR_S, spool_bytes: int = 1 << 20, rule: str = "0.5",
        budget: str | None = None,
    ) -> None:  # fmt: skip
        self.page = Page(folder / "page", now_us=1)
        self.spool = Spool(folder / "spool", capacity_bytes=spool_bytes)
        self.spool.drop_after(self.page.seq)
        results: Results = Results()
        self.uplink = Uplink(
            Settings.from_env({
                "NEREID_WORKER": WORKER, "NEREID_SERVICE": SERVICE, "NEREID_NODE": NODE, "NEREID_BROKER": url,
                "NEREID_STATE": str(folder), "NEREID_INFO_INTERVAL": "0.1", "NEREID_KEEPALIVE": "7",
            }),
            info=self.info, on_task=lambda _: None, on_result=lambda r: results.put((r, time.monotonic())),
            on_room=lambda: self.service.has_room(),  # noqa: PLW0108 - the service is made below
            on_failure=lambda: None,
        )  # fmt: skip
        self.service = JointInference(
            classifier=Classifier.load(write_model(folder / "model")),
            rule=make_rule("Margin", {"threshold": rule}, budget), page=self.page, spool=self.spool,
            notify=self.uplink.notify, deadline_s=deadline_s, results=results, state=folder,
        )  # fmt: skip
        self.uplink.start()
        self.uplink.attach(self.page, self.spool)

    def info(self, number: int) -> WorkerInfo:
        return WorkerInfo(
            name=WORKER, namespace="n", owner_name="o", owner_kind="k", status="running", number=number,
            ledger=self.page.ledger(), stream=self.page.stream, accepted=self.uplink.accepted,
        )  # fmt: skip

    @property
    def ledger(self) -> Ledger:
        return self.page.ledger()

    def close(self) -> None:
        self.uplink.stop()
        self.page.close()
        self.spool.close()


Make = Callable[..., Rig]


@pytest.fixture
def make(tmp_path: Path, broker: Mosquitto) -> Iterator[Make]:
    rigs: list[Rig] = []

    def rig(**options: object) -> Rig:
        rigs.append(Rig(broker.url, tmp_path / "rig", **options))  # type: ignore[arg-type] # passed on
        return rigs[-1]

    yield rig
    for one in rigs:
        one.close()


def first(answers: Iterable[Answer], count: int) -> list[Answer]:
    """Return as many answers, and leave the rest where it is."""
    return list(islice(answers, count))


def test_infer_gives_the_edges_answer_to_an_easy_frame_and_the_clouds_to_a_hard_one(
    broker: Mosquitto, make: Make
) -> None:
    with LcPeer(broker.url):
        service = make().service
        easy, hard = service.infer(FRAMES[EASY], key="a"), service.infer(FRAMES[HARD], key="b")
    assert (easy.key, easy.label, easy.tier, easy.is_hard, easy.cloud) == ("a", "dark", "edge", False, None)
    assert (hard.key, hard.label, hard.tier, hard.is_hard, hard.degraded) == ("b", "cloud", "cloud", True, False)
    assert hard.edge is not None
    assert hard.cloud is not None
    assert (hard.edge.model, hard.cloud.model, hard.model) == (service.classifier.digest, "b" * 64, "b" * 64)
    assert hard.reason == "p1-p2<0.5"


def test_the_broker_is_told_the_pods_keepalive(broker: Mosquitto, make: Make) -> None:
    with LcPeer(broker.url):
        make().service.infer(FRAMES[HARD], key="a")
    assert f"as nereid-worker-{WORKER} (p5, c1, k7)" in broker.log()


def test_infer_waits_at_most_the_deadline_and_corrects_later(broker: Mosquitto, make: Make) -> None:
    with LcPeer(broker.url, behaviour=never) as peer:
        rig = make(deadline_s=0.15)
        began = time.monotonic()
        answer = rig.service.infer(FRAMES[HARD], key="late")
        assert time.monotonic() - began >= 0.15
        assert (answer.tier, answer.degraded, answer.is_hard) == ("edge", True, True)
        peer.wait(lambda: peer.samples)
        peer.send(answer_to(peer.samples[0]))
        (correction,) = first(rig.service.corrections(timeout_s=WAIT_S), 1)
        assert (correction.key, correction.label, correction.tier) == ("late", "cloud", "cloud")
        assert correction.edge == answer.edge
        assert correction.captured_at == answer.captured_at
        assert (rig.ledger.degraded, rig.ledger.corrected) == (1, 1)


def test_nobody_waits_for_a_broker_that_is_not_there(tmp_path: Path) -> None:
    rig = Rig(f"mqtt://127.0.0.1:{free_port()}", tmp_path / "rig", deadline_s=0.1)
    answers = list(rig.service.stream([FRAMES[HARD], FRAMES[EASY]] * 5))
    assert sorted((a.is_hard, a.degraded) for a in answers) == [(False, False)] * 5 + [(True, True)] * 5
    rig.close()


def test_easy_answers_do_not_wait_for_hard_ones(broker: Mosquitto, make: Make) -> None:
    with LcPeer(broker.url, behaviour=never) as peer:
        answers = make().service.stream([FRAMES[HARD], *[FRAMES[EASY]] * 20, FRAMES[HARD]])
        assert [(a.index, a.is_hard) for a in first(answers, 20)] == [(index, False) for index in range(1, 21)]
        peer.wait(lambda: peer.samples)
        peer.behaviour = at_once
        peer.send(answer_to(peer.samples[0]))
        assert [(a.index, a.tier) for a in answers] == [(0, "cloud"), (21, "cloud")]


def test_ordered_answers_come_in_the_sources_order(broker: Mosquitto, make: Make) -> None:
    came: list[Sample] = []

    def the_first_last(sample: Sample) -> Iterator[tuple[float, Result]]:
        came.append(sample)
        if len(came) == 2:
            yield from ((0.0, answer_to(one)) for one in reversed(came))

    with LcPeer(broker.url, behaviour=the_first_last):
        rig = make()
        answers = list(rig.service.stream([FRAMES[HARD], FRAMES[EASY], FRAMES[HARD], b"broken"], ordered=True))
    assert [(a.index, a.tier, a.error) for a in answers] == [
        (0, "cloud", ""), (1, "edge", ""), (2, "cloud", ""), (3, "edge", "undecodable"),
    ]  # fmt: skip
    assert rig.ledger.seen == 4


def test_on_edge_hears_of_every_sample_before_its_answer(broker: Mosquitto, make: Make) -> None:
    heard: list[int] = []
    with LcPeer(broker.url):
        for answer in make().service.stream(
            [FRAMES[HARD], FRAMES[EASY], b"broken"] * 3, on_edge=lambda a: heard.append(a.index)
        ):
            assert answer.index in heard
    assert heard == list(range(9))


def test_frames_that_fail_are_counted_and_stop_nothing(broker: Mosquitto, make: Make) -> None:
    bad: list[object] = [b"", b"\xff\xd8junk", FRAMES[EASY][:-8], np.zeros((4, 4), np.float32), "text", None]
    with LcPeer(broker.url):
        rig = make()
        answers = list(rig.service.stream([*bad, FRAMES[EASY]]))
    assert [a.error for a in answers] == ["undecodable"] * 5 + ["missing", ""]
    assert rig.ledger.failed == {"undecodable": 5, "missing": 1}
    assert (rig.ledger.seen, rig.ledger.easy) == (7, 1)


def test_what_the_cloud_cannot_answer_stays_with_the_edges_word_at_once(broker: Mosquitto, make: Make) -> None:
    def refuse(sample: Sample) -> Iterator[tuple[float, Result]]:
        yield 0.0, answer_to(sample, error="undecodable")

    with LcPeer(broker.url, behaviour=refuse):
        answer = make().service.infer(FRAMES[HARD])
    assert (answer.tier, answer.degraded, answer.reason) == ("edge", True, "undecodable")


def test_answers_that_nobody_waits_for_any_more_become_corrections(broker: Mosquitto, make: Make) -> None:
    with LcPeer(broker.url, behaviour=never) as peer:
        service = make().service
        for answer in service.stream([FRAMES[HARD], FRAMES[EASY], FRAMES[EASY]]):
            assert answer.index == 1
            break
        peer.wait(lambda: peer.samples)
        peer.send(answer_to(peer.samples[0]))
        (correction,) = first(service.corrections(timeout_s=WAIT_S), 1)
        assert (correction.index, correction.label) == (0, "cloud")


def test_a_stream_that_is_told_to_end_hands_out_what_is_under_way(broker: Mosquitto, make: Make) -> None:
    with LcPeer(broker.url, behaviour=never) as peer:
        rig = make()
        answers: list[Answer] = []

        def end() -> None:
            peer.wait(lambda: len(peer.samples) == 2)
            rig.service.end(SystemExit(), drain_s=FAR_S)
            for sample in peer.samples:
                peer.send(answer_to(sample))

        with ThreadPoolExecutor() as other:
            other.submit(end)
            with pytest.raises(SystemExit):
                answers.extend(rig.service.stream([FRAMES[HARD]] * 2))
    assert [(a.index, a.tier) for a in answers] == [(0, "cloud"), (1, "cloud")]


def test_a_stream_that_is_told_to_end_waits_for_no_answer_for_ever(broker: Mosquitto, make: Make) -> None:
    with LcPeer(broker.url, behaviour=never) as peer:
        rig = make()

        def end() -> None:
            peer.wait(lambda: peer.samples)
            rig.service.end(SystemExit(), drain_s=0.01)

        with ThreadPoolExecutor() as other:
            other.submit(end)
            with pytest.raises(SystemExit):
                list(rig.service.stream([FRAMES[HARD]]))


def test_a_full_spool_makes_files_wait_and_loses_none(broker: Mosquitto, make: Make, tmp_path: Path) -> None:
    index = write_dataset(tmp_path / "data", [HARD] * 12)
    with LcPeer(broker.url) as peer:
        peer.accepting = False
        rig = make(spool_bytes=1000, deadline_s=0.2)
        heard: list[Answer] = []

        def read() -> list[Answer]:
            return list(rig.service.stream(Files(str(index), "csv"), on_edge=heard.append))

        with ThreadPoolExecutor() as reader:
            reading = reader.submit(read)
            try:
                # The spool is full, and the next frame has its edge answer and is not counted: it waits for room.
                peer.wait(lambda: len(heard) > rig.ledger.hard and not rig.spool.has_room(len(FRAMES[HARD])))
                peer.accepting = True
                answers = reading.result(WAIT_S)
            finally:
                rig.service.end(SystemExit())
        peer.wait(lambda: len(peer.samples) == 12)
    assert len(answers) == 12
    assert rig.ledger.dropped == {}
    assert (rig.ledger.hard, rig.page.cursor) == (12, 12)


def test_a_full_spool_makes_a_camera_keep_the_edges_answer(broker: Mosquitto, make: Make) -> None:
    with LcPeer(broker.url, behaviour=never) as peer:
        peer.accepting = False
        rig = make(spool_bytes=1000, deadline_s=0.01)
        taken = 0
        while rig.service.infer(FRAMES[HARD]).reason != "buffer-full":
            taken += 1
        rig.service.deadline_s = FAR_S  # neither room nor an answer comes before
        refused = [rig.service.infer(FRAMES[HARD]) for _ in range(3)]
        assert {(a.degraded, a.reason) for a in refused} == {(True, "buffer-full")}
        peer.accepting = True
        peer.wait(lambda: len(peer.samples) == taken > 0)
    assert rig.ledger.dropped == {"buffer-full": 4}
    assert rig.ledger.hard == taken + 4


def test_a_sample_that_can_never_fit_is_dropped_by_name(broker: Mosquitto, make: Make, tmp_path: Path) -> None:
    index = write_dataset(tmp_path / "data", [HARD])
    with LcPeer(broker.url):
        rig = make(spool_bytes=100)
        (answer,) = rig.service.stream(Files(str(index), "csv"))
    assert (answer.reason, rig.ledger.dropped) == ("too-large", {"too-large": 1})


def test_a_camera_skips_the_oldest_and_says_so(broker: Mosquitto, make: Make) -> None:
    total = 40
    go_on = threading.Event()

    def camera() -> Iterator[bytes]:
        yield FRAMES[EASY]
        go_on.wait(10)
        for _ in range(total - 1):
            yield FRAMES[EASY]

    with LcPeer(broker.url):
        rig = make()
        answers: list[Answer] = []
        before = threading.active_count()
        for answer in rig.service.stream(Live(camera())):
            answers.append(answer)
            if len(answers) == 1:
                go_on.set()
                # The reader's thread is the newest one; it ends when the camera has no more frames.
                deadline = time.monotonic() + 10
                while threading.active_count() > before and time.monotonic() < deadline:
                    threading.Event().wait(0.01)
    assert [a.index for a in answers] == [0, total - 1]
    assert (rig.ledger.seen, rig.ledger.skipped) == (2, total - 2)


def test_a_generator_that_raises_raises_in_the_loop(broker: Mosquitto, make: Make) -> None:
    def frames() -> Iterator[bytes]:
        yield FRAMES[EASY]
        raise RuntimeError("unplugged")

    with LcPeer(broker.url), pytest.raises(RuntimeError, match="unplugged"):
        list(make().service.stream(frames()))


def test_a_dataset_goes_on_from_its_cursor(broker: Mosquitto, tmp_path: Path) -> None:
    index = write_dataset(tmp_path / "data", [EASY] * 6)

    @contextmanager
    def rig() -> Iterator[Rig]:
        one = Rig(broker.url, tmp_path / "rig")
        yield one
        one.close()

    with LcPeer(broker.url):
        with rig() as first:
            stream = first.service.stream(Files(str(index), "csv"))
            assert [next(stream).index for _ in range(3)] == [0, 1, 2]
            first.service.infer(FRAMES[EASY])  # counts, and leaves the dataset's cursor where it is
            assert first.page.cursor == 2
            stream.close()
        with rig() as second:
            assert [a.index for a in second.service.stream(Files(str(index), "csv"))] == [3, 4, 5]
            assert list(second.service.stream(Files(str(index), "csv"))) == []


@pytest.mark.parametrize("format_", ["csv", "folder"])
def test_a_dataset_that_has_changed_before_its_cursor_repeats_nothing(
    broker: Mosquitto, tmp_path: Path, format_: str
) -> None:
    index = write_dataset(tmp_path / "data", [EASY] * 4)
    url = str(index if format_ == "csv" else index.parent)
    with LcPeer(broker.url):
        first = Rig(broker.url, tmp_path / "rig")
        stream = first.service.stream(Files(url, format_))
        seen = [next(stream).key for _ in range(3)]
        stream.close()
        first.close()
        (tmp_path / "data" / "images" / "0.png").write_bytes(FRAMES[EASY])
        index.write_text(index.read_text().replace("path\n", "path\nimages/0.png\n"))
        second = Rig(broker.url, tmp_path / "rig")
        seen += [answer.key for answer in second.service.stream(Files(url, format_))]
        assert second.ledger.failed == {}
        second.close()
    late = ["images/0.png"] if format_ == "folder" else []
    assert seen == [f"images/{number:05}.png" for number in range(4)] + late


def test_the_budgets_threshold_is_kept_for_the_same_rule_only(broker: Mosquitto, tmp_path: Path) -> None:
    with LcPeer(broker.url):
        one = Rig(broker.url, tmp_path / "rig", budget="0.5")
        for _ in range(10):
            one.service.infer(FRAMES[EASY])
        moved = one.service.rule.state
        one.close()
        assert moved != 0.5
        same = Rig(broker.url, tmp_path / "rig", budget="0.5")
        assert same.service.rule.state == moved
        same.close()
        other = Rig(broker.url, tmp_path / "rig", budget="0.5", rule="0.4")
        assert other.service.rule.state == 0.4
        other.close()


def test_arrays_travel_raw_where_small_and_as_jpeg_where_large(broker: Mosquitto, make: Make) -> None:
    small, large = np.full((8, 8), HARD, np.uint8), np.full((64, 64, 3), HARD, np.uint8)
    with LcPeer(broker.url) as peer:
        service = make().service
        service.infer(small)
        service.infer(large)
        raw, jpeg = peer.samples
    assert (raw.encoding, raw.payload, raw.shape, raw.dtype) == ("raw", small.tobytes(), (8, 8, 1), "uint8")
    assert (jpeg.encoding, jpeg.payload[:2]) == ("jpeg", b"\xff\xd8")


def test_a_sample_carries_the_counters_with_itself_included(broker: Mosquitto, make: Make) -> None:
    with LcPeer(broker.url) as peer:
        list(make().service.stream([FRAMES[EASY], b"broken", FRAMES[HARD], FRAMES[EASY], FRAMES[HARD]]))
        counts = [(c.seen, c.easy, c.hard, c.failed) for c in (s.counts for s in peer.samples)]
    assert counts == [(3, 1, 1, 1), (5, 2, 2, 1)]
    assert [s.seq for s in peer.samples] == [1, 2]


def test_an_lc_that_was_away_gets_all_of_it_in_order(broker: Mosquitto, make: Make) -> None:
    rig = make(deadline_s=0.05)
    assert all(a.degraded for a in rig.service.stream([FRAMES[HARD]] * 30))
    with LcPeer(broker.url) as peer:
        peer.wait(lambda: len(peer.samples) == 30)
        peer.wait(lambda: rig.uplink.accepted == 30)
        assert len(first(rig.service.corrections(timeout_s=WAIT_S), 30)) == 30
        peer.wait(lambda: len(rig.spool) == 0)


def test_a_broker_with_small_packets_gets_the_sample_without_its_pixels(
    tmp_path: Path, mosquitto: Callable[..., Mosquitto]
) -> None:
    broker = mosquitto(max_packet_size=2000)
    with LcPeer(broker.url) as peer:
        rig = Rig(broker.url, tmp_path / "rig", deadline_s=0.2)
        rng = np.random.default_rng(1)
        noise = rng.integers(120, 136, (60, 60), np.uint8)
        answers = [rig.service.infer(noise), rig.service.infer(FRAMES[HARD])]
        assert [a.is_hard for a in answers] == [True, True]
        peer.wait(lambda: len(peer.samples) == 2)
        assert [len(s.payload) for s in peer.samples] == [0, len(FRAMES[HARD])]
        rig.close()
