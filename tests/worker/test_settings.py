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
