# SPDX-License-Identifier: Apache-2.0
"""What a Pod tells its worker."""

import pytest

from nereid_shared.errors import UserError
from nereid_worker.settings import Settings

ENV = {
    "NEREID_WORKER": "w", "NEREID_SERVICE": "s", "NEREID_NODE": "n", "NEREID_BROKER": "mqtt://b:1", "NEREID_STATE": "/s"
}  # fmt: skip


@pytest.mark.parametrize(("more", "keepalive_s"), [({}, 20), ({"NEREID_KEEPALIVE": "5"}, 5)])
def test_the_keepalive_is_the_pods_or_the_usual_one(more: dict[str, str], keepalive_s: int) -> None:
    assert Settings.from_env(ENV | more).keepalive_s == keepalive_s


@pytest.mark.parametrize("text", ["0", "5s", "-1", "3601", "", "²"])
def test_a_keepalive_without_sense_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="NEREID_KEEPALIVE"):
        Settings.from_env(ENV | {"NEREID_KEEPALIVE": text})


SERVING = {"NEREID_ROLE": "serving", "NEREID_WORKER": "w"}


def test_a_serving_worker_has_a_task_or_a_node_whose_broker_gives_it_one() -> None:
    cloud = Settings.from_env(SERVING | {"NEREID_TASK": "{}", "NEREID_PORT": "8501", "NEREID_LISTEN": "127.0.0.1"})
    assert (cloud.role, cloud.task, cloud.broker, cloud.port, cloud.listen) == ("serving", "{}", "", 8501, "127.0.0.1")
    node = Settings.from_env(ENV | SERVING)
    assert (node.node, node.task, node.port, node.listen) == ("n", "", 0, "")
    with pytest.raises(UserError, match="NEREID_NODE, NEREID_BROKER, NEREID_STATE: not set"):
        Settings.from_env(SERVING)


@pytest.mark.parametrize("text", ["-1", "65536", "http", "²"])
def test_a_port_without_sense_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="NEREID_PORT"):
        Settings.from_env(ENV | SERVING | {"NEREID_PORT": text})


def test_an_unknown_role_is_refused() -> None:
    with pytest.raises(UserError, match="'trainer' is none of edge, cloud, serving"):
        Settings.from_env(ENV | {"NEREID_ROLE": "trainer"})
