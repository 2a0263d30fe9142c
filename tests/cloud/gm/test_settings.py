# SPDX-License-Identifier: Apache-2.0
import pytest

from nereid_cloud.gm.settings import Settings

COMMAND = ("--in-cluster", "--broker", "mqtt://b:1")


@pytest.mark.parametrize(("more", "format_"), [((), "text"), (("--log-format", "json"), "json")])
def test_workers_are_to_log_as_the_global_manager_does(more: tuple[str, ...], format_: str) -> None:
    settings = Settings.from_args([*COMMAND, *more])
    assert (settings.json_logs, settings.policy.log_format) == (format_ == "json", format_)
