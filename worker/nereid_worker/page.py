# SPDX-License-Identifier: Apache-2.0
"""The edge worker's counters and source cursor: one memory-mapped page that survives SIGKILL.

A frame is counted with two stores into the page cache: the new record into the slot that is not current, then the
slot's number. A kill between them leaves the previous record whole, so that the counters, the cursor and the last
sample number always belong together. Nothing here calls fsync: after a power cut the LocalController's copy counts.
Each record has a check. Where the current one fails it, the one before counts; a page with neither is set aside, and a
new one, with a stream of its own, takes its place.
"""

import hashlib
import os
import secrets
import struct
import zlib
from pathlib import Path
from typing import Any, Final, Self

from nereid_shared import histogram
from nereid_shared.messages import Ledger
from nereid_shared.samples import MALFORMED_SCORES, UNDECODABLE
from nereid_worker.damage import set_aside
from nereid_worker.mapped import open_mapped

MISSING: Final = "missing"
OTHER: Final = "error"
FAILURES: Final = (UNDECODABLE, MALFORMED_SCORES, MISSING, OTHER)

BUFFER_FULL: Final = "buffer-full"
TOO_LARGE: Final = "too-large"
DROPS: Final = (BUFFER_FULL, TOO_LARGE)

# Names the layout too: another number wherever a record, FAILURES or DROPS changes.
_MAGIC: Final = b"NEREIDP4"
_SIZE: Final = 8192
_BODY: Final = struct.Struct("<16sQ")  # stream, current slot
_BODY_AT: Final = len(_MAGIC)
# seen easy hard skipped degraded corrected cursor seq started_us | failed… dropped… | rule state, rule, source, last
_RECORD: Final = struct.Struct(f"<9q{len(FAILURES)}q{len(DROPS)}qd8s8sQ")
_LAST_FIELDS: Final = -4
# Adler-32: a CRC's tables, which each frame's decoding drives out of the caches, would cost more than all else here.
_CHECK: Final = struct.Struct("<I")
_WHOLE: Final = _RECORD.size + _CHECK.size
_FAILED_AT: Final = 9
_SLOTS: Final = (256, 512)
_HISTOGRAM: Final = 1024
_BUCKETS: Final = 220  # up to 190 s
_CURRENT_AT: Final = 24
_COUNT: Final = struct.Struct("<Q")
# A kill can leave one latency observed whose frame was not counted; a million of them are damage.
_UNCOUNTED: Final = 1 << 20


class Page:
    """Counters of one service on one node, kept over restarts of the worker.

    Attributes are the ledger's (see `nereid_shared.messages.Ledger`); they are plain integers that `commit` makes
    durable together.

    Attributes:
        stream: random id under which samples are numbered; as old as the page.
        seq: number of the last hard sample that was counted.
        cursor: index of the source's next frame.
        source: eight bytes that name the source the cursor belongs to.
        last: names the frame before the cursor (see `mark_of`), since the source's order may have changed.
        rule_state: the hard example rule's threshold as its budget moved it; NaN where there is none.
        rule: eight bytes that name the rule that `rule_state` belongs to.
        committed_seq: `seq` as last committed: samples above it must not leave the process.
        started_us: when the page was made, microseconds since the epoch.
        damaged: where a page that could not be read was put, before this one was made; else None.
    """

    def __init__(self, path: Path, *, now_us: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        existed = path.exists()
        self._open(path)
        self.seen = self.easy = self.hard = self.skipped = self.degraded = self.corrected = 0
        self.cursor = self.seq = self.last = 0
        self.started_us = now_us
        self.failed = dict.fromkeys(FAILURES, 0)
        self.dropped = dict.fromkeys(DROPS, 0)
        self.rule_state = float("nan")
        self.rule = self.source = bytes(8)
        self._current = 0
        self.damaged: Path | None = None
        if not self._restore():
            # All zeros, too, where the file was there: a power cut leaves such files.
            if existed:
                self.close()
                self.damaged = set_aside(path)
                self._open(path)
            self._begin()
        self.committed_seq: int = self.seq

    def _open(self, path: Path) -> None:
        self._file, self._map = open_mapped(path, _SIZE)
        self._counts = memoryview(self._map)[_HISTOGRAM : _HISTOGRAM + 2 * _BUCKETS * _COUNT.size].cast("Q")

    def _begin(self) -> None:
        self._current = 0
        self._name(secrets.token_hex(8).encode())
        self._write(0)
        _BODY.pack_into(self._map, _BODY_AT, self.stream.encode(), 0)
        self._map[: len(_MAGIC)] = _MAGIC  # last: it vouches for the rest

    def _name(self, stream: bytes) -> None:
        # The check covers the stream too: records are worth nothing under another one's name.
        self.stream, self._seed = stream.decode("latin-1"), zlib.adler32(stream)

    def _restore(self) -> bool:
        """Read what the file has; False where it has no whole record."""
        stream, current = _BODY.unpack_from(self._map, _BODY_AT)
        self._name(stream)
        slot = current & 1
        self._current = slot if self._is_whole(slot) else 1 - slot
        if self._map[: len(_MAGIC)] != _MAGIC or not self._is_whole(self._current):
            return False
        values = _RECORD.unpack_from(self._map, _SLOTS[self._current])
        self.seen, self.easy, self.hard, self.skipped, self.degraded, self.corrected = values[:6]
        self.cursor, self.seq, self.started_us = values[6:_FAILED_AT]
        self.failed, self.dropped = _reasons(values)
        self.rule_state, self.rule, self.source, self.last = values[_LAST_FIELDS:]
        if any(count > self.seen + _UNCOUNTED for count in self._counts):
            self._map[_HISTOGRAM:] = bytes(_SIZE - _HISTOGRAM)
        return True

    def _is_whole(self, slot: int) -> bool:
        at = _SLOTS[slot]
        (check,) = _CHECK.unpack_from(self._map, at + _RECORD.size)
        record = self._map[at : at + _RECORD.size]
        return bool(check == zlib.adler32(record, self._seed)) and _adds_up(_RECORD.unpack(record))

    def _write(self, slot: int) -> None:
        record = _RECORD.pack(
            self.seen, self.easy, self.hard, self.skipped, self.degraded, self.corrected,
            self.cursor, self.seq, self.started_us,
            *self.failed.values(), *self.dropped.values(), self.rule_state, self.rule, self.source, self.last,
        )  # fmt: skip
        at = _SLOTS[slot]
        self._map[at : at + _WHOLE] = record + _CHECK.pack(zlib.adler32(record, self._seed))

    def commit(self) -> None:
        """Make the attributes as they are now the page's record."""
        slot = 1 - self._current
        self._write(slot)
        self._map[_CURRENT_AT] = slot
        self._current = slot
        self.committed_seq = self.seq

    def observe(self, name: str, seconds: float) -> None:
        """Count a latency; `name` is ``edge`` or ``cloud``."""
        index = min(histogram.bucket(seconds), _BUCKETS - 1)
        self._counts[index + (_BUCKETS if name == "cloud" else 0)] += 1

    def ledger(self) -> Ledger:
        """Return the worker's part of the ledger as last committed; callable from another thread."""
        values = _RECORD.unpack_from(self._map, _SLOTS[self._current])
        seen, easy, hard, skipped, degraded, corrected = values[:6]
        failed, dropped = _reasons(values)
        return Ledger(
            seen=seen, easy=easy, hard=hard, skipped=skipped, degraded=degraded, corrected=corrected,
            failed={name: count for name, count in failed.items() if count},
            dropped={name: count for name, count in dropped.items() if count},
            latency={name: self._histogram(at) for name, at in (("edge", 0), ("cloud", _BUCKETS))},
        )  # fmt: skip

    def _histogram(self, first: int) -> dict[int, int]:
        return {index: count for index, count in enumerate(self._counts[first : first + _BUCKETS]) if count}

    def close(self) -> None:
        """Release the file; what was committed stays."""
        self._counts.release()
        self._map.close()
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _adds_up(values: tuple[Any, ...]) -> bool:
    """Whether a record's counts are such: seen = easy + hard + failed, none of them negative."""
    seen, easy, hard = values[:3]
    failed = values[_FAILED_AT : _FAILED_AT + len(FAILURES)]
    return bool(seen == easy + hard + sum(failed) and min(values[:_LAST_FIELDS]) >= 0)


def _reasons(values: tuple[Any, ...]) -> tuple[dict[str, int], dict[str, int]]:
    """Return the counts of failed and of dropped samples that a record holds."""
    dropped_at = _FAILED_AT + len(FAILURES)
    return (
        dict(zip(FAILURES, values[_FAILED_AT:dropped_at], strict=True)),
        dict(zip(DROPS, values[dropped_at:_LAST_FIELDS], strict=True)),
    )


def mark_of(key: str) -> int:
    """Return a frame's key as 64 bits, cheap enough for each frame."""
    name = key.encode(errors="surrogatepass")
    return zlib.crc32(name) << 32 | zlib.adler32(name)


def eight_bytes(name: str) -> bytes:
    """Return what a page keeps of a source's or a rule's name."""
    return hashlib.sha256(name.encode()).digest()[:8]
