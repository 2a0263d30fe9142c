# SPDX-License-Identifier: Apache-2.0
"""``builtin:classify`` on the shipped digits, end to end: both shipped models, a real broker, a real worker process."""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.mosquitto import Mosquitto
from tests.worker.lc_peer import LcPeer
from tests.worker.scenes import Worker, dataset_of, make_task, running

from nereid_shared.errors import UserError
from nereid_shared.messages import TaskRule
from nereid_shared.samples import Result, Sample
from nereid_worker.answers import Answer
from nereid_worker.builtin import ANSWERS_MAX_BYTES, AnswerLog, interval_s
from nereid_worker.classifier import Classifier
from nereid_worker.cloud_answers import answer

DIGITS = Path(__file__).parents[2] / "examples" / "digits"


@pytest.mark.parametrize("fps", ["0", "-1", "many", "nan", "1e7"])
def test_a_pace_that_is_none_is_refused(fps: str) -> None:
    with pytest.raises(UserError, match="frames per second"):
        interval_s({"fps": fps})


def test_the_pace_is_one_over_fps() -> None:
    assert (interval_s({}), interval_s({"fps": "25"})) == (0.0, 0.04)


def answer_of(number: int) -> Answer:
    return Answer(key=f"{number:06}.png", index=number, label="seven", score=0.5, tier="edge", model="a" * 64)


def numbers(file: Path) -> list[int]:
    return [json.loads(line)["index"] for line in file.read_text().splitlines()]


def test_the_log_of_answers_is_bounded_and_keeps_one_former_file(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    for first in range(0, 100, 10):  # over restarts too
        with AnswerLog(path, max_bytes=5000) as answers:
            for number in range(first, first + 10):
                answers.write("edge", answer_of(number))
    kept = numbers(tmp_path / "answers.jsonl.1") + numbers(path)
    assert kept == list(range(100 - len(kept), 100))
    assert len(numbers(tmp_path / "answers.jsonl.1")) > 5
    assert all(4000 < file.stat().st_size <= 5000 for file in tmp_path.iterdir() if file != path)
    assert len(list(tmp_path.iterdir())) == 2


def test_the_whole_demo_fits_into_one_log_many_times(tmp_path: Path) -> None:
    with AnswerLog(tmp_path / "a") as answers:
        answers.write("edge", answer_of(1))
    assert 10 * 2 * 1530 * (tmp_path / "a").stat().st_size < ANSWERS_MAX_BYTES


def test_a_line_torn_by_a_full_disk_spoils_no_other(tmp_path: Path) -> None:
    (tmp_path / "a").write_text('{"event": "ed')
    with AnswerLog(tmp_path / "a") as answers:
        answers.write("edge", answer_of(1))
    assert json.loads((tmp_path / "a").read_text().splitlines()[1])["index"] == 1


@pytest.mark.slow
def test_the_digits_are_classified_together(tmp_path: Path, broker: Mosquitto) -> None:
    with tarfile.open(DIGITS / "digits.tar.gz") as archive:
        archive.extractall(tmp_path / "data", filter="data")
    big = Classifier.load(DIGITS / "models" / "big")

    def big_model(sample: Sample) -> Iterator[tuple[float, Result]]:
        yield 0.0, answer([sample], big.predict_batch, model=big.digest, labels=big.labels)[0]

    (index,) = (tmp_path / "data").rglob("index.csv")
    task = make_task(
        DIGITS / "models" / "little" / "little.tflite", dataset=dataset_of(index),
        rule=TaskRule(name="Margin", parameters={"threshold": "0.4"}, budget="0.2"),
    )  # fmt: skip
    with (
        LcPeer(broker.url, task=task, behaviour=big_model) as peer,
        running(Worker(broker.url, tmp_path / "state")) as worker,
    ):
        info = peer.wait_status("completed", timeout_s=120)
        events = worker.answers()
    ledger = info.ledger
    assert ledger is not None
    edge = {e["key"]: e for e in events if e["event"] == "edge"}
    answers = {e["key"]: e for e in events if e["event"] == "answer"}
    assert ledger.seen == ledger.easy + ledger.hard == len(edge) == 1530
    assert ledger.hard == len(answers) == len(peer.samples)
    assert 0.18 < ledger.hard / ledger.seen < 0.22
    assert {e["cloud_label"] is not None for e in answers.values()} == {True}
    rows = (DIGITS / "labels.csv").read_text().splitlines()[1:]
    truth = {path: label for path, label, _ in (row.split(",") for row in rows)}
    alone = sum(e["label"] == truth[str(key)] for key, e in edge.items()) / 1530
    joint = sum(answers.get(key, e)["label"] == truth[str(key)] for key, e in edge.items()) / 1530
    assert joint > alone + 0.04, json.dumps({"alone": alone, "joint": joint})
