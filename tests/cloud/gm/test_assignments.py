# SPDX-License-Identifier: Apache-2.0
from nereid_cloud.gm.assignments import Assignments
from nereid_shared.messages import TaskRow


def row(name: str) -> TaskRow:
    return TaskRow(kind="Dataset", namespace="n", name=name, generation=1, hash=name, spec={})


def nodes(*names: str) -> frozenset[str]:
    return frozenset(names)


def test_a_task_is_where_it_was_assigned_last_and_nowhere_else() -> None:
    given = Assignments()
    assert given.assign("u", {"a": row("u"), "b": row("u")}) == nodes("a", "b")
    assert given.assign("u", {"b": row("u2"), "c": row("u2")}) == nodes("a", "b", "c")
    assert [dict(given.rows_of(node)) for node in ("a", "b", "c")] == [{}, {"u": row("u2")}, {"u": row("u2")}]
    assert given.nodes_of("u") == nodes("b", "c")


def test_one_task_taken_from_a_node_leaves_the_others() -> None:
    given = Assignments()
    for uid in ("u", "v"):
        given.assign(uid, {"a": row(uid)})
    assert given.assign("u", {}) == nodes("a")
    assert dict(given.rows_of("a")) == {"v": row("v")}
    assert (given.nodes_of("u"), given.nodes_of("v")) == (nodes(), nodes("a"))


def test_a_node_lacks_a_row_from_the_first_unknown_task_to_the_last() -> None:
    given = Assignments()
    assert given.withhold("u", nodes("a", "b")) == (nodes("a", "b"), nodes())
    assert given.withhold("u", nodes("a", "b")) == (nodes(), nodes())
    assert given.withhold("v", nodes("b", "c")) == (nodes("c"), nodes())
    assert given.withhold("u", nodes()) == (nodes(), nodes("a"))
    assert [given.lacks(node) for node in ("a", "b", "c")] == [False, True, True]
    assert (given.unresolved("u"), given.unresolved("v")) == (nodes(), nodes("b", "c"))
    assert given.withhold("v", nodes("c")) == (nodes(), nodes("b"))


def test_a_nodes_tasks_are_those_that_it_shall_have_and_those_that_nobody_knows() -> None:
    given = Assignments()
    given.assign("u", {"a": row("u"), "b": row("u")})
    given.withhold("v", nodes("a"))
    assert (given.tasks_of("a"), given.tasks_of("b"), given.tasks_of("c")) == (nodes("u", "v"), nodes("u"), nodes())
