# SPDX-License-Identifier: Apache-2.0
import pytest

from nereid_cloud.gm.settling import Settling


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("was_ready", "unheard", "waits"), [(True, False, True), (False, True, True), (False, False, False)]
)
def test_nothing_is_denied_before_the_nodes_could_speak(*, was_ready: bool, unheard: bool, waits: bool) -> None:
    clock = Clock()
    settling = Settling(clock, settle_s=10)
    assert settling.waits("u", was_ready=was_ready, is_ready=False, unheard=unheard) is waits
    clock.now = 10.0
    assert not settling.waits("u", was_ready=was_ready, is_ready=False, unheard=unheard)


def test_what_was_seen_to_be_ready_is_denied_at_once() -> None:
    settling = Settling(Clock(), settle_s=10)
    assert not settling.waits("u", was_ready=True, is_ready=True, unheard=False)
    assert not settling.waits("u", was_ready=True, is_ready=False, unheard=False)
