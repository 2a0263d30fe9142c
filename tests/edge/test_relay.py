# SPDX-License-Identifier: Apache-2.0
"""What the relay and the tasks make of single messages, with no broker there."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from tests.edge.peers import NODE
from tests.edge.rows import SERVICE_ID, SERVICE_UID, WORKER, service_row

from nereid_edge.answers import MAX_KEPT_ANSWERS
from nereid_edge.records import Change, insert
from nereid_edge.relay import CLOCK_EVERY_S, Relay
from nereid_edge.rows import OutboxPolicy, Row, SampleKey
from nereid_edge.served import ServedBook
from nereid_edge.service import ServiceSettings
from nereid_edge.store import OutboxStore
from nereid_edge.tasks import Tasks
from nereid_edge.worker_folders import WorkerFolders
from nereid_shared import samples, topics
from nereid_shared.errors import MessageInvalid
from nereid_shared.link import Message
from nereid_shared.messages import Ledger, WorkerInfo
from nereid_shared.samples import Counts, Result, Sample

SAMPLE = Sample(
    stream="s", seq=1, digest=samples.digest_of(b"p"), key="k", captured_at=1.0, remaining_ms=1000, label="little",
    score=0.5, counts=Counts(seen=1, easy=0, hard=1, failed=0), encoding="jpeg", payload=b"p",
)  # fmt: skip


@pytest.fixture
def relay(tmp_path: Path) -> Relay:
    return Relay(node=NODE, store=OutboxStore(tmp_path / "outbox.db"), folders=WorkerFolders(None))


@pytest.fixture
async def tasks(relay: Relay, tmp_path: Path) -> Tasks:
    cache, served = (tmp_path / "cache", 2**30), ServedBook(tmp_path / "served.json")
    made = Tasks(relay=relay, folders=WorkerFolders(None), cache=cache, served=served, on_change=lambda: None)
    made.apply({SERVICE_UID: service_row()}, known=True)
    return made


def sample(one: Sample) -> Message:
    return Message(topic=topics.SAMPLES.of(service=SERVICE_ID, node=NODE), payload=one.encode(), retain=False)


def answer(one: Sample) -> Message:
    result = Result(stream=one.stream, seq=one.seq, digest=one.digest, key=one.key, captured_at=1.0, label="big")
    return Message(topic=topics.RESULTS.of(service=SERVICE_ID, node=NODE), payload=result.encode(), retain=False)


def info(
    number: int,
    status: Literal["running", "completed"],
    *,
    accepted: int = 0,
    stream: str = "s",
    ledger: Ledger,
    reason: str = "",
) -> Message:
    body = WorkerInfo(
        name=WORKER, namespace="default", owner_name="digits", owner_kind="jointinferenceservice", status=status,
        service=SERVICE_ID, node=NODE, boot="b", number=number, stream=stream, accepted=accepted, ledger=ledger,
        reason=reason,
    )  # fmt: skip
    return Message(topic=topics.WORKER_INFO.of(worker=WORKER), payload=body.encode(), retain=True)


def condition(tasks: Tasks) -> tuple[str, str]:
    state = tasks.states(frozenset())[SERVICE_UID]
    return state.condition, state.reason


@pytest.mark.parametrize("wrong", [{"seq": 0}, {"score": float("nan")}, {"score": float("-inf")}])
async def test_a_sample_without_a_number_or_a_score_is_a_dead_letter(
    relay: Relay, tasks: Tasks, wrong: dict[str, float]
) -> None:
    with pytest.raises(MessageInvalid):
        relay.on_sample(sample(replace(SAMPLE, **wrong)))  # type: ignore[arg-type]
    assert relay.ledger(SERVICE_ID) == Ledger(latency={"edge": {}, "cloud": {}})


async def test_an_answer_that_came_before_the_acknowledgement_counts_its_sample_as_sent(
    relay: Relay, tasks: Tasks
) -> None:
    # Its PUBACK never comes where the connection, or the process that sent it, ended first.
    relay.on_sample(sample(SAMPLE))
    assert relay.ledger(SERVICE_ID).sent == 0
    relay.on_result(answer(SAMPLE))
    relay.on_result(answer(SAMPLE))
    ledger = relay.ledger(SERVICE_ID)
    assert (ledger.answered, ledger.sent, ledger.resent) == (1, 1, 0)


async def test_a_sample_that_an_earlier_process_sent_is_not_counted_as_sent_again(tmp_path: Path) -> None:
    path, body = tmp_path / "outbox.db", sample(SAMPLE).payload
    row = Row(
        key=SampleKey("s", 1), digest=SAMPLE.digest, label="little", score=0.5, size=len(body), born=0.0, deadline=1.0,
        sent=True,
    )  # fmt: skip
    async with OutboxStore(path) as store:
        counts = [(SERVICE_ID, "accepted", 1), (SERVICE_ID, "sent", 1)]
        store.put(Change(statements=[insert(SERVICE_ID, row, body)], counts=counts))
    relay = Relay(node=NODE, store=OutboxStore(path), folders=WorkerFolders(None))
    relay.configure({SERVICE_ID: ServiceSettings(worker=WORKER)}, prune=True)
    relay.on_result(answer(SAMPLE))
    ledger = relay.ledger(SERVICE_ID)
    assert (ledger.answered, ledger.sent, ledger.resent) == (1, 1, 0)


async def test_answers_beyond_those_that_are_kept_count_as_undelivered(tmp_path: Path) -> None:
    async with OutboxStore(tmp_path / "outbox.db") as store:
        relay = Relay(node=NODE, store=store, folders=WorkerFolders(None))
        relay.configure({SERVICE_ID: ServiceSettings(worker=WORKER)}, prune=True)
        for seq in range(1, MAX_KEPT_ANSWERS + 3):
            one = replace(SAMPLE, seq=seq, counts=Counts(seen=seq, easy=0, hard=seq, failed=0))
            relay.on_sample(sample(one))
            relay.on_result(answer(one))
            undelivered = max(0, seq - MAX_KEPT_ANSWERS)
            assert relay.ledger(SERVICE_ID).undelivered == undelivered
        assert relay.ledger(SERVICE_ID).answered == MAX_KEPT_ANSWERS + 2
    loaded = OutboxStore(tmp_path / "outbox.db").load()
    assert [one.key.seq for one in loaded.answers] == list(range(1, MAX_KEPT_ANSWERS + 1))
    assert loaded.counters[SERVICE_ID]["undelivered"] == 2


async def test_what_a_worker_reported_is_on_the_disk_without_another_sample(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    counts = Ledger(seen=6, easy=3, hard=2, failed={"undecodable": 1}, degraded=2)
    async with OutboxStore(path) as store:
        relay = Relay(node=NODE, store=store, folders=WorkerFolders(None))
        relay.configure({SERVICE_ID: ServiceSettings(worker=WORKER)}, prune=True)
        relay.worker_reported(SERVICE_ID, stream="s", accepted=0, counts=counts)
        relay._save(relay.clock())
    again = Relay(node=NODE, store=OutboxStore(path), folders=WorkerFolders(None))
    again.configure({SERVICE_ID: ServiceSettings(worker=WORKER)}, prune=True)
    ledger = again.ledger(SERVICE_ID)
    assert (ledger.seen, ledger.easy, ledger.hard, ledger.failed, ledger.degraded) == (6, 3, 2, {"undecodable": 1}, 2)


async def test_a_task_is_not_completed_while_answers_are_pending(relay: Relay, tasks: Tasks) -> None:
    counts = Ledger(seen=1, hard=1)
    relay.on_sample(sample(SAMPLE))
    tasks.on_info(info(1, "completed", ledger=counts))
    assert condition(tasks) == ("Running", "AnswersPending")
    tasks.on_info(info(2, "completed", ledger=counts, reason="PageDamaged"))
    assert condition(tasks) == ("Running", "PageDamaged")
    relay.on_result(answer(SAMPLE))
    tasks.on_info(info(3, "completed", ledger=counts))
    assert condition(tasks) == ("Completed", "")


@pytest.mark.parametrize(
    ("accepted", "ledger"),
    [(3, Ledger(seen=2, hard=2)), (2**53, Ledger(seen=2, hard=2)), (1, Ledger(seen=2, hard=2, dropped={"full": 2}))],
)
async def test_more_accepted_and_dropped_than_was_hard_is_not_believed(
    relay: Relay, tasks: Tasks, accepted: int, ledger: Ledger
) -> None:
    tasks.on_info(info(1, "running", ledger=Ledger(seen=1, easy=1)))
    before = relay.ledger(SERVICE_ID)
    with pytest.raises(MessageInvalid, match="than were hard"):
        tasks.on_info(info(2, "completed", accepted=accepted, ledger=ledger))
    assert relay.ledger(SERVICE_ID) == before
    assert condition(tasks) == ("Completed", "")


async def test_all_accepted_by_an_earlier_disk_is_believed(relay: Relay, tasks: Tasks) -> None:
    tasks.on_info(info(1, "running", accepted=2, ledger=Ledger(seen=3, hard=3, dropped={"buffer-full": 1})))
    ledger = relay.ledger(SERVICE_ID)
    assert (ledger.hard, ledger.pending, ledger.dropped) == (3, 0, {"forgotten": 2, "buffer-full": 1})


async def test_what_a_lost_page_named_is_forgotten_once_its_worker_begins_anew(relay: Relay, tasks: Tasks) -> None:
    relay.on_sample(sample(SAMPLE))
    relay.on_sample(sample(replace(SAMPLE, seq=3, counts=Counts(seen=5, easy=1, hard=4, failed=0))))
    assert relay.ledger(SERVICE_ID).pending == 4
    relay.on_sample(sample(replace(SAMPLE, stream="t")))
    ledger = relay.ledger(SERVICE_ID)
    assert (ledger.hard, ledger.pending, ledger.dropped) == (5, 3, {"forgotten": 2})


async def test_a_report_of_a_new_stream_ends_the_one_before_it(relay: Relay, tasks: Tasks) -> None:
    tasks.on_info(info(1, "running", ledger=Ledger(seen=3, hard=3)))
    tasks.on_info(info(2, "running", stream="t", ledger=Ledger(seen=1, hard=1)))
    ledger = relay.ledger(SERVICE_ID)
    assert (ledger.hard, ledger.pending, ledger.dropped) == (4, 1, {"forgotten": 3})


async def test_a_deleted_service_makes_room_for_the_samples_of_one_that_runs(relay: Relay) -> None:
    body = sample(SAMPLE)
    bounded = ServiceSettings(worker=WORKER, policy=OutboxPolicy(max_bytes=len(body.payload) * 3 // 2))
    relay.configure({SERVICE_ID: bounded}, prune=True)
    relay.on_sample(body)
    relay.configure({"other": bounded}, prune=True)
    relay.configure({SERVICE_ID: bounded, "other": bounded}, prune=True)
    assert relay.ledger(SERVICE_ID).pending == 1
    relay.configure({"other": bounded}, prune=True)
    relay.on_sample(body._replace(topic=topics.SAMPLES.of(service="other", node=NODE)))
    relay.configure({"other": bounded}, prune=True)
    relay.configure({SERVICE_ID: bounded, "other": bounded}, prune=True)
    assert [relay.ledger(service).pending for service in (SERVICE_ID, "other")] == [0, 1]


async def test_the_time_that_a_deleted_service_waits_is_kept_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    async with OutboxStore(path) as store:
        relay = Relay(node=NODE, store=store, folders=WorkerFolders(None))
        relay.configure({SERVICE_ID: ServiceSettings(worker=WORKER)}, prune=True)
        relay.on_sample(sample(SAMPLE))
        relay.configure({}, prune=True)
        later = relay.clock() + CLOCK_EVERY_S
        relay._save(later)
    assert OutboxStore(path).load().clock == later
