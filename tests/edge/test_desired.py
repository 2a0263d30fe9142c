# SPDX-License-Identifier: Apache-2.0
import itertools
import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.edge.rows import CLUSTER, document, row

from nereid_edge.desired import Applied, DesiredState, Due, Verdict
from nereid_edge.desired_store import DesiredStore
from nereid_shared.digests import digest_of
from nereid_shared.errors import TemporaryError, UserError
from nereid_shared.messages import Desired


def machine(applied: Applied | None = None, **more: object) -> DesiredState:
    return DesiredState(applied or Applied(), rng=random.Random(7), **more)  # type: ignore[arg-type]  # noqa: S311


def take(state: DesiredState, doc: Desired, now: float = 0.0) -> Verdict:
    judged = state.document(doc, now)
    if judged.verdict is Verdict.APPLY:
        state.stored(judged.document, now)
    return judged.verdict


def applied_at(epoch: int, rev: int, *names: str, cluster: str = CLUSTER) -> Applied:
    return Applied(cluster=cluster, epoch=epoch, rev=rev, tasks={name: row(name) for name in names})


def due_times(state: DesiredState, until: float) -> list[tuple[float, Due]]:
    """All that becomes due up to `until`, with its time."""
    found = []
    while (at := state.due_at()) is not None and at <= until:
        found.append((at, state.due(at)))
    return found


def test_a_newer_document_is_applied_and_absence_means_delete() -> None:
    state = machine(applied_at(1, 1, "a", "b"))
    assert take(state, document({"b": row("b")}, rev=2)) is Verdict.APPLY
    assert set(state.applied.tasks) == {"b"}


def test_a_document_at_or_below_the_applied_revision_is_ignored() -> None:
    state = machine(applied_at(2, 5, "a"))
    for epoch, rev in ((2, 5), (2, 4), (1, 99)):
        assert take(state, document({}, epoch=epoch, rev=rev)) is Verdict.IGNORE
    assert set(state.applied.tasks) == {"a"}


def test_a_new_epoch_starts_its_revisions_anew() -> None:
    state = machine(applied_at(2, 5, "a"))
    assert take(state, document({}, epoch=3, rev=1)) is Verdict.APPLY


def test_a_document_whose_digest_does_not_fit_is_refused_and_said_so() -> None:
    state = machine(applied_at(1, 1, "a"))
    state.connected(0.0)
    state.due(0.0)
    wrong = replace(document({"b": row("b")}, rev=2), digest="0" * 64)
    assert take(state, wrong, 1.0) is Verdict.REFUSE
    assert (state.reason, set(state.applied.tasks)) == ("DigestMismatch", {"a"})
    assert state.due(1.2).full


def test_a_row_that_is_not_what_its_hash_says_is_refused() -> None:
    forged = replace(row("b"), spec={"dataUrl": "/etc/passwd", "format": "txt"})
    state = machine(applied_at(1, 1, "a"))
    assert take(state, document({"b": forged}, rev=2)) is Verdict.REFUSE
    assert state.reason == "HashMismatch"


def test_a_row_with_not_a_number_is_refused() -> None:
    forged = replace(row("b"), spec={"x": float("nan")})
    assert take(machine(), document({"b": forged})) is Verdict.REFUSE


def test_an_applied_document_clears_the_reason_of_a_refused_one() -> None:
    state = machine()
    take(state, replace(document({}), digest="x"))
    assert take(state, document({}, rev=2)) is Verdict.APPLY
    assert (state.reason, state.message) == ("", "")


def test_another_clusters_document_that_would_prune_is_held_until_accepted() -> None:
    state = machine(applied_at(7, 7, "a", "b"))
    assert take(state, document({"b": row("b")}, cluster="cluster-b")) is Verdict.HOLD
    assert (state.reason, set(state.applied.tasks), state.pruned_if_accepted) == (
        "PruneHeld",
        {"a", "b"},
        frozenset({"a"}),
    )
    assert state.accept("cluster-c", 1.0) is None
    judged = state.accept("cluster-b", 1.0)
    assert judged is not None
    assert judged.verdict is Verdict.APPLY
    state.stored(judged.document, 1.0)
    assert (state.applied.cluster, set(state.applied.tasks), state.reason) == ("cluster-b", {"b"}, "")


def test_an_acceptance_is_for_one_change_of_cluster() -> None:
    state = machine(applied_at(1, 1, "a"), accepted_clusters=frozenset({"cluster-b"}))
    assert take(state, document({}, cluster="cluster-b")) is Verdict.APPLY
    assert take(state, document({"a": row("a")}, cluster=CLUSTER, rev=2)) is Verdict.APPLY
    assert take(state, document({}, cluster="cluster-b", rev=2)) is Verdict.HOLD


def test_another_clusters_document_that_prunes_nothing_is_applied() -> None:
    state = machine(applied_at(7, 7, "a"))
    assert take(state, document({"a": row("a"), "b": row("b")}, cluster="cluster-b")) is Verdict.APPLY


def test_the_first_document_of_all_is_applied_from_any_cluster() -> None:
    assert take(machine(), document({"a": row("a")}, cluster="cluster-z")) is Verdict.APPLY


def test_specs_that_a_document_leaves_out_are_filled_from_what_is_stored() -> None:
    state = machine(applied_at(1, 1, "a"))
    bare = replace(row("a"), spec=None, refs={})
    assert take(state, document({"a": bare, "b": row("b")}, rev=2)) is Verdict.APPLY
    assert state.applied.tasks["a"] == row("a")


def test_specs_that_are_nowhere_are_asked_for_by_name() -> None:
    state = machine()
    state.connected(0.0)
    state.due(0.0)
    bare = replace(row("a"), spec=None, refs={})
    assert take(state, document({"a": bare}), 1.0) is Verdict.REFUSE
    due = state.due(1.0)
    assert (due.sync, due.want_specs) == (True, ("a",))


def test_sync_is_asked_for_between_5_and_30_s_and_grows() -> None:
    state = machine()
    state.connected(0.0)
    times = [at for at, due in due_times(state, 200.0) if due.sync]
    assert 5.0 <= times[0] <= 10.0
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert all(5.0 <= gap <= 30.0 for gap in gaps)
    assert max(gaps) > 10.0


def test_a_document_ends_the_asking_even_where_it_is_old() -> None:
    state = machine(applied_at(1, 1, "a"))
    state.connected(0.0)
    assert take(state, document({"a": row("a")}), 1.0) is Verdict.IGNORE
    assert not [due for _, due in due_times(state, 60.0) if due.sync]


def test_an_event_above_the_applied_revision_arms_sync_after_2_s() -> None:
    state = machine(applied_at(1, 1, "a"))
    state.connected(0.0)
    take(state, document({"a": row("a")}), 0.0)
    state.event(CLUSTER, 1, 2, 10.0)
    syncs = [at for at, due in due_times(state, 13.0) if due.sync]
    assert syncs == [12.0]
    assert set(state.applied.tasks) == {"a"}


def test_the_document_that_an_event_told_of_disarms_sync() -> None:
    state = machine(applied_at(1, 1, "a"))
    state.connected(0.0)
    take(state, document({"a": row("a")}), 0.0)
    state.event(CLUSTER, 1, 3, 10.0)
    take(state, document({"b": row("b")}, rev=2), 10.5)
    assert [at for at, due in due_times(state, 12.5) if due.sync] == [12.0]
    take(state, document({}, rev=3), 12.6)
    assert not [due for _, due in due_times(state, 80.0) if due.sync]


def test_an_event_at_or_below_the_applied_revision_asks_for_nothing() -> None:
    state = machine(applied_at(1, 5, "a"))
    state.connected(0.0)
    take(state, document({}, rev=5), 0.0)
    state.event(CLUSTER, 1, 5, 1.0)
    assert not [due for _, due in due_times(state, 60.0) if due.sync]


def test_state_is_full_on_change_coalesced_and_else_a_heartbeat() -> None:
    state = machine(applied_at(1, 1, "a"), heartbeat_s=30.0)
    state.connected(0.0)
    take(state, document({"a": row("a")}), 0.0)
    assert state.due(0.0).full
    for at in (1.0, 1.05, 1.1):
        state.changed(at)
    found = [(at, due.full, due.heartbeat) for at, due in due_times(state, 100.0)]
    assert found[0] == (1.2, True, False)
    beats = [at for at, full, beat in found[1:] if beat and not full]
    assert len(beats) == len(found) - 1
    assert all(27.0 <= b - a <= 33.0 for a, b in zip([1.2, *beats], beats, strict=False))


def test_a_new_epoch_of_the_leader_has_every_status_sent_again() -> None:
    state = machine(applied_at(1, 1, "a"))
    state.connected(0.0)
    state.due(0.0)
    state.gm_alive(CLUSTER, 4, 1.0, retained=True)
    sent = [at for at, due in due_times(state, 3.0) if due.statuses]
    assert len(sent) == 1
    assert 1.0 <= sent[0] <= 2.0
    state.gm_alive(CLUSTER, 4, 3.0, retained=True)
    state.gm_alive("cluster-b", 9, 3.0, retained=False)
    assert not [at for at, due in due_times(state, 6.0) if due.statuses]


def test_a_leader_that_comes_back_has_every_status_sent_again_once() -> None:
    state = machine(applied_at(1, 1, "a"))
    state.connected(0.0)
    state.due(0.0)
    state.gm_alive(CLUSTER, 4, 1.0, retained=True)
    state.due(2.0)
    for said in (3.0, 3.1, 3.2):
        state.gm_alive(CLUSTER, 4, said, retained=False)
    assert len([at for at, due in due_times(state, 6.0) if due.statuses]) == 1


def test_nothing_is_due_without_a_connection() -> None:
    state = machine()
    assert state.due_at() is None
    state.connected(0.0)
    state.disconnected()
    state.changed(1.0)
    assert (state.due_at(), state.due(100.0)) == (None, Due())


NAMES = st.sets(st.sampled_from("abcdef"))


@dataclass
class Node:
    """A node on a lossy wire, whose disk holds what the machine called applied."""

    store: DesiredStore
    state: DesiredState
    seen: list[tuple[int, int]] = field(default_factory=list)

    def restart(self) -> None:
        self.state = machine(self.store.load())

    def deliver(self, doc: Desired, now: float, *, crash: bool) -> None:
        judged = self.state.document(doc, now)
        if judged.verdict is Verdict.APPLY:
            self.store.apply(judged.document)
            if crash:
                # Killed between the commit and everything else.
                self.restart()
            else:
                self.state.stored(judged.document, now)
        self.seen.append((self.state.applied.epoch, self.state.applied.rev))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), contents=st.lists(NAMES, min_size=1, max_size=8))
def test_after_drop_duplicate_reorder_and_restart_the_last_document_wins(
    data: st.DataObject, contents: list[set[str]], tmp_path_factory: object
) -> None:
    folder: Path = tmp_path_factory.mktemp("node")  # type: ignore[attr-defined]
    node = Node(DesiredStore(folder / "desired.db"), machine())
    truth: list[Desired] = []
    epoch, rev = 1, 0
    for names in contents:
        if data.draw(st.booleans()):
            epoch, rev = epoch + 1, 0
        rev += 1
        truth.append(document({name: row(name, generation=rev) for name in names}, epoch=epoch, rev=rev))
    for now, number in enumerate(data.draw(st.lists(st.integers(0, len(truth) - 1), max_size=20))):
        event = truth[data.draw(st.integers(0, len(truth) - 1))]
        node.state.event(event.cluster, event.epoch, event.rev, float(now))
        node.deliver(truth[number], float(now), crash=data.draw(st.booleans()))
        if data.draw(st.booleans()):
            node.restart()
        assert node.state.applied.digest in {"", *(doc.digest for doc in truth)}
    assert node.seen == sorted(node.seen)
    node.deliver(truth[-1], 100.0, crash=False)
    node.restart()
    assert node.state.applied.tasks == truth[-1].tasks
    assert node.state.applied.digest == digest_of(truth[-1].tasks) == truth[-1].digest


def test_a_file_that_cannot_be_opened_is_not_called_damaged(tmp_path: Path) -> None:
    DesiredStore(tmp_path / "desired.db").apply(document({"a": row("a")}))
    store = DesiredStore(tmp_path / "desired.db")
    (tmp_path / "desired.db-wal").mkdir()
    for touch in (store.load, lambda: store.apply(document({}, rev=2)), lambda: DesiredStore(tmp_path / "desired.db")):
        with pytest.raises(TemporaryError):
            touch()
    (tmp_path / "desired.db-wal").rmdir()
    assert set(DesiredStore(tmp_path / "desired.db").load().tasks) == {"a"}


def test_a_file_that_is_damaged_is_the_users(tmp_path: Path) -> None:
    store = DesiredStore(tmp_path / "desired.db")
    (tmp_path / "desired.db").write_bytes(b"not a database" * 100)
    with pytest.raises(UserError, match=r"desired\.db.*Move it away"):
        store.apply(document({}, rev=2))
    with pytest.raises(UserError, match=r"desired\.db.*Move it away"):
        DesiredStore(tmp_path / "desired.db")
