# SPDX-License-Identifier: Apache-2.0
import pytest

from nereid_cloud.gm.settings import Settings
from nereid_shared.errors import UserError

COMMAND = ("--in-cluster", "--broker", "mqtt://b:1")


@pytest.mark.parametrize(("more", "format_"), [((), "text"), (("--log-format", "json"), "json")])
def test_workers_are_to_log_as_the_global_manager_does(more: tuple[str, ...], format_: str) -> None:
    settings = Settings.from_args([*COMMAND, *more])
    assert (settings.json_logs, settings.policy.log_format) == (format_ == "json", format_)


@pytest.mark.parametrize(("more", "keepalive_s"), [((), None), (("--edge-keepalive", "5s"), 5)])
def test_edge_workers_keep_their_own_patience_with_brokers_unless_told(
    more: tuple[str, ...], keepalive_s: int | None
) -> None:
    assert Settings.from_args([*COMMAND, *more]).policy.edge_keepalive_s == keepalive_s


def test_to_be_confined_to_nothing_makes_no_sense() -> None:
    assert Settings.from_args([*COMMAND, "--namespace", "a", "--confined"]).confined
    with pytest.raises(UserError, match="--confined"):
        Settings.from_args([*COMMAND, "--confined"])
