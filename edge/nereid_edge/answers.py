# SPDX-License-Identifier: Apache-2.0
"""The answers' way down: from the cloud's result to the edge worker, and the disk for one whose worker is away.

A sample ends on disk in one transaction with what became of its answer: delivered, given up, or kept. Until then a
crash has the sample sent, and answered, once more.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from nereid_edge.records import AnswerRecord, Change, Statement, drop_answer, keep_answer
from nereid_edge.service import Service
from nereid_edge.store import OutboxStore
from nereid_shared.errors import MessageTooLarge, TemporaryError
from nereid_shared.link import DELIVERED, FAILURE, NO_SUBSCRIBER, Link

logger = logging.getLogger(__name__)

MAX_KEPT_ANSWERS: Final = 1000


class Answers:
    """Hands answers to the edge broker.

    Args:
        store: where those are kept that no worker takes.
        clock: the LC's time.
    """

    def __init__(self, store: OutboxStore, *, clock: Callable[[], float]) -> None:
        self._store, self._clock = store, clock
        self._edge: Link | None = None

    def attach(self, edge: Link) -> None:
        """Set the link; until then answers are kept."""
        self._edge = edge

    def publish(self, service: Service, answer: AnswerRecord, end: Change) -> bool:
        """Publish an answer, once at a time; False where that cannot be done now.

        Args:
            service: whose.
            answer: a new one, or one that is kept.
            end: what is to be committed together with what becomes of the answer: the end of its sample.
        """
        on_ack = partial(self._acked, service, answer, end)
        service.flying.add(answer.key)
        try:
            if self._edge is not None:
                self._edge.publish_nowait(service.results_topic, answer.body, on_ack=on_ack)
                return True
        except TemporaryError:
            pass
        except MessageTooLarge as error:
            logger.warning("answer not handed on", extra={"service": service.id, "problem": str(error)})
            on_ack(FAILURE)
            return True
        on_ack(None)
        return False

    def hand_on_kept(self, service: Service) -> None:
        """Publish the answers that wait; those that nobody takes go on waiting."""
        for answer in [one for key, one in service.kept.items() if key not in service.flying]:
            if not self.publish(service, answer, Change()):
                return

    def give_up_kept(self, service: Service, now: float) -> None:
        """Count the answers whose worker stayed away for as long as samples are kept."""
        for answer in list(service.kept.values()):
            if now - answer.since <= service.settings.policy.keep_for_s:
                return
            if answer.key not in service.flying:
                del service.kept[answer.key]
                counts = {"undelivered": 1, **self._newly_late(answer)}
                self._store.put(service.count(counts, [drop_answer(service.id, answer.key)]))

    def _newly_late(self, answer: AnswerRecord) -> dict[str, int]:
        """Return what is to be counted of an answer that came in time and whose deadline has passed since."""
        return {"late": 1} if not answer.came_late and self._clock() > answer.deadline else {}

    def _acked(self, service: Service, answer: AnswerRecord, end: Change, code: int | None) -> None:
        service.flying.discard(answer.key)
        if service.gone:
            return
        counts: dict[str, int] = {}
        statements: list[Statement] = []
        if code in (None, NO_SUBSCRIBER):
            # The broker or the worker is away; `edge_connected` and the worker's next info try again.
            if answer.key not in service.kept and len(service.kept) < MAX_KEPT_ANSWERS:
                service.kept[answer.key] = answer
                statements = [keep_answer(answer)]
            elif answer.key not in service.kept:
                counts = {"undelivered": 1}
        else:
            # Judged again: an answer that came in time, and waited here for its worker, is a correction to it.
            counts = self._newly_late(answer)
            if code != DELIVERED:
                counts["undelivered"] = 1
            elif counts or answer.came_late:
                counts["corrected"] = 1
            if service.kept.pop(answer.key, None) is not None:
                statements = [drop_answer(service.id, answer.key)]
        more = service.count(counts, statements)
        change = replace(end, statements=[*end.statements, *more.statements], counts=[*end.counts, *more.counts])
        if change.statements or change.counts:
            self._store.put(change)
