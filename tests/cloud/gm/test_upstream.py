# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from nereid_cloud.gm.downstream import Callbacks, Downstream
from nereid_cloud.gm.observed import Observed
from nereid_cloud.gm.upstream import Listeners, Upstream
from nereid_shared import topics
from nereid_shared.digests import task_hash
from nereid_shared.errors import MessageInvalid
from nereid_shared.link import Message
from nereid_shared.messages import NodeAlive, NodeState, TaskRow, TaskState

SPEC = {"a": 1}
ROW = TaskRow(kind="Dataset", namespace="n", name="d", generation=1, hash=task_hash(SPEC, {}), spec=SPEC)


class Parts:
    """An Upstream in front of an unconnected Downstream that gave `edge-0` one task."""

    def __init__(self) -> None:
        async def raise_epoch(above: int) -> int:
            return above + 1

        self.told: list[tuple[str, bool]] = []
        self.nodes: list[str] = []
        self.words: list[tuple[str, int]] = []
        self.observed = Observed(timeout_s=90, clock=lambda: 0.0)
        callbacks = Callbacks(
            node_exists=lambda _: True, raise_epoch=raise_epoch, on_report=lambda _node, _report: None
        )  # fmt: skip
        downstream = Downstream(cluster="c", identity="gm", epoch=1, callbacks=callbacks)
        downstream.assign("u", {"edge-0": ROW})
        self.upstream = Upstream(
            cluster="c",
            observed=self.observed,
            downstream=downstream,
            listeners=Listeners(
                on_node=self.nodes.append,
                on_status=lambda uid, urgent: self.told.append((uid, urgent)),
                on_word=lambda node, status: self.words.append((node, status.number)),
                on_cloud=lambda _: None,
                on_duplicate=lambda _: None,
            ),
        )

    def hear(self, filter_: str, topic: str, payload: bytes, *, retain: bool = False) -> None:
        handled = self.upstream.subscriptions()[filter_](Message(topic, payload, retain))
        assert handled is None


@pytest.fixture
async def parts() -> Parts:
    return Parts()


def status_topic(node: str, *, plural: str = "datasets", name: str = "d") -> str:
    return topics.STATUS.of(node=node, namespace="n", plural=plural, name=name)


def status(number: int = 1, **more: object) -> bytes:
    body = {"phase": "dataset", "status": "running", "boot": "b", "number": number, "uid": "u", **more}
    return json.dumps(body).encode()


async def test_a_holder_of_the_task_is_believed(parts: Parts) -> None:
    parts.hear(topics.STATUS.filter(), status_topic("edge-0"), status())
    assert parts.told == [("u", True)]


@pytest.mark.parametrize(
    "topic",
    [
        status_topic("edge-1"),
        status_topic("edge-0", name="other"),
        status_topic("edge-0", plural="jointinferenceservices"),
    ],
)
async def test_what_is_not_the_senders_to_say_is_refused(
    parts: Parts, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    parts.hear(topics.STATUS.filter(), topic, status())
    assert (parts.told, parts.words) == ([], [])
    assert [record.msg for record in caplog.records] == ["status of a task that the node does not hold"]
    assert all(view.status("u") is None for view in parts.observed.nodes.values())


async def test_counters_alone_are_not_urgent(parts: Parts) -> None:
    parts.hear(topics.STATUS.filter(), status_topic("edge-0"), status(1))
    parts.hear(topics.STATUS.filter(), status_topic("edge-0"), status(2))
    parts.hear(topics.STATUS.filter(), status_topic("edge-0"), status(3, status="failed"))
    assert parts.told == [("u", True), ("u", False), ("u", True)]


@pytest.mark.parametrize("name", ["d", "of a task that nobody can resolve"])
async def test_the_first_live_word_of_a_node_wakes_all_of_its_tasks(parts: Parts, name: str) -> None:
    birth = NodeAlive(status="online", install="i", boot="b", connection=1).encode()
    parts.hear(topics.NODE_ALIVE.filter(), topics.NODE_ALIVE.of(node="edge-0"), birth, retain=True)
    woken = len(parts.nodes)
    parts.hear(topics.STATUS.filter(), status_topic("edge-0", name=name), status(1), retain=True)
    assert not parts.observed.is_observable("edge-0")
    parts.hear(topics.STATUS.filter(), status_topic("edge-0", name=name), status(2))
    parts.hear(topics.STATUS.filter(), status_topic("edge-0", name=name), status(3))
    assert parts.observed.is_observable("edge-0")
    assert parts.nodes[woken:] == ["edge-0"]


async def test_the_highest_epoch_of_our_cluster_is_kept(parts: Parts) -> None:
    for cluster, epoch in (("c", 4), ("other", 9), ("c", 2), ("c", 2**53)):
        state = NodeState(boot="b", number=epoch, cluster=cluster, epoch=epoch)
        parts.hear(topics.STATE.filter(), topics.STATE.of(node="edge-0"), state.encode())
    assert parts.upstream.seen_epoch == 4
    kept = parts.observed.nodes["edge-0"].state
    assert kept is not None
    assert kept.epoch == 9


async def test_a_heartbeat_that_says_nothing_new_wakes_no_controller(parts: Parts) -> None:
    where = topics.STATE.of(node="edge-0")
    parts.hear(
        topics.NODE_ALIVE.filter(),
        topics.NODE_ALIVE.of(node="edge-0"),
        NodeAlive(status="online", install="i", boot="b", connection=1).encode(),
    )
    states = [
        NodeState(boot="b", number=1, digest="d", tasks={}),
        NodeState(boot="b", number=2, digest="d"),
        NodeState(boot="b", number=3, digest="d"),
        NodeState(boot="b", number=4, digest="d", tasks={"u": TaskState(generation=1, condition="Failed")}),
    ]
    woken = []
    for state in states:
        parts.hear(topics.STATE.filter(), where, state.encode())
        woken.append(len(parts.nodes))
    assert woken == [2, 2, 2, 3]


async def test_an_undecodable_body_is_a_dead_letter(parts: Parts) -> None:
    with pytest.raises(MessageInvalid):
        parts.hear(topics.STATE.filter(), topics.STATE.of(node="edge-0"), b"\xff")


async def test_every_filter_is_a_named_leaf(parts: Parts) -> None:
    assert not [filter_ for filter_ in parts.upstream.subscriptions() if "#" in filter_]
