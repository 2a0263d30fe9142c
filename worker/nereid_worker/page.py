# SPDX-License-Identifier: Apache-2.0
"""The edge worker's counters and source cursor: one memory-mapped page that survives SIGKILL.

A frame is counted with two stores into the page cache: the new record into the slot that is not current, then the
slot's number. A kill between them leaves the previous record whole, so that the counters, the cursor and the last
sample number always belong together. Nothing here calls fsync: after a power cut the LocalController's copy is what counts.
"""

import mmap
import os
import secrets
import struct
from pathlib import Path
from typing import Final, Self

from nereid_shared import histogram
from nereid_shared.messages import Ledger
from nereid_shared.samples import Counts

FAILURES: Final = ("undecodable", "malformed-scores", "missing", "error")
DROPS: Final = ("buffer-full",)

_MAGIC: Final = b"NEREIDP1"
_SIZE: Final = 8192
_HEAD: Final = struct.Struct("<8s16sQ")
# seen easy hard skipped degraded cursor seq started_us | failed… dropped… | rule state, source id
_RECORD: Final = struct.Struct(f"<8q{len(FAILURES)}q{len(DROPS)}qd8s")
_SLOTS: Final = (256, 512)
_HISTOGRAM: Final = 1024
_BUCKETS: Final = 220  # up to 190 s
_CURRENT: Final = struct.Struct("<Q")
_CURRENT_AT: Final = 24
_COUNT: Final = struct.Struct("<I")


class Page:
    """Counters of one service on one node, kept over restarts of the worker.

    Attributes are the ledger's (see `nereid_shared.messages.Ledger`); they are plain integers that `commit` makes
    durable together.

    Attributes:
        stream: random id under which samples are numbered; as old as the page.
        seq: number of the last hard sample that was counted.
        cursor: index of the source's next frame.
        source: eight bytes that name the source the cursor belongs to.
        rule_state: the hard example rule's threshold as its budget moved it; NaN where there is none.
        started_us: when the page was made, microseconds since the epoch.
    """

    def __init__(self, path: Path, *, now_us: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = not path.exists() or path.stat().st_size != _SIZE
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(self._file, _SIZE)
        self._map = mmap.mmap(self._file, _SIZE)
        self.seen = self.easy = self.hard = self.skipped = self.degraded = self.cursor = self.seq = 0
        self.started_us = now_us
        self.failed = dict.fromkeys(FAILURES, 0)
        self.dropped = dict.fromkeys(DROPS, 0)
        self.rule_state = float("nan")
        self.source = bytes(8)
        self._current = 0
        magic, stream, current = _HEAD.unpack_from(self._map, 0)
        if new or magic != _MAGIC:
            self.stream = secrets.token_hex(8)
            self._write(0)
            _HEAD.pack_into(self._map, 0, _MAGIC, self.stream.encode(), 0)
        else:
            self.stream = stream.decode()
            self._current = current & 1
            self._read(self._current)

    def _read(self, slot: int) -> None:
        values = _RECORD.unpack_from(self._map, _SLOTS[slot])
        self.seen, self.easy, self.hard, self.skipped, self.degraded, self.cursor, self.seq, self.started_us = values[
            :8
        ]
        self.failed = dict(zip(FAILURES, values[8 : 8 + len(FAILURES)], strict=True))
        self.dropped = dict(zip(DROPS, values[8 + len(FAILURES) : -2], strict=True))
        self.rule_state, self.source = values[-2:]

    def _write(self, slot: int) -> None:
        _RECORD.pack_into(
            self._map, _SLOTS[slot],
            self.seen, self.easy, self.hard, self.skipped, self.degraded, self.cursor, self.seq, self.started_us,
            *self.failed.values(), *self.dropped.values(), self.rule_state, self.source,
        )  # fmt: skip

    def commit(self) -> None:
        """Make the attributes as they are now the page's record."""
        slot = 1 - self._current
        self._write(slot)
        _CURRENT.pack_into(self._map, _CURRENT_AT, slot)
        self._current = slot

    def observe(self, name: str, seconds: float) -> None:
        """Count a latency; `name` is ``edge`` or ``cloud``."""
        index = min(histogram.bucket(seconds), _BUCKETS - 1)
        at = _HISTOGRAM + _COUNT.size * (index + (_BUCKETS if name == "cloud" else 0))
        _COUNT.pack_into(self._map, at, _COUNT.unpack_from(self._map, at)[0] + 1)

    def counts(self) -> Counts:
        """Return the counters that travel with a sample."""
        return Counts(seen=self.seen, easy=self.easy, hard=self.hard, failed=sum(self.failed.values()))

    def ledger(self) -> Ledger:
        """Return the worker's part of the ledger as last committed; callable from another thread."""
        values = _RECORD.unpack_from(self._map, _SLOTS[self._current])
        seen, easy, hard, skipped, degraded = values[:5]
        failed, dropped = values[8 : 8 + len(FAILURES)], values[8 + len(FAILURES) : -2]
        return Ledger(
            seen=seen, easy=easy, hard=hard, skipped=skipped, degraded=degraded,
            failed={name: count for name, count in zip(FAILURES, failed, strict=True) if count},
            dropped={name: count for name, count in zip(DROPS, dropped, strict=True) if count},
            latency={name: self._histogram(at) for name, at in (("edge", 0), ("cloud", _BUCKETS))},
        )  # fmt: skip

    def _histogram(self, first: int) -> dict[int, int]:
        counts = struct.unpack_from(f"<{_BUCKETS}I", self._map, _HISTOGRAM + _COUNT.size * first)
        return {index: count for index, count in enumerate(counts) if count}

    def close(self) -> None:
        """Release the file; what was committed stays."""
        self._map.close()
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
