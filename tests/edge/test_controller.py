# SPDX-License-Identifier: Apache-2.0
import asyncio
import os
import signal
import sqlite3
from collections.abc import Mapping
from contextlib import AsyncExitStack, closing
from functools import partial
from pathlib import Path

import msgpack
import pytest
from msgspec.structs import replace
from tests.edge.peers import NODE, TIMEOUT_S, CloudPeer, EdgePeer, GmPeer, Lab, answered_by_the_ledger
from tests.edge.rows import CLUSTER, SERVICE_ID, SERVICE_UID, WORKER, document, row, service_row

from nereid_edge.desired_store import DesiredStore
from nereid_edge.store import OutboxStore
from nereid_edge.window import FIRST_COUNT
from nereid_shared import topics
from nereid_shared.link import Link, Message
from nereid_shared.link_settings import LinkSettings
from nereid_shared.messages import Desired, GmAlive, Revision
from nereid_shared.samples import Sample

SERVICE = {SERVICE_UID: service_row()}


def stored(lab: Lab, desired: Desired) -> None:
    """Give the LC's disk a document, as an earlier run did."""
    lab.state.mkdir()
    DesiredStore(lab.state / "desired.db").apply(desired)


async def test_a_document_becomes_the_workers_task_and_is_acknowledged(lab: Lab, gm: GmPeer, worker: EdgePeer) -> None:
    desired = document(SERVICE)
    async with lab.controller():
        await gm.desire(desired)
        state = await gm.applied(desired)
        await worker.until(lambda: worker.tasks)
    assert state.tasks is not None
    assert state.tasks[SERVICE_UID].generation == 1
    assert worker.tasks[0] is not None
    assert worker.tasks[0].model.url == "/m/little.tflite"
    assert [alive.status for alive in gm.alive] == ["online", "offline"]


async def test_a_task_that_is_absent_from_the_next_document_is_cleared(lab: Lab, gm: GmPeer, worker: EdgePeer) -> None:
    async with lab.controller():
        await gm.desire(document(SERVICE))
        await worker.until(lambda: worker.tasks)
        empty = document({}, rev=2)
        await gm.desire(empty)
        await gm.applied(empty)
        await worker.until(lambda: worker.tasks[-1] is None)


async def test_the_tasks_run_from_disk_with_no_cloud(lab: Lab, worker: EdgePeer) -> None:
    lab.cloud.kill()
    stored(lab, document(SERVICE))
    async with lab.controller():
        await worker.until(lambda: worker.tasks)


async def test_a_task_that_the_edge_broker_kept_is_cleared_where_it_is_not_desired(lab: Lab, worker: EdgePeer) -> None:
    stored(lab, document({}))
    await worker.link.publish(topics.TASK.of(worker=WORKER), b"{}", retain=True)
    cleared: list[bytes] = []
    link = Link(LinkSettings.from_url(lab.edge.url, client_id="watch"))
    async with link:
        await link.wait_connected()

        def note(message: Message) -> None:
            cleared.append(message.payload)
            worker.ring()

        await link.subscribe(topics.TASK.of(worker=WORKER), note)
        async with lab.controller():
            await worker.until(lambda: b"" in cleared)


async def test_a_foreign_task_is_replaced(lab: Lab, worker: EdgePeer) -> None:
    stored(lab, document(SERVICE))
    async with lab.controller():
        await worker.until(lambda: worker.tasks)
        first = worker.tasks[-1]
        assert first is not None
        foreign = replace(first, script_dir="/tmp/evil", hash="x")
        await worker.link.publish(topics.TASK.of(worker=WORKER), foreign.encode(), retain=True)
        await worker.until(lambda: len(worker.tasks) >= 3)
    assert worker.tasks[-1] == first


async def test_the_edge_broker_that_lost_everything_gets_it_again(lab: Lab, worker: EdgePeer) -> None:
    stored(lab, document(SERVICE))
    async with lab.controller():
        await worker.until(lambda: worker.tasks)
        lab.edge.kill()
        lab.edge.start()
        await worker.until(lambda: len(worker.tasks) >= 2)
    assert worker.tasks[0] == worker.tasks[1]


async def test_an_empty_retained_payload_is_no_document(lab: Lab, gm: GmPeer) -> None:
    desired = document(SERVICE)
    async with lab.controller(heartbeat_s=0.1):
        await gm.desire(desired)
        await gm.applied(desired)
        await gm.link.publish(topics.DESIRED.of(node=NODE), b"", retain=True)
        heard = len(gm.states)
        await gm.until(lambda: len(gm.states) >= heard + 5)
        later = document(SERVICE, rev=2)
        await gm.desire(later)
        state = await gm.applied(later)
    assert state.tasks is not None
    assert SERVICE_UID in state.tasks
    assert {state.reason for state in gm.states} == {""}


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("mqtt://192.0.2.1", "EdgeBrokerUnprotected"), ("mqtt://broker.example.org", "EdgeBrokerUnprotected"),
        ("mqtts://192.0.2.1", ""), ("mqtt://localhost", ""), ("mqtt://127.0.0.9:1", ""), ("mqtt://[::1]", ""),
    ],
)  # fmt: skip
async def test_an_edge_broker_that_others_can_listen_to_is_told_in_state(
    url: str, reason: str, lab: Lab, gm: GmPeer
) -> None:
    desired = document({})
    async with lab.controller(edge=LinkSettings.from_url(url, client_id="lc")):
        await gm.desire(desired)
        state = await gm.applied(desired)
    assert (state.reason, bool(state.message)) == (reason, bool(reason))


async def test_an_unreadable_document_is_told_in_state(lab: Lab, gm: GmPeer) -> None:
    async with lab.controller():
        for body in (b"\xff", b"[]", document({}).encode().replace(b'"1.0"', b'"2.0"')):
            gm.states.clear()
            await gm.link.publish(topics.DESIRED.of(node=NODE), body, retain=True)
            await gm.until(lambda: any(s.reason == "DocumentInvalid" for s in gm.states))
            good = document({}, rev=len(gm.statuses) + len(body))
            await gm.desire(good)
            await gm.until(lambda: gm.states[-1].reason == "")


async def test_a_document_that_cannot_be_stored_is_told_and_asked_for_again(lab: Lab, gm: GmPeer) -> None:
    stored(lab, document({}))
    async with lab.controller():
        await gm.until(lambda: gm.states)
        path = lab.state / "desired.db"
        whole = path.read_bytes()
        path.write_bytes(b"not a database" * 1000)
        later = document(SERVICE, rev=2)
        await gm.desire(later)
        await gm.until(lambda: gm.states[-1].reason == "StoreFailed")
        assert gm.states[-1].rev == 1
        path.write_bytes(whole)
        await gm.until(lambda: gm.syncs)
        await gm.desire(later)
        await gm.applied(later)


async def test_a_foreign_clusters_document_is_held_until_the_operator_accepts_it(lab: Lab, gm: GmPeer) -> None:
    stored(lab, document(SERVICE, epoch=9))
    async with lab.controller():
        foreign = document({}, cluster="cluster-b")
        await gm.desire(foreign)
        await gm.until(lambda: gm.states and gm.states[-1].reason == "PruneHeld")
        held = gm.states[-1]
        assert held.cluster == CLUSTER
        assert held.tasks is not None
        assert held.tasks[SERVICE_UID].condition == "PruneHeld"
        (lab.state / "accept-cluster").write_text("cluster-b\n")
        await gm.applied(foreign)
    assert not (lab.state / "accept-cluster").exists()


async def test_an_event_without_its_document_makes_the_node_ask(lab: Lab, gm: GmPeer) -> None:
    stored(lab, document(SERVICE))
    async with lab.controller():
        await gm.until(lambda: gm.states)
        topic = topics.INSERT.of(node=NODE, namespace="default", plural="jointinferenceservices", name="digits")
        await gm.link.publish(topic, Revision(cluster=CLUSTER, epoch=1, rev=5).encode())
        await gm.until(lambda: gm.syncs)
    assert (gm.syncs[0].cluster, gm.syncs[0].epoch, gm.syncs[0].rev) == (CLUSTER, 1, 1)


async def test_a_new_leader_hears_every_status_again(lab: Lab, gm: GmPeer) -> None:
    stored(lab, document(SERVICE))
    async with lab.controller(status_interval_s=3600.0):
        # At the connection, and for the leader that the broker remembers.
        await gm.until(lambda: len(gm.statuses) >= 2)
        gm.statuses.clear()
        alive = GmAlive(status="online", cluster=CLUSTER, leader="gm-1", epoch=7)
        await gm.link.publish(topics.GM_ALIVE.of(), alive.encode(), retain=True)
        await gm.until(lambda: gm.statuses)


async def test_a_leader_whose_connection_was_cut_hears_every_status_again(lab: Lab, gm: GmPeer) -> None:
    stored(lab, document(SERVICE))
    async with lab.controller(status_interval_s=3600.0, heartbeat_s=3600.0):
        # At the connection, and for the leader that the broker remembers.
        await gm.until(lambda: len(gm.statuses) >= 2)
        gm.statuses.clear()
        gm.link.abort()
        await gm.until(lambda: gm.statuses)


async def test_a_dataset_is_counted_and_reported(lab: Lab, gm: GmPeer, tmp_path: Path) -> None:
    path = tmp_path / "frames.csv"
    path.write_text("image,label\na.png,1\nb.png,2\n")
    uid = "dataset-uid"
    desired = document({uid: row("frames", spec={"dataUrl": str(path), "format": "csv"})})
    async with lab.controller():
        await gm.desire(desired)
        await gm.until(lambda: gm.status(uid).number_of_samples == 2)
        said = gm.status(uid).statistics
        assert said is not None
        assert (said.classes, said.missing) == ({"1": 1, "2": 1}, 2)
        path.unlink()
        await gm.until(lambda: gm.status(uid).status == "failed")
    status = gm.status(uid)
    assert (status.phase, status.reason) == ("dataset", "DatasetNotFound")


async def test_a_spec_that_cannot_run_is_failed_with_its_reason(lab: Lab, gm: GmPeer) -> None:
    desired = document({SERVICE_UID: service_row(model={"name": "absent"})})
    async with lab.controller():
        await gm.desire(desired)
        state = await gm.applied(desired)
        await gm.until(lambda: gm.status(SERVICE_UID).status == "failed")
    assert state.tasks is not None
    assert (state.tasks[SERVICE_UID].condition, state.tasks[SERVICE_UID].reason) == ("Failed", "ModelNotFound")


async def test_a_workers_word_becomes_the_services_status(lab: Lab, gm: GmPeer, worker: EdgePeer) -> None:
    stored(lab, document(SERVICE))
    async with lab.controller():
        await worker.until(lambda: worker.tasks)
        worker.easy = 10
        await worker.say("running")
        await gm.until(lambda: gm.status(SERVICE_UID).status == "running")
        status = gm.status(SERVICE_UID)
        assert status.output is not None
        assert status.output.task_info is not None
        assert status.output.task_info.inference_number == 10
        assert (status.worker, status.generation) == (WORKER, 1)
        assert (gm.ledger(SERVICE_UID).seen, gm.ledger(SERVICE_UID).skipped) == (11, 2)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
async def test_a_deleted_workers_last_word_does_not_stay(lab: Lab, gm: GmPeer, worker: EdgePeer, before: bool) -> None:
    words: list[bytes] = []

    def heard(message: Message) -> None:
        words.append(message.payload)
        worker.ring()

    stored(lab, document(SERVICE))
    async with lab.controller():
        await worker.until(lambda: worker.tasks)
        await worker.link.subscribe(topics.WORKER_INFO.of(worker=WORKER), heard)
        if before:
            await worker.say("failed")
            await gm.until(lambda: gm.status(SERVICE_UID).status == "failed")
        empty = document({}, rev=2)
        await gm.desire(empty)
        await gm.applied(empty)
        if not before:
            await worker.say("failed")
        await worker.until(lambda: words and words[-1] == b"")


async def test_only_what_changed_is_reported(lab: Lab, gm: GmPeer, worker: EdgePeer) -> None:
    stored(lab, document({**SERVICE, "other": row("frames")}))
    async with lab.controller(status_interval_s=0.02):
        await worker.until(lambda: worker.tasks)
        await worker.say("running")
        await gm.until(lambda: gm.status(SERVICE_UID).status == "running" and gm.status("other").status == "failed")
        gm.statuses.clear()
        for easy in range(1, 11):
            worker.easy = easy
            await worker.say("running")
            await gm.until(partial(_easy_is, gm, easy))
    # All once more, in between, for the leader that the broker remembers.
    assert sum(status.uid == "other" for status in gm.statuses) <= 1
    times = [status.update_time or "" for status in gm.statuses if status.uid == SERVICE_UID]
    assert len(times) <= 11
    assert sorted(times) == times
    assert len(set(times)) >= 10


async def test_an_unchanged_status_is_repeated_at_the_heartbeat(lab: Lab, gm: GmPeer) -> None:
    stored(lab, document(SERVICE))
    async with lab.controller(status_interval_s=0.02, heartbeat_s=0.1):
        await gm.until(lambda: len(gm.statuses) >= 3)
    assert len({status.update_time for status in gm.statuses}) == 1
    assert gm.statuses[-1].update_time


async def test_presence_is_repeated_at_the_heartbeat_and_withdrawn_last(lab: Lab, gm: GmPeer) -> None:
    async with lab.controller(heartbeat_s=0.1):
        await gm.until(lambda: gm.alive and gm.alive[-1].status == "online")
        forged = replace(gm.alive[-1], status="offline")
        await gm.link.publish(topics.NODE_ALIVE.of(node=NODE), forged.encode(), retain=True)
        await gm.until(lambda: "offline" in [one.status for one in gm.alive])
        await gm.until(lambda: gm.alive[-1].status == "online")
    await gm.until(lambda: gm.alive[-1].status == "offline")
    assert gm.alive[-1].connection == 1


async def test_a_worker_that_dies_is_noticed_and_comes_back(lab: Lab, gm: GmPeer, worker: EdgePeer) -> None:
    stored(lab, document(SERVICE))
    async with lab.controller():
        await worker.until(lambda: worker.tasks)
        await worker.say("running")
        await gm.until(lambda: gm.status(SERVICE_UID).status == "running")
        worker.link.abort()
        await gm.until(lambda: gm.status(SERVICE_UID).reason == "WorkerLost")
        assert gm.status(SERVICE_UID).status == "offline"
        await worker.link.wait_connected(after=1)
        await worker.say("running")
        await gm.until(lambda: gm.status(SERVICE_UID).status == "running")


async def test_an_edge_broker_that_is_down_is_told_of_its_services(lab: Lab, gm: GmPeer, worker: EdgePeer) -> None:
    stored(lab, document(SERVICE))
    async with lab.controller():
        await worker.until(lambda: worker.tasks)
        await worker.say("running")
        await gm.until(lambda: gm.status(SERVICE_UID).status == "running")
        lab.edge.kill()
        await gm.until(lambda: gm.status(SERVICE_UID).reason == "EdgeBrokerDown")
        assert gm.status(SERVICE_UID).status == "offline"
        assert str(lab.edge.port) in gm.status(SERVICE_UID).message
        lab.edge.start()
        await gm.until(lambda: gm.status(SERVICE_UID).reason != "EdgeBrokerDown")


async def test_a_worker_with_an_older_task_is_not_running_the_new_one(lab: Lab, gm: GmPeer, worker: EdgePeer) -> None:
    stored(lab, document(SERVICE))
    async with lab.controller():
        await worker.until(lambda: worker.tasks)
        await worker.say("running", task_hash="older")
        await gm.until(lambda: gm.status(SERVICE_UID).reason == "WorkerUpdating")
        assert worker.tasks[-1] is not None
        await worker.say("running", task_hash=worker.tasks[-1].hash)
        await gm.until(lambda: gm.status(SERVICE_UID).status == "running")


async def test_a_sample_travels_to_the_cloud_and_its_answer_back(
    lab: Lab, gm: GmPeer, cloud: CloudPeer, worker: EdgePeer
) -> None:
    stored(lab, document(SERVICE))
    async with lab.controller():
        await worker.until(lambda: worker.tasks)
        await worker.send(*range(1, 21))
        await worker.send(21, label="big")
        await worker.until(lambda: len(worker.answers) == 21 and worker.accepted == 21)
        await gm.until(lambda: gm.ledger(SERVICE_UID).answered == 21)
    ledger = gm.ledger(SERVICE_UID)
    assert answered_by_the_ledger(ledger)
    assert (ledger.hard, ledger.sent, ledger.changed, ledger.late, ledger.pending) == (21, 21, 20, 0, 0)
    assert ledger.bytes_up == sum(map(len, worker.sent.values()))
    assert sum(ledger.latency["cloud"].values()) == 21


async def test_a_late_answer_is_a_correction(lab: Lab, gm: GmPeer, cloud: CloudPeer, worker: EdgePeer) -> None:
    stored(lab, document(SERVICE))
    async with lab.controller():
        await worker.until(lambda: worker.tasks)
        await worker.send(1, remaining_ms=-5)
        await gm.until(lambda: gm.ledger(SERVICE_UID).corrected == 1)
        assert gm.ledger(SERVICE_UID).late == 1


async def _send_for_a_worker_that_is_away(lab: Lab, *samples: Sample) -> None:
    """Publish samples under another client's name: their worker does not subscribe to the answers."""
    away = Link(LinkSettings.from_url(lab.edge.url, client_id="away"))
    async with away:
        await away.wait_connected()
        for one in samples:
            while await away.publish(topics.SAMPLES.of(service=SERVICE_ID, node=NODE), one.encode()) != 0:
                await asyncio.sleep(0.01)


async def test_an_answer_waits_for_a_worker_that_restarts(lab: Lab, gm: GmPeer, cloud: CloudPeer) -> None:
    stored(lab, document(SERVICE))
    worker = EdgePeer(lab.edge)
    async with lab.controller():
        await _send_for_a_worker_that_is_away(lab, worker.sample(1, remaining_ms=-5))
        await gm.until(lambda: gm.ledger(SERVICE_UID).answered == 1)
        async with worker.link:
            await worker.link.wait_connected()
            for easy in range(1, 21):
                # None of them sends what another one has sent already.
                worker.easy = easy
                worker.link.publish_nowait(topics.WORKER_INFO.of(worker=WORKER), worker.info("running").encode())
            await worker.until(lambda: 1 in worker.answers)
            await gm.until(lambda: gm.ledger(SERVICE_UID).easy == 20 and gm.ledger(SERVICE_UID).corrected)
    ledger = gm.ledger(SERVICE_UID)
    assert len(worker.answers[1]) == 1
    assert (ledger.corrected, ledger.undelivered) == (1, 0)
    assert OutboxStore(lab.state / "outbox.db").load().answers == []


async def test_an_answer_that_no_worker_takes_in_time_is_counted(lab: Lab, gm: GmPeer, cloud: CloudPeer) -> None:
    stored(lab, document({SERVICE_UID: service_row(outbox={"keepFor": "1s"})}))
    worker = EdgePeer(lab.edge)
    async with lab.controller():
        await _send_for_a_worker_that_is_away(lab, worker.sample(1, remaining_ms=1000))
        await gm.until(lambda: gm.ledger(SERVICE_UID).undelivered == 1)
        assert (gm.ledger(SERVICE_UID).answered, gm.ledger(SERVICE_UID).late) == (1, 1)
    assert OutboxStore(lab.state / "outbox.db").load().answers == []


async def test_a_repeated_sample_is_accepted_again_and_counted_once(
    lab: Lab, gm: GmPeer, cloud: CloudPeer, worker: EdgePeer
) -> None:
    stored(lab, document(SERVICE))
    async with lab.controller():
        await worker.until(lambda: worker.tasks)
        await worker.send(1)
        await worker.until(lambda: worker.answers and worker.accepted == 1)
        worker.accepted = 0
        await worker.send(1)
        await worker.until(lambda: worker.accepted == 1)
        await worker.send(2)
        await gm.until(lambda: gm.ledger(SERVICE_UID).answered == 2)
    assert gm.ledger(SERVICE_UID).hard == 2
    assert {seq: len(answers) for seq, answers in worker.answers.items()} == {1: 1, 2: 1}


async def test_a_repeated_answer_is_not_handed_on(lab: Lab, gm: GmPeer, cloud: CloudPeer, worker: EdgePeer) -> None:
    stored(lab, document(SERVICE))
    async with lab.controller():
        await worker.until(lambda: worker.tasks)
        await worker.send(1)
        await worker.until(lambda: worker.answers)
        cloud.answer(worker.sample(1))
        await worker.send(2)
        await worker.until(lambda: 2 in worker.answers)
    assert len(worker.answers[1]) == 1


async def test_a_sample_that_the_cloud_cannot_read_is_dropped_and_the_worker_hears_it(
    lab: Lab, gm: GmPeer, cloud: CloudPeer, worker: EdgePeer
) -> None:
    cloud.error = "undecodable"
    stored(lab, document(SERVICE))
    async with lab.controller():
        await worker.until(lambda: worker.tasks)
        await worker.send(1)
        await worker.until(lambda: 1 in worker.answers)
        await gm.until(lambda: gm.ledger(SERVICE_UID).dropped == {"undecodable": 1})
        assert answered_by_the_ledger(gm.ledger(SERVICE_UID))


@pytest.mark.parametrize("said", [("malformed-scores", "malformed-scores"), ("odd", "refused"), ("x" * 300, "refused")])
async def test_a_sample_that_the_cloud_refuses_is_dropped_under_the_errors_own_name(
    lab: Lab, gm: GmPeer, cloud: CloudPeer, worker: EdgePeer, said: tuple[str, str]
) -> None:
    cloud.error, reason = said
    stored(lab, document(SERVICE))
    async with lab.controller():
        await worker.until(lambda: worker.tasks)
        await worker.send(1)
        await gm.until(lambda: gm.ledger(SERVICE_UID).dropped)
    assert gm.ledger(SERVICE_UID).dropped == {reason: 1}


async def test_a_sample_at_which_the_clouds_script_raised_is_tried_again(
    lab: Lab, gm: GmPeer, cloud: CloudPeer, worker: EdgePeer
) -> None:
    cloud.error = "predict-failed"
    stored(lab, document(SERVICE))
    async with lab.controller():
        await worker.until(lambda: worker.tasks)
        await worker.send(1)
        await cloud.until(lambda: cloud.seen)
        cloud.error = ""
        await worker.until(lambda: 1 in worker.answers)
        await gm.until(lambda: gm.ledger(SERVICE_UID).answered == 1 and gm.ledger(SERVICE_UID).resent == 1)
    assert [answer.label for answer in worker.answers[1]] == ["big"]
    assert gm.ledger(SERVICE_UID).dropped == {}


async def test_a_sample_at_which_the_clouds_script_always_raises_is_poison(
    lab: Lab, gm: GmPeer, cloud: CloudPeer, worker: EdgePeer
) -> None:
    cloud.error = "predict-failed"
    stored(lab, document({SERVICE_UID: service_row(outbox={"maxAttempts": 2})}))
    async with lab.controller():
        await worker.until(lambda: worker.tasks)
        await worker.send(1)
        await gm.until(lambda: gm.ledger(SERVICE_UID).dropped == {"poison": 1})
        await worker.until(lambda: 1 in worker.answers)
    assert cloud.seen == [1, 1]
    assert OutboxStore(lab.state / "outbox.db").load().rows == []


async def test_samples_wait_for_a_cloud_worker_and_go_when_it_comes(lab: Lab, gm: GmPeer, worker: EdgePeer) -> None:
    stored(lab, document(SERVICE))
    async with lab.controller():
        await worker.until(lambda: worker.tasks)
        await worker.send(*range(1, 11))
        await gm.until(lambda: gm.ledger(SERVICE_UID).pending == 10)
        late = CloudPeer(lab.cloud)
        async with late.link:
            await worker.until(lambda: len(worker.answers) == 10)


async def test_a_cut_of_the_cloud_loses_nothing(lab: Lab, gm: GmPeer, cloud: CloudPeer, worker: EdgePeer) -> None:
    stored(lab, document(SERVICE))
    async with lab.controller():
        await worker.until(lambda: worker.tasks)
        await worker.send(*range(1, 11))
        lab.cloud.kill()
        await worker.send(*range(11, 41))
        await worker.until(lambda: worker.accepted == 40)
        lab.cloud.start()
        await worker.until(lambda: len(worker.answers) == 40)
        await gm.until(lambda: gm.ledger(SERVICE_UID).answered == 40)
    ledger = gm.ledger(SERVICE_UID)
    assert answered_by_the_ledger(ledger)
    assert (ledger.sent, ledger.pending, ledger.dropped) == (40, 0, {})


async def test_a_cut_is_no_failed_try_of_what_was_in_flight(
    lab: Lab, gm: GmPeer, cloud: CloudPeer, worker: EdgePeer
) -> None:
    cloud.answering = False
    stored(lab, document({SERVICE_UID: service_row(outbox={"maxAttempts": 1})}))
    async with lab.controller():
        await worker.until(lambda: worker.tasks)
        await worker.send(1)
        # Sent is counted at the PUBACK: the broker has it, its answer will never come.
        await gm.until(lambda: gm.ledger(SERVICE_UID).sent == 1)
        lab.cloud.kill()
        lab.cloud.start()
        await cloud.link.wait_connected(after=1)
        cloud.answering = True
        await worker.send(2)
        await worker.until(lambda: 2 in worker.answers)
        await gm.until(lambda: sum((ledger := gm.ledger(SERVICE_UID)).dropped.values()) + ledger.answered == 2)
    assert gm.ledger(SERVICE_UID).dropped == {}
    assert set(worker.answers) == {1, 2}


async def test_answers_wait_for_an_edge_broker_that_is_away(
    lab: Lab, gm: GmPeer, cloud: CloudPeer, worker: EdgePeer
) -> None:
    cloud.answering = False
    stored(lab, document(SERVICE))
    async with lab.controller():
        await worker.until(lambda: worker.tasks)
        await worker.send(1, remaining_ms=30_000)
        await cloud.until(lambda: cloud.seen)
        lab.edge.kill()
        cloud.answer(worker.sample(1))
        await gm.until(lambda: gm.ledger(SERVICE_UID).answered == 1)
        assert gm.ledger(SERVICE_UID).late == 0
    _let_time_pass(lab, 60.0)
    async with lab.controller():
        lab.edge.start()
        await worker.link.wait_connected(after=1)
        await worker.say("running")
        await worker.until(lambda: 1 in worker.answers)
        # It came in time and waited: to the worker it is a correction.
        await gm.until(lambda: gm.ledger(SERVICE_UID).corrected == 1)
    assert gm.ledger(SERVICE_UID).late == 1
    assert all(answered_by_the_ledger(one.ledger) for one in gm.statuses if one.ledger is not None)
    assert OutboxStore(lab.state / "outbox.db").load().answers == []


async def test_an_answer_that_waited_is_kept_until_a_worker_subscribes(
    lab: Lab, gm: GmPeer, cloud: CloudPeer, worker: EdgePeer
) -> None:
    cloud.answering = False
    stored(lab, document(SERVICE))
    async with lab.controller():
        await worker.until(lambda: worker.tasks)
        await worker.send(1)
        await cloud.until(lambda: cloud.seen)
        lab.edge.kill()
        cloud.answer(worker.sample(1))
        await gm.until(lambda: gm.ledger(SERVICE_UID).answered == 1)
        lab.edge.start()
        await worker.link.wait_connected(after=1)
        results = topics.RESULTS.of(service=SERVICE_ID, node=NODE)
        await worker.link.unsubscribe(results)
        for easy in (1, 2):
            worker.easy = easy
            await worker.say("running")
            await gm.until(partial(_easy_is, gm, easy))
        await worker.link.subscribe(results, worker.on_result)
        await worker.say("running")
        await worker.until(lambda: 1 in worker.answers)


def _easy_is(gm: GmPeer, easy: int) -> bool:
    return gm.ledger(SERVICE_UID).easy == easy


async def _delete_with_three_samples(lab: Lab, gm: GmPeer, cloud: CloudPeer, worker: EdgePeer) -> None:
    await worker.until(lambda: worker.tasks)
    await worker.send(1, 2, 3)
    await worker.until(lambda: worker.accepted == 3)
    await cloud.until(lambda: {1, 2, 3} <= set(cloud.seen))
    empty = document({}, rev=2)
    await gm.desire(empty)
    await gm.applied(empty)
    await worker.until(lambda: worker.tasks[-1] is None)


def _let_time_pass(lab: Lab, seconds: float) -> None:
    """Move the clock of an LC that does not run."""
    with closing(sqlite3.connect(lab.state / "outbox.db")) as connection, connection:
        connection.execute("UPDATE clock SET seconds = seconds + ?", (seconds,))


async def test_a_deleted_service_is_kept_for_a_while_and_then_nothing_is_left_of_it(
    lab: Lab, gm: GmPeer, cloud: CloudPeer, worker: EdgePeer
) -> None:
    cloud.answering = False
    stored(lab, document(SERVICE))
    async with lab.controller():
        await _delete_with_three_samples(lab, gm, cloud, worker)
        await worker.send(4)
    assert len(OutboxStore(lab.state / "outbox.db").load().rows) == 3
    _let_time_pass(lab, 3500.0)
    async with lab.controller():
        await gm.until(lambda: len(gm.alive) == 3)
    assert len(OutboxStore(lab.state / "outbox.db").load().rows) == 3
    _let_time_pass(lab, 101.0)
    workers = lab.state.parent / "workers"
    (workers / SERVICE_ID / "models").mkdir(parents=True)
    async with lab.controller(), asyncio.timeout(TIMEOUT_S):
        while any(workers.iterdir()):
            await asyncio.sleep(0.05)
    loaded = OutboxStore(lab.state / "outbox.db").load()
    assert (loaded.rows, loaded.services) == ([], set())


async def test_a_deleted_service_takes_sends_and_reports_nothing(
    lab: Lab, gm: GmPeer, cloud: CloudPeer, worker: EdgePeer
) -> None:
    cloud.answering = False
    stored(lab, document(SERVICE))
    async with lab.controller():
        await _delete_with_three_samples(lab, gm, cloud, worker)
        gm.statuses.clear()
        cloud.seen.clear()
        await worker.send(4)
        lab.cloud.kill()
        lab.cloud.start()
        other = document({"other": row("frames")}, rev=3)
        await gm.link.wait_connected(after=1)
        await gm.desire(other)
        await gm.until(lambda: gm.status("other").uid)
    assert {status.uid for status in gm.statuses} == {"other"}
    assert (cloud.seen, worker.accepted) == ([], 3)


async def test_what_is_acknowledged_after_a_deletion_sends_nothing_more(
    lab: Lab, gm: GmPeer, cloud: CloudPeer, worker: EdgePeer
) -> None:
    cloud.answering = False
    stored(lab, document(SERVICE))
    async with lab.controller() as running:
        await worker.until(lambda: worker.tasks)
        await gm.until(lambda: gm.statuses)
        lab.cloud.send(signal.SIGSTOP)
        await worker.send(*range(1, 41))
        await worker.until(lambda: worker.accepted == 40)
        running._relay.configure({}, prune=True)
        lab.cloud.send(signal.SIGCONT)
        await cloud.until(lambda: len(cloud.seen) >= FIRST_COUNT)
        empty = document({}, rev=2)
        await gm.desire(empty)
        await gm.applied(empty)
    assert set(cloud.seen) == set(range(1, FIRST_COUNT + 1))


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_service_that_a_mistaken_document_deleted_comes_back_whole(
    lab: Lab, gm: GmPeer, cloud: CloudPeer, worker: EdgePeer, restarted: bool
) -> None:
    cloud.answering = False
    # The deletion is no failed try of what was in flight.
    service = {SERVICE_UID: service_row(outbox={"maxAttempts": 1})}
    stored(lab, document(service))
    again = document(service, rev=3)
    async with AsyncExitStack() as first:
        await first.enter_async_context(lab.controller())
        await _delete_with_three_samples(lab, gm, cloud, worker)
        if restarted:
            await first.aclose()
            await first.enter_async_context(lab.controller())
        cloud.answering = True
        await gm.desire(again)
        await gm.applied(again)
        await worker.send(4)
        await worker.until(lambda: len(worker.answers) == 4)
        await worker.send_until_accepted(4)
        await gm.until(lambda: gm.ledger(SERVICE_UID).answered == 4)
        assert answered_by_the_ledger(gm.ledger(SERVICE_UID))
        assert (gm.ledger(SERVICE_UID).hard, gm.ledger(SERVICE_UID).dropped) == (4, {})
    loaded = OutboxStore(lab.state / "outbox.db").load()
    assert (loaded.rows, loaded.deleted) == ([], {})


async def _leave_three_samples_and_no_desired_state(lab: Lab, worker: EdgePeer) -> None:
    stored(lab, document(SERVICE))
    async with lab.controller():
        await worker.until(lambda: worker.tasks)
        await worker.send(1, 2, 3)
        await worker.until(lambda: worker.accepted == 3)
    for path in lab.state.glob("desired.db*"):
        path.unlink()


async def test_the_outbox_outlives_a_desired_state_that_was_moved_away(lab: Lab, gm: GmPeer, worker: EdgePeer) -> None:
    await _leave_three_samples_and_no_desired_state(lab, worker)
    async with lab.controller():
        await gm.until(lambda: gm.states and gm.states[-1].cluster is None)
        await gm.desire(document(SERVICE))
        async with CloudPeer(lab.cloud).link:
            await worker.until(lambda: len(worker.answers) == 3)
        await gm.until(lambda: gm.ledger(SERVICE_UID).answered == 3)
    assert gm.ledger(SERVICE_UID).dropped == {}


async def test_the_first_document_after_that_prunes_what_it_omits(lab: Lab, gm: GmPeer, worker: EdgePeer) -> None:
    await _leave_three_samples_and_no_desired_state(lab, worker)
    async with lab.controller():
        empty = document({})
        await gm.desire(empty)
        await gm.applied(empty)
    loaded = OutboxStore(lab.state / "outbox.db").load()
    assert (len(loaded.rows), set(loaded.deleted)) == (3, {SERVICE_ID})


async def test_a_fresh_disk_takes_up_a_stream_where_the_worker_is(
    lab: Lab, gm: GmPeer, cloud: CloudPeer, worker: EdgePeer
) -> None:
    stored(lab, document(SERVICE))
    worker.accepted = 5
    worker.sent = {seq: worker.sample(seq).encode() for seq in range(1, 6)}
    async with lab.controller():
        await worker.until(lambda: worker.tasks)
        await worker.say("running")
        await worker.send(6)
        await worker.until(lambda: worker.accepted == 6)
        await gm.until(lambda: gm.ledger(SERVICE_UID).answered == 1)
    assert gm.ledger(SERVICE_UID).dropped == {"forgotten": 5}
    assert answered_by_the_ledger(gm.ledger(SERVICE_UID))


async def test_garbage_on_every_topic_changes_nothing(lab: Lab, gm: GmPeer, cloud: CloudPeer, worker: EdgePeer) -> None:
    desired = document(SERVICE)
    stored(lab, desired)
    async with lab.controller():
        await worker.until(lambda: worker.tasks)
        downstream = {"node": NODE, "namespace": "default", "plural": "jointinferenceservices", "name": "digits"}
        for body in (b"", b"\x00", b"{}", b"[1]", os.urandom(300), b'{"v":1}', b"\x80"):
            for topic in (
                topics.DESIRED.of(node=NODE), topics.INSERT.of(**downstream), topics.DELETE.of(**downstream),
                topics.GM_ALIVE.of(), topics.RESULTS.of(service=SERVICE_ID, node=NODE),
                topics.RESULTS.of(service="nobody", node=NODE),
            ):  # fmt: skip
                await gm.link.publish(topic, body, retain=topic == topics.GM_ALIVE.of())
            for topic in (
                topics.SAMPLES.of(service=SERVICE_ID, node=NODE), topics.SAMPLES.of(service="nobody", node=NODE),
                topics.WORKER_INFO.of(worker=WORKER), topics.WORKER_INFO.of(worker="nobody"),
            ):  # fmt: skip
                await worker.link.publish(topic, body)
        huge = worker.sample(1)
        changes: list[Mapping[str, object]] = [
            {"seq": 2**63},
            {"seq": 0},
            {"score": float("nan"), "stream": "other"},
            {"stream": "s" * 600},
        ]
        for field in changes:
            body = _changed_sample(huge.encode(), field)
            await worker.link.publish(topics.SAMPLES.of(service=SERVICE_ID, node=NODE), body)
        worker.tasks.clear()
        worker.answers.clear()
        await worker.send(1)
        await worker.until(lambda: 1 in worker.answers and worker.accepted == 1)
        await gm.until(lambda: gm.ledger(SERVICE_UID).answered == 1)
    assert gm.ledger(SERVICE_UID).hard == 1
    assert gm.states[-1].digest == desired.digest


def _changed_sample(body: bytes, change: Mapping[str, object]) -> bytes:
    raw = msgpack.unpackb(body, raw=False)
    raw |= {{"seq": "n", "score": "p", "stream": "s"}[name]: value for name, value in change.items()}
    packed = msgpack.packb(raw)
    assert isinstance(packed, bytes)
    return packed


async def test_a_start_and_stop_without_any_broker_ends_in_time(lab: Lab) -> None:
    lab.cloud.kill()
    lab.edge.kill()
    async with asyncio.timeout(TIMEOUT_S), lab.controller():
        pass
