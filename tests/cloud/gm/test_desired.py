# SPDX-License-Identifier: Apache-2.0
import itertools
import random
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from nereid_cloud.gm.desired import (
    ACK_TIMEOUT_S,
    MAX_EPOCH_STEP,
    MAX_INLINE_BYTES,
    PACE_S,
    STATE_AHEAD,
    VERIFY_S,
    NodeDesired,
    NodeReport,
    Output,
    Publish,
    RaiseEpoch,
)
from nereid_edge.desired import Applied, DesiredState, Verdict
from nereid_shared.digests import digest_of, task_hash
from nereid_shared.messages import Desired, NodeState, Sync, TaskRow
from nereid_shared.topics import DESIRED


def row(name: str, *, content: str = "a", generation: int = 1) -> TaskRow:
    spec, refs = {"content": content}, {"worker": name}
    return TaskRow(
        kind="JointInferenceService", namespace="default", name=name, generation=generation,
        hash=task_hash(spec, refs), spec=spec, refs=refs,
    )  # fmt: skip


def machine(*names: str, epoch: int = 1) -> NodeDesired:
    return NodeDesired(cluster="c", epoch=epoch, tasks={name: row(name) for name in names})


def publish(node: NodeDesired, now: float) -> Publish | None:
    """Tick once and let the broker have what is published."""
    found = [output for output in node.tick(now) if isinstance(output, Publish)]
    for output in found:
        node.published(output.epoch, output.rev)
    return found[0] if found else None


def state(document: Publish, *, digest: str | None = None, cluster: str = "c", **more: Any) -> NodeState:
    return NodeState(
        boot="b", number=1, cluster=cluster, epoch=document.epoch, rev=document.rev,
        digest=digest_of(document.rows) if digest is None else digest, **more,
    )  # fmt: skip


def only(outputs: Iterable[Output], kind: type[Output]) -> list[Output]:
    return [output for output in outputs if isinstance(output, kind)]


def published(node: NodeDesired, now: float) -> Publish:
    output = publish(node, now)
    assert output is not None
    return output


def test_a_node_that_nobody_is_on_gets_no_document() -> None:
    node = machine()
    assert node.next_at() is None
    assert publish(node, 0.0) is None


def test_the_first_document_is_complete_and_names_its_place() -> None:
    document = Desired.decode(published(machine("x", "y", epoch=7), 0.0).payload, max_bytes=DESIRED.max_bytes)
    assert (document.cluster, document.epoch, document.rev) == ("c", 7, 1)
    assert document.digest == digest_of(document.tasks)
    assert set(document.tasks) == {"x", "y"}


def test_no_document_follows_an_unacknowledged_one_before_the_time_out() -> None:
    node = machine("x")
    published(node, 0.0)
    node.set_tasks({})
    assert publish(node, ACK_TIMEOUT_S - 0.01) is None
    assert published(node, ACK_TIMEOUT_S).rev == 2


def test_an_acknowledged_document_is_followed_by_the_next_at_the_pace() -> None:
    node = machine("x")
    first = published(node, 0.0)
    node.on_state(state(first), 0.01)
    node.set_tasks({})
    assert publish(node, PACE_S - 0.01) is None
    assert node.next_at() == PACE_S
    second = published(node, PACE_S)
    assert set(second.deleted) == {"x"}


def test_nothing_is_published_while_the_broker_has_not_taken_the_last_one() -> None:
    node = machine("x")
    assert only(node.tick(0.0), Publish)
    node.set_tasks({})
    assert node.next_at() is None
    assert publish(node, 100.0) is None


@pytest.mark.parametrize("outcome", [NodeDesired.published, NodeDesired.publish_failed])
def test_what_became_of_a_former_epochs_document_says_nothing_of_the_present_one(
    outcome: Callable[[NodeDesired, int, int], None],
) -> None:
    node = machine("x", epoch=1)
    assert only(node.tick(0.0), Publish)
    node.new_epoch(2)
    assert only(node.tick(0.0), Publish)
    node.set_tasks({})
    outcome(node, 1, 1)
    assert node.next_at() is None
    outcome(node, 2, 1)
    assert node.next_at() is not None


def test_a_failed_publish_comes_again_with_a_new_revision_at_the_next_connection() -> None:
    node = machine("x")
    assert only(node.tick(0.0), Publish)
    node.publish_failed(1, 1)
    assert publish(node, 0.5) is None
    node.on_connected(1.0)
    assert published(node, 1.0).rev == 2


def test_an_acknowledged_document_whose_repetition_failed_counts_as_unacknowledged() -> None:
    node = machine("x")
    node.on_state(state(published(node, 0.0)), 0.1)
    node.set_tasks({})
    second = published(node, 1.0)
    node.on_state(state(second), 1.1)
    assert node.is_released("x")
    node.on_sync(Sync(cluster="c", epoch=1, rev=2, digest=digest_of({})))
    assert only(node.tick(2.0), Publish)
    node.publish_failed(1, 2)
    assert not node.is_released("x")
    assert node.next_at() == 2.0 + ACK_TIMEOUT_S
    assert publish(node, 2.0 + PACE_S) is None
    third = published(node, 2.0 + ACK_TIMEOUT_S)
    assert third.rev == 3
    node.on_state(state(third), 7.1)
    assert node.is_released("x")


def test_a_node_that_asks_for_specs_has_answered_and_gets_them_at_the_pace() -> None:
    node = machine("x")
    first = published(node, 0.0)
    node.on_sync(Sync(cluster="c", epoch=1, rev=0, want_specs=["x"]))
    assert node.next_at() == PACE_S
    assert published(node, PACE_S).rev == first.rev + 1
    assert not node.is_applied("x")


def test_a_lower_revision_is_lag_until_the_time_out_and_then_repaired_by_a_new_one() -> None:
    node = machine("x")
    first = published(node, 0.0)
    behind = replace(state(first), rev=0)
    node.on_state(behind, 1.0)
    assert node.next_at() is None
    node.on_state(behind, ACK_TIMEOUT_S)
    assert published(node, ACK_TIMEOUT_S).rev == 2


def test_one_mismatch_is_repaired_and_two_are_reported() -> None:
    node = machine("x")
    first = published(node, 0.0)
    node.on_state(state(first, digest="other"), 0.1)
    assert node.trouble == ""
    assert not node.is_applied("x")
    second = published(node, 1.0)
    assert second.rev == 2
    node.on_state(state(second, digest="other"), 1.1)
    assert [report.reason for report in only(node.tick(1.1), NodeReport) if isinstance(report, NodeReport)] == [
        "DigestMismatch"
    ]
    third = published(node, 10.0)
    node.on_state(state(third), 10.1)
    assert node.trouble == ""
    assert node.is_applied("x")


def test_repairs_of_a_node_that_never_gets_it_right_grow_rare() -> None:
    node, now, gaps = machine("x"), 0.0, []
    for _ in range(8):
        document = published(node, now)
        node.on_state(state(document, digest="other"), now)
        at = node.next_at()
        assert at is not None
        if node.trouble and at == float("-inf"):
            list(node.tick(now))
            at = node.next_at()
            assert at is not None
        gaps.append(at - now)
        now = at
    assert gaps[0] <= PACE_S
    assert gaps[-1] >= 30.0


def test_a_digest_of_another_revision_is_not_compared() -> None:
    node = machine("x")
    first = published(node, 0.0)
    node.on_state(state(first), 0.1)
    node.set_tasks({})
    published(node, 1.0)
    node.on_state(state(first, digest="whatever"), 1.1)
    assert node.next_at() is None


def test_a_revision_ahead_of_ours_asks_for_a_higher_epoch() -> None:
    node = machine("x")
    first = published(node, 0.0)
    node.on_state(replace(state(first), epoch=9, rev=4), 0.1)
    assert only(node.tick(0.1), RaiseEpoch) == [RaiseEpoch(above=9)]
    node.new_epoch(10)
    assert published(node, 0.2).rev == 1


@pytest.mark.parametrize("epoch", [MAX_EPOCH_STEP + 2, 2**53])
def test_an_epoch_that_no_leader_can_have_reached_is_told_and_holds_nothing_up(epoch: int) -> None:
    node = machine("x")
    first = published(node, 0.0)
    node.on_state(state(first), 0.1)
    node.on_state(replace(state(first), epoch=epoch, rev=4), 0.2)
    node.on_sync(Sync(cluster="c", epoch=epoch, rev=4))
    outputs = list(node.tick(0.2))
    assert [o.reason for o in outputs if isinstance(o, NodeReport)] == [STATE_AHEAD]
    assert len(outputs) == 1
    assert node.is_applied("x")
    node.on_state(state(first), 0.3)
    assert only(node.tick(0.3), NodeReport) == [NodeReport(reason="")]


def test_another_clusters_state_is_never_ahead() -> None:
    node = machine("x")
    first = published(node, 0.0)
    node.on_state(replace(state(first, cluster="other"), epoch=99), 0.1)
    assert only(node.tick(0.1), RaiseEpoch) == []


def test_a_held_prune_is_reported_and_not_repeated() -> None:
    node = machine("x")
    first = published(node, 0.0)
    node.on_state(state(first, cluster="other", reason="PruneHeld"), ACK_TIMEOUT_S + 1)
    assert node.trouble == "PruneHeld"
    list(node.tick(ACK_TIMEOUT_S + 1))
    assert node.next_at() is None


def test_foreign_content_on_the_topic_is_replaced() -> None:
    node = machine("x", epoch=5)
    first = published(node, 0.0)
    node.on_state(state(first), 0.1)
    foreign = Desired(cluster="c", epoch=4, rev=90, digest=digest_of({}), tasks={}).encode()
    node.on_document(foreign, retained=False)
    assert published(node, 1.0).rev == 2


def test_a_cleared_topic_is_filled_again() -> None:
    node = machine("x")
    node.on_state(state(published(node, 0.0)), 0.1)
    node.on_document(b"", retained=False)
    assert published(node, 1.0).rev == 2


def test_our_own_echo_is_not_foreign() -> None:
    node = machine("x")
    first = published(node, 0.0)
    node.on_state(state(first), 0.1)
    node.on_document(first.payload, retained=False)
    node.set_tasks({})
    second = published(node, 1.0)
    node.on_state(state(second), 1.1)
    node.on_document(first.payload, retained=False)
    assert node.next_at() is None


def test_a_broker_that_lost_the_document_gets_it_again_after_a_reconnect() -> None:
    node = machine("x")
    node.on_state(state(published(node, 0.0)), 0.1)
    node.on_connected(10.0)
    assert publish(node, 10.0 + VERIFY_S - 0.01) is None
    assert published(node, 10.0 + VERIFY_S).rev == 2


def test_a_broker_that_kept_the_document_is_left_in_peace() -> None:
    node = machine("x")
    first = published(node, 0.0)
    node.on_state(state(first), 0.1)
    node.on_connected(10.0)
    node.on_document(first.payload, retained=True)
    assert node.next_at() is None


def test_a_broker_that_restored_an_older_document_gets_the_present_one() -> None:
    node = machine("x")
    first = published(node, 0.0)
    node.on_state(state(first), 0.1)
    node.set_tasks({})
    node.on_state(state(published(node, 1.0)), 1.1)
    node.on_connected(10.0)
    node.on_document(first.payload, retained=True)
    assert published(node, 10.1).rev == 3


def test_what_a_former_leader_told_the_node_makes_no_new_insert_event() -> None:
    former = published(machine("x", "y"), 0.0)
    node = machine("x", epoch=2)
    node.on_document(former.payload, retained=True)
    first = published(node, 0.0)
    assert first.inserted == frozenset()
    assert set(first.deleted) == {"y"}


def test_a_task_is_released_when_a_document_without_it_is_acknowledged() -> None:
    node = machine("x")
    node.on_state(state(published(node, 0.0)), 0.1)
    node.set_tasks({})
    assert not node.is_released("x")
    second = published(node, 1.0)
    assert not node.is_released("x")
    node.on_state(state(second), 1.1)
    assert node.is_released("x")


def test_a_node_that_asks_for_what_it_has_gets_it_again_at_the_same_revision() -> None:
    node = machine("x")
    first = published(node, 0.0)
    node.on_state(state(first), 0.1)
    node.on_sync(Sync(cluster="c", epoch=1, rev=1, digest=digest_of(first.rows)))
    again = published(node, 1.0)
    assert (again.rev, again.payload) == (1, first.payload)
    assert publish(node, 10.0) is None
    node.on_sync(Sync(cluster="c", epoch=1, rev=1, digest="other"))
    assert published(node, 20.0).rev == 2


def test_a_change_of_one_task_leaves_the_others_acknowledged() -> None:
    node = machine("x")
    node.on_state(state(published(node, 0.0)), 0.1)
    node.set_tasks({"x": row("x"), "y": row("y")})
    second = published(node, 1.0)
    assert node.is_applied("x")
    assert not node.is_applied("y")
    node.on_state(state(second), 1.1)
    assert node.is_applied("y")
    node.set_tasks({"x": row("x", content="b")})
    assert not node.is_applied("x")


def test_a_node_that_lost_its_disk_has_acknowledged_nothing() -> None:
    node = machine("x")
    node.on_state(state(published(node, 0.0)), 0.1)
    node.on_state(NodeState(boot="new", number=1), 1.0)
    assert not node.is_applied("x")


def test_a_node_that_restored_an_older_disk_has_acknowledged_nothing() -> None:
    node = machine("x")
    first = published(node, 0.0)
    node.on_state(state(first), 0.1)
    node.set_tasks({"x": row("x"), "y": row("y")})
    second = published(node, 1.0)
    node.on_state(state(second), 1.1)
    node.on_state(state(first), 2.0)
    assert not node.is_applied("x")


def test_a_document_ahead_of_ours_asks_for_a_higher_epoch() -> None:
    node = machine("x")
    published(node, 0.0)
    foreign = Desired(cluster="c", epoch=9, rev=1, digest=digest_of({}), tasks={})
    node.on_document(foreign.encode(), retained=False)
    assert only(node.tick(0.1), RaiseEpoch) == [RaiseEpoch(above=9)]


def edge_state(lc: DesiredState, number: int) -> NodeState:
    applied = lc.applied
    return NodeState(
        boot="b", number=number, cluster=applied.cluster, epoch=applied.epoch, rev=applied.rev, digest=applied.digest,
        reason=lc.reason, message=lc.message,
    )  # fmt: skip


def edge_takes(lc: DesiredState, payload: bytes, now: float) -> None:
    if not payload:
        return
    judged = lc.document(Desired.decode(payload, max_bytes=DESIRED.max_bytes), now)
    if judged.verdict is Verdict.APPLY:
        lc.stored(judged.document, now)


def test_a_document_too_long_to_carry_its_specs_reaches_the_node_in_parts() -> None:
    tasks = {f"t{n}": row(f"t{n}", content="x" * 40_000) for n in range(20)}
    node = NodeDesired(cluster="c", epoch=1, tasks=tasks)
    lc = DesiredState(Applied(), rng=random.Random(1))  # noqa: S311 - repeatable
    lc.connected(0.0)
    now, documents = 0.0, 0
    while lc.applied.tasks != tasks:
        now += 1.0
        document = publish(node, now)
        if document is not None:
            documents += 1
            assert len(document.payload) <= MAX_INLINE_BYTES
            edge_takes(lc, document.payload, now)
        due = lc.due(now)
        if due.sync:
            node.on_sync(Sync(cluster=None, want_specs=list(due.want_specs)))
        assert now < 60.0
    assert documents <= 5


class BothSides(RuleBasedStateMachine):
    """The GM's machine and the LC's own, with a broker between them that loses, repeats, reorders and forgets."""

    @initialize(seed=st.integers(0, 2**16))
    def start(self, seed: int) -> None:
        self.rng = random.Random(seed)  # noqa: S311 - repeatable
        self.now = 0.0
        self.epoch = 1
        self.node = NodeDesired(cluster="c", epoch=1)
        self.lc = DesiredState(Applied(), rng=self.rng)
        self.online = True
        self.lc.connected(self.now)
        self.number = 0
        self.store: dict[str, TaskRow] = {}
        self.retained = b""
        self.down: list[bytes] = []
        self.up: list[NodeState | Sync] = []
        self.applied: tuple[int, int] = (0, 0)

    @rule(name=st.sampled_from("abc"), content=st.sampled_from(["1", "2", ""]))
    def change_the_store(self, name: str, content: str) -> None:
        self.store.pop(name, None)
        if content:
            self.store[name] = row(name, content=content)
        self.node.set_tasks(self.store)

    @rule(seconds=st.sampled_from([0.05, 0.3, 1.0, 6.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self._work()

    @rule(copies=st.integers(0, 2), index=st.integers(0, 5))
    @precondition(lambda self: self.down)
    def deliver_down(self, copies: int, index: int) -> None:
        payload = self.down.pop(index % len(self.down))
        for _ in range(copies if self.online else 0):
            edge_takes(self.lc, payload, self.now)

    @rule(copies=st.integers(0, 2), index=st.integers(0, 5))
    @precondition(lambda self: self.up)
    def deliver_up(self, copies: int, index: int) -> None:
        message = self.up.pop(index % len(self.up))
        for _ in range(copies):
            self._hear(message)

    @rule()
    def the_gm_restarts(self) -> None:
        self.epoch += 1
        self.node = NodeDesired(cluster="c", epoch=self.epoch, tasks=dict(self.store))
        self.node.on_document(self.retained, retained=True)

    @rule()
    def the_lease_is_deleted_and_the_gm_restarts(self) -> None:
        self.epoch = 0
        self.the_gm_restarts()

    @rule()
    def the_lc_restarts(self) -> None:
        self.lc = DesiredState(self.lc.applied, rng=self.rng)
        self._reconnect()

    @rule()
    def the_lc_loses_its_disk(self) -> None:
        self.lc = DesiredState(Applied(), rng=self.rng)
        self.applied = (0, 0)
        self._reconnect()

    @rule()
    def the_link_is_cut(self) -> None:
        self.online = False
        self.lc.disconnected()
        self.down.clear()

    @rule()
    def the_link_heals(self) -> None:
        self._reconnect()

    @rule()
    def the_broker_loses_its_store(self) -> None:
        self.retained = b""
        self.node.on_connected(self.now)

    @rule(content=st.sampled_from("12"))
    def an_old_leader_writes(self, content: str) -> None:
        tasks = {"a": row("a", content=content)}
        stale = Desired(
            cluster="c", epoch=max(self.epoch - 1, 0), rev=50, digest=digest_of(tasks), tasks=tasks
        ).encode()
        self.retained = stale
        self.down.append(stale)
        self.node.on_document(stale, retained=False)

    @invariant()
    def the_node_never_goes_back(self) -> None:
        if not hasattr(self, "lc"):
            return
        applied = self.lc.applied
        if applied.cluster == "c":
            assert (applied.epoch, applied.rev) >= self.applied
            self.applied = (applied.epoch, applied.rev)

    def teardown(self) -> None:
        if not hasattr(self, "lc"):
            return
        self.node.on_connected(self.now)
        if self.retained:
            self.node.on_document(self.retained, retained=True)
        self._reconnect()
        for _ in range(400):
            self.now += 0.5
            self._work()
            while self.down:
                edge_takes(self.lc, self.down.pop(0), self.now)
            while self.up:
                self._hear(self.up.pop(0))
        assert self.lc.applied.tasks == self.store or (not self.store and not self.lc.applied.tasks)

    def _reconnect(self) -> None:
        self.online = True
        self.lc.connected(self.now)
        self.down.clear()
        if self.retained:
            self.down.append(self.retained)

    def _work(self) -> None:
        for output in list(self.node.tick(self.now)):
            if isinstance(output, Publish):
                self.retained = output.payload
                if self.online:
                    self.down.append(output.payload)
                self.node.published(output.epoch, output.rev)
                self.node.on_document(output.payload, retained=False)
            elif isinstance(output, RaiseEpoch):
                self.epoch = max(self.epoch, output.above) + 1
                self.node.new_epoch(self.epoch)
        due = self.lc.due(self.now)
        if due.full or due.heartbeat:
            self.number += 1
            self.up.append(edge_state(self.lc, self.number))
        if due.sync:
            applied = self.lc.applied
            self.up.append(
                Sync(
                    cluster=applied.cluster, epoch=applied.epoch, rev=applied.rev, digest=applied.digest,
                    want_specs=list(due.want_specs),
                )
            )  # fmt: skip

    def _hear(self, message: NodeState | Sync) -> None:
        if isinstance(message, Sync):
            self.node.on_sync(message)
        else:
            self.node.on_state(message, self.now)


TestBothSides = pytest.mark.slow(BothSides.TestCase)
BothSides.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("12")), max_size=8))
@settings(deadline=None)
def test_documents_keep_their_distance_whatever_happens(changes: list[tuple[str, str]]) -> None:
    node, tasks, times = machine("x"), {}, []
    now = 0.0
    for name, content in changes:
        tasks[name] = row(name, content=content)
        node.set_tasks(tasks)
        for _ in range(20):
            now += 0.03
            document = publish(node, now)
            if document is not None:
                times.append(now)
                node.on_state(state(document), now)
    assert all(later - earlier >= PACE_S for earlier, later in itertools.pairwise(times))
