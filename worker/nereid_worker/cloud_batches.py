# SPDX-License-Identifier: Apache-2.0
"""What waits in a cloud worker's queue: one sample each."""

import asyncio
from dataclasses import dataclass

from nereid_shared.samples import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One sample on its way through the model.

    Attributes:
        node: where it came from.
        done: resolved when its result is published; only then is the sample acknowledged to the broker.
    """

    node: str
    sample: Sample
    done: "asyncio.Future[None]"

    @property
    def identity(self) -> tuple[str, str, int, bytes]:
        """What makes it the same sample as one that came before."""
        return self.node, self.sample.stream, self.sample.seq, self.sample.digest
