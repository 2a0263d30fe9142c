# SPDX-License-Identifier: Apache-2.0
"""The delay before a container is started again, as the kubelet has it: 0, base, 2·base, … up to a ceiling."""


class RestartDelay:
    """How long one container waits between its runs.

    Args:
        base_s: the delay before the second restart; the first is immediate.
        ceiling_s: the longest delay. A container that ran twice as long starts again without any.
    """

    def __init__(self, *, base_s: float, ceiling_s: float) -> None:
        self._base_s, self._ceiling_s = base_s, ceiling_s
        self._next_s = 0.0

    def after(self, ran_s: float) -> float:
        """Return the seconds to wait after a run that lasted `ran_s`."""
        if ran_s >= 2 * self._ceiling_s:
            self._next_s = 0.0
        delay_s = self._next_s
        self._next_s = min(2 * delay_s or self._base_s, self._ceiling_s)
        return delay_s
