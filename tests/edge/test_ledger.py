# SPDX-License-Identifier: Apache-2.0
"""The ledger of a node joins the worker's counts with the outbox's."""

from nereid_edge.ledger import WorkerSide, joined
from nereid_edge.outbox import Outbox
from nereid_edge.rows import Policy
from nereid_shared.messages import Ledger


def test_what_the_worker_dropped_itself_is_dropped_and_not_pending() -> None:
    side = WorkerSide()
    side.reported(Ledger(seen=5, easy=2, hard=3, dropped={"buffer-full": 2}))
    ledger = joined(Outbox(Policy()), {}, {"stream": side})
    assert ledger.dropped == {"buffer-full": 2}
    assert ledger.pending == 1
    assert ledger.hard == ledger.answered + sum(ledger.dropped.values()) + ledger.pending
