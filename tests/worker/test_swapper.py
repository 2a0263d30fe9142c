# SPDX-License-Identifier: Apache-2.0
"""Models that are swapped while frames are answered: none is lost or doubled, and no answer names another."""

import itertools
import json
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from tests.tiny_models import brightness, dense
from tests.worker.scenes import CARD, EASY, make_task, picture

from nereid_shared.errors import ModelInvalid
from nereid_shared.messages import Task, TaskModel
from nereid_worker.classifier import Classifier
from nereid_worker.edge import JointInference
from nereid_worker.page import Page
from nereid_worker.rules import make_rule
from nereid_worker.slots import Slots
from nereid_worker.spool import Spool
from nereid_worker.swapper import Swapper, outputs

TIMEOUT_S = 20.0


def inverted() -> bytes:
    """Return a model that calls black what `brightness` calls dark "bright"."""
    ones = np.full(64, 8 / 64)
    return dense(np.stack([ones, -ones]), np.array([-4.0, 4.0]), (8, 8, 1))


def write(folder: Path, content: bytes, *, golden: list[float] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "little.tflite"
    file.write_bytes(content)
    (folder / "black.png").write_bytes(picture(EASY))
    promised = [] if golden is None else [{"input": "black.png", "output": golden, "tolerance": 1e-3}]
    (folder / "model.json").write_text(json.dumps({**CARD, "golden": promised}))
    return file


class Rig:
    """A service without a network, and the swapper of its models."""

    def __init__(self, folder: Path, **options: object) -> None:
        self.folder = folder
        self.a = write(folder / "a", brightness(), golden=[4.0, -4.0])
        self.b = write(folder / "b", inverted(), golden=[-4.0, 4.0])
        self.settled: list[Task] = []
        self._settled = threading.Condition()
        self.hold: TaskModel | None = None
        self.breaks: TaskModel | None = None
        self.held, self.go_on = threading.Event(), threading.Event()
        self.service: JointInference | None = None
        self.swapper = Swapper(
            slots=Slots(folder, machine="boot"), load=self._load, swap=self._swap, on_settled=self._note, **options  # type: ignore[arg-type]
        )  # fmt: skip

    def task(self, file: Path, number: int = 0) -> Task:
        return replace(make_task(file), hash=f"{file}{number}")

    def first(self, file: Path) -> JointInference:
        classifier = self.swapper.first(self.task(file))
        page = Page(self.folder / "ledger.page", now_us=1)
        self.service = JointInference(
            classifier=classifier, rule=make_rule("EdgeOnly", {}), page=page, notify=lambda: None,
            spool=Spool(self.folder / "samples.spool"),
        )  # fmt: skip
        return self.service

    def wait(self, fulfilled: Callable[[], object]) -> None:
        with self._settled:
            assert self._settled.wait_for(fulfilled, TIMEOUT_S)

    def wait_settled(self, task: Task) -> None:
        self.wait(lambda: task in self.settled)

    def _load(self, model: TaskModel) -> Classifier:
        if model == self.hold:
            self.held.set()
            assert self.go_on.wait(TIMEOUT_S)
        if model == self.breaks:
            raise MemoryError("too large")
        return Classifier.load(Path(model.url), sha256=model.sha256)

    def _swap(self, classifier: Classifier) -> None:
        assert self.service is not None
        self.service.swap(classifier)

    def _note(self, task: Task) -> None:
        with self._settled:
            self.settled.append(task)
            self._settled.notify_all()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.swapper.stop()


def test_a_stream_goes_through_many_swaps_without_a_sample_lost_doubled_or_misnamed(rig: Rig) -> None:
    swaps, done = 200, threading.Event()
    service = rig.first(rig.a)
    labels = {Classifier.load(rig.a).digest: "dark", Classifier.load(rig.b).digest: "bright"}
    answered: queue.SimpleQueue[str] = queue.SimpleQueue()

    def swap_to_and_fro() -> None:
        try:
            answered.get(timeout=TIMEOUT_S)
            for number in range(swaps):
                task = rig.task(rig.b if number % 2 == 0 else rig.a, number)
                rig.swapper.want(task)
                rig.wait_settled(task)
                answered.get(timeout=TIMEOUT_S)  # the stream has gone on to it
        finally:
            done.set()

    def frames() -> Iterator[bytes]:
        black = picture(EASY)
        while not done.is_set():
            yield black

    thread = threading.Thread(target=swap_to_and_fro)
    thread.start()
    seen, last = 0, ""
    changes: list[str] = []
    for index, answer in zip(itertools.count(), service.stream(frames())):
        assert (answer.index, answer.error) == (index, "")
        assert answer.label == labels[answer.model]
        seen += 1
        if answer.model != last:
            last = answer.model
            changes.append(last)
            answered.put(last)
    thread.join()
    ledger = service._page.ledger()
    assert (ledger.seen, ledger.easy, ledger.failed) == (seen, seen, {})
    assert changes == [*labels] * (swaps // 2) + [next(iter(labels))]


class Unveiled(np.ndarray[tuple[int, ...], np.dtype[np.uint8]]):
    """A frame that calls `when_seen` as soon as somebody asks for its shape."""

    when_seen: Callable[[], None] = staticmethod(lambda: None)

    @property
    def ndim(self) -> int:
        self.when_seen()
        return len(self.shape)


def test_an_answer_names_the_model_that_gave_it_though_another_came_meanwhile(rig: Rig) -> None:
    service = rig.first(rig.a)
    other = Classifier.load(rig.b)
    frame = np.zeros((8, 8), np.uint8).view(Unveiled)
    frame.when_seen = lambda: service.swap(other)
    first, second = service.infer(frame), service.infer(picture(EASY))
    assert (first.label, first.model) == ("dark", Classifier.load(rig.a).digest)
    assert (second.label, second.model) == ("bright", other.digest)


def test_a_model_that_breaks_its_promise_never_serves_and_the_former_goes_on(rig: Rig) -> None:
    service = rig.first(rig.a)
    broken = rig.task(write(rig.folder / "c", inverted(), golden=[4.0, -4.0]))
    rig.swapper.want(broken)
    rig.wait_settled(broken)
    assert service.infer(picture(EASY)).label == "dark"
    serving, lack = outputs(broken.model, rig.swapper)
    assert (serving.url, serving.status) == (str(rig.a), "ready")
    assert (lack.url, lack.status, lack.reason) == (broken.model.url, "failed", "GoldenMismatch")
    good = rig.task(rig.b)
    rig.swapper.want(good)
    rig.wait_settled(good)
    assert service.infer(picture(EASY)).label == "bright"
    assert [one.status for one in outputs(good.model, rig.swapper)] == ["ready"]


def test_what_could_not_be_loaded_is_tried_again(tmp_path: Path) -> None:
    rig = Rig(tmp_path, retry_s=(0.01, 0.01))
    service = rig.first(rig.a)
    late = rig.task(tmp_path / "late" / "little.tflite")
    rig.swapper.want(late)
    rig.wait_settled(late)
    assert rig.swapper.lack is not None
    assert rig.swapper.lack.reason == "ModelMissing"
    write(tmp_path / "late", inverted())
    rig.wait(lambda: rig.swapper.lack is None)
    rig.swapper.stop()
    assert service.infer(picture(EASY)).label == "bright"


def test_a_card_without_golden_inputs_is_told(rig: Rig) -> None:
    rig.first(write(rig.folder / "c", brightness()))
    (told,) = outputs(TaskModel(name="m", url="/"), rig.swapper)
    assert (told.status, told.reason, told.bytes) == ("ready", "NoGoldenSamples", len(brightness()))


def test_a_worker_that_starts_with_a_bad_model_takes_the_one_that_served_last(rig: Rig) -> None:
    rig.first(rig.a)
    rig.swapper.stop()
    Slots(rig.folder, machine="boot").ended()
    again = Rig(rig.folder)
    service = again.first(rig.folder / "nowhere" / "little.tflite")
    again.swapper.stop()
    assert service.classifier.path == rig.a
    assert again.swapper.lack is not None
    assert again.swapper.lack.reason == "ModelMissing"


def test_without_a_former_model_there_is_none_to_take(rig: Rig) -> None:
    with pytest.raises(ModelInvalid):
        rig.first(rig.folder / "nowhere" / "little.tflite")
    (told,) = outputs(TaskModel(name="m", url="/"), rig.swapper)
    assert (told.status, told.reason) == ("failed", "ModelMissing")
    assert rig.first(rig.a).infer(picture(EASY)).label == "dark"


def test_a_model_that_ended_with_its_process_is_not_taken_again(rig: Rig) -> None:
    rig.first(rig.a)
    task = rig.task(rig.b)
    rig.swapper.want(task)
    rig.wait_settled(task)
    after = Rig(rig.folder)  # as after SIGKILL: nobody said that the process ended in order
    service = after.first(rig.b)
    assert service.infer(picture(EASY)).label == "dark"
    serving, lack = outputs(task.model, after.swapper)
    assert (serving.url, lack.url, lack.reason) == (str(rig.a), str(rig.b), "RolledBack")
    again = after.task(rig.b, 1)
    after.swapper.want(again)
    after.wait_settled(again)
    after.swapper.stop()
    assert service.infer(picture(EASY)).label == "dark"


def test_a_model_that_has_served_for_long_enough_stays_over_a_crash(tmp_path: Path) -> None:
    rig = Rig(tmp_path, probation_s=0.0)
    rig.first(rig.a)
    task = rig.task(rig.b)
    rig.swapper.want(task)
    rig.wait_settled(task)
    while Slots(tmp_path, machine="another boot").is_on_probation:
        threading.Event().wait(0.01)
    assert Slots(tmp_path, machine="boot").rolled_back is None
    rig.swapper.stop()


def test_after_the_stop_no_model_gets_its_turn(rig: Rig) -> None:
    service = rig.first(rig.a)
    rig.hold = rig.task(rig.b).model
    rig.swapper.want(rig.task(rig.b))
    assert rig.held.wait(TIMEOUT_S)
    rig.swapper.stop()
    rig.go_on.set()
    rig.swapper._thread.join(TIMEOUT_S)
    assert service.classifier.path == rig.a
    assert Slots(rig.folder, machine="another boot").present == rig.task(rig.a).model


def test_a_model_that_is_no_longer_wanted_when_it_is_loaded_does_not_serve(rig: Rig) -> None:
    service = rig.first(rig.a)
    rig.hold = rig.task(rig.b).model
    rig.swapper.want(rig.task(rig.b))
    assert rig.held.wait(TIMEOUT_S)
    back = rig.task(rig.a, 1)
    rig.swapper.want(back)
    rig.go_on.set()
    rig.wait_settled(back)
    assert rig.settled == [back]
    assert service.classifier.path == rig.a
    assert rig.swapper.lack is None


def test_a_loader_that_breaks_ends_neither_the_stream_nor_the_next_swap(rig: Rig) -> None:
    service = rig.first(rig.a)
    rig.breaks = rig.task(rig.b).model
    rig.swapper.want(rig.task(rig.b))
    rig.wait_settled(rig.task(rig.b))
    assert rig.swapper.lack is not None
    assert rig.swapper.lack.message.endswith("little.tflite: MemoryError: too large")
    rig.breaks = None
    rig.swapper.want(rig.task(rig.b, 1))
    rig.wait_settled(rig.task(rig.b, 1))
    assert service.infer(picture(EASY)).label == "bright"
