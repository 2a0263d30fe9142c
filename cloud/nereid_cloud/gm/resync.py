# SPDX-License-Identifier: Apache-2.0
"""Looks at everything now and then, from the caches: what a defect forgot to look at is not forgotten for ever.

It asks the API server nothing; what a watch missed is the list's to find (`nereid_cloud.cluster.listwatch`).
"""

import asyncio
import random
from collections.abc import Iterable
from typing import Final

from nereid_cloud.gm.informer import Informer, Key, key_of
from nereid_cloud.gm.workqueue import WorkQueue

RESYNC_S: Final = 600.0


async def resync(caches: Iterable[tuple[Informer, WorkQueue[Key]]], *, every_s: float = RESYNC_S) -> None:
    """Put every cached key into its queue once per period, each at a moment of its own; runs for ever."""
    pairs = tuple(caches)
    while True:
        for informer, queue in pairs:
            for obj in informer.items():
                # Spread over the whole period: a fleet's services must not come all at once.
                queue.add_after(key_of(obj), random.uniform(0.0, every_s))  # noqa: S311 - jitter
        await asyncio.sleep(every_s)
