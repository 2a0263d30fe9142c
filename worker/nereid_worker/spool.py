# SPDX-License-Identifier: Apache-2.0
"""Hard samples that the LocalController has not committed yet: a bounded ring in a memory-mapped file.

The broker's acknowledgement is not the LocalController's, so the worker keeps each sample until ``accepted`` covers it.
The ring lives in the page cache: it survives SIGKILL of the worker, and costs one copy of the bytes.

Layout: a header with the positions of the oldest and the next record (they only grow; the offset is the position modulo
the capacity), then records of (sequence number, length, check, body). A record is written before the header names it;
its check covers its position, so that what an earlier lap left behind is never taken for a record. An empty ring goes
on at its beginning: where samples are accepted as fast as they come, a few pages that stay warm carry them all.

A power cut can lose what was written last, in any order: the ring then ends at its last whole record, and a file whose
header is damaged is set aside.
"""

import os
import struct
import threading
import zlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

from nereid_worker.damage import set_aside
from nereid_worker.mapped import open_mapped

DEFAULT_BYTES: Final = 32 * 1024 * 1024

_HEAD: Final = struct.Struct("<8sQQQ")  # magic, capacity, oldest, next
_MAGIC: Final = b"NEREIDS5"
_FIXED: Final = struct.Struct("<8sQ")  # magic, capacity
_HEAD_CHECK: Final = struct.Struct("<I")
_HEAD_CHECK_AT: Final = 32
_OLDEST: Final = 16
_NEXT: Final = 24
_U64: Final = struct.Struct("<Q")
_RECORD: Final = struct.Struct("<QII")  # seq, length, check
_CHECKED: Final = struct.Struct("<QIQ")  # seq, length, position
_FIRST: Final = 64
_MOST: Final = 1 << 62


class Spool:
    """A ring of (seq, body), oldest first.

    One thread appends, another one reads and releases; each moves only its own end. The caller locks the folder: two
    processes on one file would lose samples.

    Attributes:
        capacity: bytes that the records can take together.
        damaged: where a file that could not be read was put, before this one was made; else None.
        cut_bytes: length of the end that was no longer whole when the file was opened.
    """

    def __init__(self, path: Path, *, capacity_bytes: int = DEFAULT_BYTES) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.damaged: Path | None = None
        self.cut_bytes = 0
        existed = path.exists()
        self._open(path, capacity_bytes)
        if not self._is_whole():
            # All zeros, too: a power cut leaves such files.
            if existed:
                self.close()
                # One is enough: it is as large as the ring.
                self.damaged = set_aside(path, kept=1)
                self._open(path, capacity_bytes)
            _HEAD.pack_into(self._map, 0, _MAGIC, capacity_bytes, 0, 0)
            _HEAD_CHECK.pack_into(self._map, _HEAD_CHECK_AT, zlib.crc32(_FIXED.pack(_MAGIC, capacity_bytes)))
        self.capacity: int
        self._oldest: int
        self._next: int
        _, self.capacity, self._oldest, self._next = _HEAD.unpack_from(self._map, 0)
        self._lock = threading.Lock()
        self._index: deque[tuple[int, int, int]] = deque(self._scan())

    def _open(self, path: Path, capacity_bytes: int) -> None:
        present = path.stat().st_size if path.exists() else 0
        self._file, self._map = open_mapped(path, max(present, _FIRST + capacity_bytes))

    def _is_whole(self) -> bool:
        """Whether the header is one: a check covers what never changes, and the ends must lie within the ring."""
        magic, capacity, oldest, following = _HEAD.unpack_from(self._map, 0)
        (check,) = _HEAD_CHECK.unpack_from(self._map, _HEAD_CHECK_AT)
        if magic != _MAGIC or check != zlib.crc32(_FIXED.pack(magic, capacity)) or capacity + _FIRST > len(self._map):
            return False
        return bool(oldest <= following <= oldest + capacity and following < _MOST)

    def _scan(self) -> Iterator[tuple[int, int, int]]:
        at, last = self._oldest, 0
        while at < self._next:
            seq, length, check = _RECORD.unpack(self._copy(at, _RECORD.size))
            end = at + _RECORD.size + length
            if check != _check(seq, length, at) or end > self._next or seq <= last:
                # A torn ring can only come from a power cut; what follows is not ours to guess.
                self.cut_bytes, self._next = self._next - at, at
                _U64.pack_into(self._map, _NEXT, at)
                return
            yield seq, at, length
            at, last = end, seq

    def append(self, seq: int, body: bytes) -> bool:
        """Keep a sample; False where it does not fit until others are released."""
        if not self.has_room(len(body)):
            return False
        if not self._index:
            self._start_over()
        at, length = self._next, len(body)
        self._store(at, _RECORD.pack(seq, length, _check(seq, length, at)))
        self._store(at + _RECORD.size, body)
        with self._lock:
            self._next = at + _RECORD.size + length
            _U64.pack_into(self._map, _NEXT, self._next)
            self._index.append((seq, at, length))
        return True

    def _start_over(self) -> None:
        """Move the ends of an empty ring to its beginning."""
        with self._lock:
            beginning = -(-self._next // self.capacity) * self.capacity
            # `next` first: between the two the ring is not empty but torn, which reads as empty.
            self._next = beginning
            _U64.pack_into(self._map, _NEXT, beginning)
            self._oldest = beginning
            _U64.pack_into(self._map, _OLDEST, beginning)

    def drop_after(self, seq: int) -> None:
        """Forget records above `seq`: written, but never counted, because a kill came between."""
        while self._index and self._index[-1][0] > seq:
            _, self._next, _ = self._index.pop()
        _U64.pack_into(self._map, _NEXT, self._next)

    def release(self, seq: int) -> int:
        """Forget the records up to and including `seq`; return how many they were."""
        released = 0
        with self._lock:
            while self._index and self._index[0][0] <= seq:
                _, at, length = self._index.popleft()
                self._oldest = at + _RECORD.size + length
                released += 1
            if released:
                _U64.pack_into(self._map, _OLDEST, self._oldest)
        return released

    def after(self, seq: int) -> tuple[int, bytes] | None:
        """Return the oldest record above `seq`."""
        if not self._index or self._index[-1][0] <= seq:
            return None
        # The place is known, as numbers have no gaps but where a power cut left one.
        place = min(max(0, seq + 1 - self._index[0][0]), len(self._index) - 1)
        while place and self._index[place - 1][0] > seq:
            place -= 1
        found, at, length = self._index[place]
        return found, self._copy(at + _RECORD.size, length)

    def fits(self, body_bytes: int) -> bool:
        """Whether a sample of this size can ever be kept, once the ring is empty."""
        return _RECORD.size + body_bytes <= self.capacity

    def has_room(self, body_bytes: int) -> bool:
        """Whether `append` would keep a sample of this size now."""
        return self._next + _RECORD.size + body_bytes - self._oldest <= self.capacity

    @property
    def oldest_seq(self) -> int | None:
        """The oldest sample's number, or None where the ring is empty."""
        return self._index[0][0] if self._index else None

    def __len__(self) -> int:
        return len(self._index)

    def _store(self, at: int, data: bytes) -> None:
        start = at % self.capacity
        head = min(len(data), self.capacity - start)
        self._map[_FIRST + start : _FIRST + start + head] = data[:head] if head < len(data) else data
        if head < len(data):
            self._map[_FIRST : _FIRST + len(data) - head] = data[head:]

    def _copy(self, at: int, length: int) -> bytes:
        start = at % self.capacity
        head = min(length, self.capacity - start)
        data = self._map[_FIRST + start : _FIRST + start + head]
        return data if head == length else data + self._map[_FIRST : _FIRST + length - head]

    def close(self) -> None:
        """Release the file; its records stay."""
        self._map.close()
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _check(seq: int, length: int, at: int) -> int:
    return zlib.crc32(_CHECKED.pack(seq, length, at))
