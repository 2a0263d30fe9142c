# SPDX-License-Identifier: Apache-2.0
"""Takes keys from a queue and has them reconciled, again and again where that fails."""

import logging
from collections.abc import Awaitable, Callable

from nereid_cloud.gm.informer import Key
from nereid_cloud.gm.workqueue import WorkQueue
from nereid_shared.errors import NereidError, TemporaryError

logger = logging.getLogger(__name__)

Reconcile = Callable[[Key], Awaitable[float | None]]
"""Brings one object up to date; returns seconds until the next look, or None."""


async def serve(queue: WorkQueue[Key], reconcile: Reconcile) -> None:
    """Reconcile one key after the other, for ever."""
    while True:
        key = await queue.get()
        try:
            again_s = await reconcile(key)
        except TemporaryError as error:
            delay_s = queue.retry(key, delay_s=error.delay_s)
            logger.info("reconcile again", extra={"key": "/".join(key), "problem": str(error), "delay_s": delay_s})
        except NereidError as error:
            delay_s = queue.retry(key)
            logger.warning("reconcile failed", extra={"key": "/".join(key), "problem": str(error), "delay_s": delay_s})
        except Exception:
            # The supervisor of all controllers: one object's defect must not stop the others.
            queue.retry(key)
            logger.exception("reconcile raised", extra={"key": "/".join(key)})
        else:
            queue.forget(key)
            if again_s is not None:
                queue.add_after(key, again_s)
        finally:
            queue.done(key)
