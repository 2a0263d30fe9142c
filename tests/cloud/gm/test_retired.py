# SPDX-License-Identifier: Apache-2.0
"""What a node counted stays counted when it lets a service go, and is counted once when it has it again."""

from nereid_cloud.gm.names import RETIRED_ANNOTATION
from nereid_cloud.gm.retired import MAX_NODES, Retired, retired_of
from nereid_shared.messages import Ledger

LEFT = Ledger(seen=9, easy=5, hard=4, answered=2, pending=2, latency={"edge": {80: 9}})


def left(node: str = "a") -> Retired:
    return Retired().after({node: LEFT}, gone={node})


def test_what_was_pending_at_a_node_that_let_go_has_no_answer() -> None:
    total = left().total()
    assert (total.seen, total.answered, total.pending, total.dropped) == (9, 2, 0, {"removed": 2})


def test_a_node_that_goes_on_where_it_was_counts_for_itself() -> None:
    again = Ledger(seen=10, easy=6, hard=4, answered=3, dropped={"expired": 1})
    assert left().after({"a": again, "b": LEFT}, gone=()) == Retired()


def test_a_node_that_begins_anew_adds_to_what_it_counted_however_far_it_comes() -> None:
    kept = left().after({"a": Ledger(seen=1, easy=1)}, gone=())
    assert kept == kept.after({"a": Ledger(seen=100, easy=90, hard=10, answered=10)}, gone=())
    assert kept.total().seen == 9


def test_a_node_that_has_nothing_to_say_yet_decides_nothing() -> None:
    kept = left()
    assert kept.after({"a": Ledger()}, gone=()) == kept
    assert kept.after({"a": Ledger()}, gone={"a"}) == kept


def test_a_node_that_leaves_a_second_time_is_counted_once() -> None:
    more = Ledger(seen=12, easy=8, hard=4, answered=4)
    assert left().after({"a": more}, gone={"a"}).total().seen == 12


def test_beyond_so_many_nodes_the_first_ones_are_summed() -> None:
    kept = Retired()
    for number in range(MAX_NODES + 3):
        kept = kept.after({f"edge-{number}": LEFT}, gone={f"edge-{number}"})
    assert list(kept.nodes) == [f"edge-{number}" for number in range(3, MAX_NODES + 3)]
    assert (kept.rest.seen, kept.total().seen) == (27, 9 * (MAX_NODES + 3))


def test_it_is_read_from_its_annotation_and_what_is_no_such_thing_is_nothing() -> None:
    text = left().encode().decode()
    assert retired_of({"metadata": {"annotations": {RETIRED_ANNOTATION: text}}}) == left()
    assert retired_of({"metadata": {"annotations": {RETIRED_ANNOTATION: "soon"}}}) == Retired()


def test_so_many_full_ledgers_fit_an_objects_annotations() -> None:
    many = 2**40
    reasons = {f"some-reason-{number}": many for number in range(10)}
    busy = dict.fromkeys(range(220), 2**20)
    full = Ledger(
        seen=many, easy=many, hard=many, sent=many, answered=many, bytes_up=many, bytes_down=many,
        failed=reasons, dropped=reasons, latency={"edge": busy, "cloud": busy},
    )  # fmt: skip
    nodes = {f"a-node-with-a-long-name-{number}": full for number in range(MAX_NODES)}
    assert len(Retired(nodes=nodes, rest=full).encode()) < 192 * 1024
