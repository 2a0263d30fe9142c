# SPDX-License-Identifier: Apache-2.0
"""What becomes of a sample once it has its edge answer: it is counted, and a hard one goes into the spool.

All in the caller's thread, for each sample: nothing here waits but for room in the spool.
"""

import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec.structs import replace

from nereid_shared import topics
from nereid_shared.samples import MAX_KEY_BYTES
from nereid_worker.answers import Answer
from nereid_worker.encoding import ENVELOPE_BYTES, encode_frame, to_spool
from nereid_worker.page import BUFFER_FULL, FAILURES, OTHER, TOO_LARGE, Page, eight_bytes, mark_of
from nereid_worker.sources import Frame, Source
from nereid_worker.spool import Spool
from nereid_worker.waiting import Asked, Inbox, Waiting

if TYPE_CHECKING:  # it needs numpy, of which a process without the extra [worker] has to say that it is missing
    from nereid_worker.rules import Rule

logger = logging.getLogger(__name__)


class Sending:
    """The page and the spool of a service, from the inference thread's side.

    Args:
        rule: where it stands is kept in the page, and restored from it if it is the same rule.
        waiting: is told of each sample that was sent.
        notify: tells the uplink that the spool has a new sample.
        look_after: takes in results for a while, and raises where the service is told to end.

    Attributes:
        wants_room: a sample waits until others leave the spool.
    """

    def __init__(
        self,
        *,
        rule: "Rule",
        page: Page,
        spool: Spool,
        waiting: Waiting,
        notify: Callable[[], None],
        look_after: Callable[[], None],
    ) -> None:
        self._rule, self._page, self._spool, self._waiting = rule, page, spool, waiting
        self._notify, self._look_after = notify, look_after
        self.wants_room = False
        self._restore_rule()

    def done(self, item: Frame, answer: Answer, source: Source | None) -> None:
        """Count a sample, and move the cursor of a source that can resume behind it."""
        page = self._page
        page.seen += 1
        if answer.error:
            page.failed[answer.error if answer.error in FAILURES else OTHER] += 1
        else:
            page.observe("edge", answer.latency_s)
            if answer.is_hard:
                page.hard += 1
            else:
                page.easy += 1
            page.rule_state = self._rule.state
        if source is not None and source.identity:
            page.cursor, page.last = item.index + 1, mark_of(item.key)
        page.commit()

    def send(self, item: Frame, answer: Answer, inbox: Inbox, source: Source | None, *, deadline_s: float) -> None:
        """Count a hard sample and put it into the spool; what finds no room there keeps the edge's answer."""
        page, spool = self._page, self._spool
        body = self._body(item, answer, deadline_s)
        most = topics.SAMPLES.max_bytes - ENVELOPE_BYTES
        refusal = TOO_LARGE if len(body) > most or not spool.fits(len(body)) else ""
        if not refusal and not spool.has_room(len(body)):
            if source is not None and not source.live:
                self._wait_for_room(len(body))
            else:
                refusal = BUFFER_FULL
        if refusal:
            logger.warning("hard sample kept from the cloud", extra={"key": item.key, "reason": refusal})
            page.dropped[refusal] += 1
            page.degraded += 1
            self.done(item, answer, source)
            inbox.put(replace(answer, degraded=True, reason=refusal))
            return
        # Into the spool first: a kill before the page names it makes the frame come again, under the same number.
        spool.append(page.seq + 1, body)
        page.seq += 1
        self.done(item, answer, source)
        asked = Asked(answer=answer, captured_s=item.captured_s, deadline_s=deadline_s, inbox=inbox)
        self._waiting.ask(page.seq, asked)
        self._notify()

    def _body(self, item: Frame, answer: Answer, deadline_s: float) -> bytes:
        """Return the spool's record, with the counters as they will be once the sample is counted."""
        page = self._page
        return to_spool(
            stream=page.stream, seq=page.seq + 1, key=_text(item.key), captured_at=item.captured_at,
            deadline_s=deadline_s, label=answer.label, score=answer.score,
            counts=(page.seen + 1, page.easy, page.hard + 1, sum(page.failed.values())),
            encoded=encode_frame(item.data),
        )  # fmt: skip

    def _wait_for_room(self, body_bytes: int) -> None:
        """Return once the spool has room; where the service is told to end before, the frame stays uncounted."""
        self.wants_room = True
        try:
            while not self._spool.has_room(body_bytes):
                self._look_after()
        finally:
            self.wants_room = False

    def _restore_rule(self) -> None:
        """Let the rule go on where it stood, if it is the same rule with the same parameters."""
        page, rule = self._page, self._rule
        identity = eight_bytes(f"{type(rule).__name__} {sorted(rule.values.items())} {rule.budget}")
        if page.rule == identity and not math.isnan(page.rule_state):
            rule.restore(page.rule_state)
        page.rule, page.rule_state = identity, rule.state
        page.commit()


def _text(key: str) -> str:
    """Return a key that can travel: file names may hold bytes that are no text."""
    return key.encode(errors="replace").decode()[:MAX_KEY_BYTES]
