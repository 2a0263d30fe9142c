# SPDX-License-Identifier: Apache-2.0
"""Joint inference with no network there: the cloud's answers are put where the uplink puts them."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.worker.scenes import EASY, HARD, picture, write_model

from nereid_shared.samples import Result
from nereid_worker.answers import Answer
from nereid_worker.classifier import Classifier
from nereid_worker.edge import JointInference, Results
from nereid_worker.page import Page
from nereid_worker.rules import make_rule
from nereid_worker.spool import Spool

FRAMES = {grey: picture(grey) for grey in (EASY, HARD)}

FAR_S = 3600.0
"""A deadline that no test lives to see."""


class Alone:
    """A service with its page, spool and results, and the corrections that were heard."""

    def __init__(self, folder: Path) -> None:
        self.page, self.spool = Page(folder / "page", now_us=1), Spool(folder / "spool", capacity_bytes=1 << 20)
        self.results: Results = Results()
        self.service = JointInference(
            classifier=Classifier.load(write_model(folder / "model")), rule=make_rule("Margin", {"threshold": "0.5"}),
            page=self.page, spool=self.spool, notify=lambda: None, deadline_s=FAR_S, results=self.results,
        )  # fmt: skip
        self.corrections: list[Answer] = []
        self.service.on_correction = self.corrections.append

    def answer(self, *seqs: int) -> None:
        """Let the cloud's answers to samples arrive."""
        for seq in seqs:
            result = Result(
                stream=self.page.stream, seq=seq, digest=bytes(32), key="k", captured_at=1.0, label="cloud", score=0.9
            )
            self.results.put((result, time.monotonic()))


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Alone]:
    made = Alone(tmp_path)
    yield made
    made.page.close()
    made.spool.close()


def test_a_correction_is_heard_between_two_easy_frames(alone: Alone) -> None:
    stream = alone.service.stream([FRAMES[EASY]] * 2)
    next(stream)
    alone.answer(7)  # a sample of the process before this one: nobody waits
    next(stream)
    assert [correction.label for correction in alone.corrections] == ["cloud"]


def test_a_deadline_is_kept_between_two_easy_frames(alone: Alone) -> None:
    alone.service.deadline_s = 0.0
    answers = list(alone.service.stream([FRAMES[HARD], FRAMES[EASY], FRAMES[EASY]]))
    assert [(answer.index, answer.degraded) for answer in answers] == [(0, True), (1, False), (2, False)]


@pytest.mark.parametrize("ordered", [False, True])
def test_answers_that_had_come_when_the_caller_left_become_corrections(alone: Alone, *, ordered: bool) -> None:
    def answers_come(edge: Answer) -> None:
        if edge.index == 3:
            alone.answer(1, 3)

    stream = alone.service.stream([FRAMES[HARD]] * 4, ordered=ordered, on_edge=answers_come)
    assert next(stream).index == 0
    stream.close()
    assert [(one.index, one.label) for one in alone.corrections] == [(2, "cloud")]
    alone.answer(2)
    alone.service.collect(0.0)
    assert [one.index for one in alone.corrections] == [2, 1]
    assert alone.page.ledger().corrected == 2


def test_a_stream_that_is_told_to_end_takes_no_further_frame(alone: Alone) -> None:
    stream = alone.service.stream([FRAMES[EASY]] * 3)
    assert next(stream).index == 0
    alone.service.end(SystemExit(), drain_s=FAR_S)
    with pytest.raises(SystemExit):
        next(stream)
    assert alone.page.ledger().seen == 1


def test_a_stream_that_is_told_to_end_hands_out_what_comes_until_then(alone: Alone) -> None:
    def answer_and_end(edge: Answer) -> None:
        if edge.index == 1:
            alone.answer(1)
            alone.service.end(SystemExit(), drain_s=FAR_S)

    stream = alone.service.stream([FRAMES[HARD], FRAMES[HARD], FRAMES[EASY]], on_edge=answer_and_end)
    assert next(stream).index == 0
    alone.answer(2)
    assert next(stream).index == 1
    with pytest.raises(SystemExit):
        next(stream)
