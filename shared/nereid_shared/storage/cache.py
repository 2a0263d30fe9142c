# SPDX-License-Identifier: Apache-2.0
"""The files of a node that several processes share: downloaded once, by their content, within a bound.

Below the root::

    blobs/sha256/<digest>   each file once
    sets/<key>/…            what an artefact is made of, under its own names: hard links to blobs
    parts/<…>/              downloads under way, and those that were cut
    urls/<…>.json           what each URL gave when it was last asked
    known/<…>.json          which set each artefact came to

A set gets its name when it is whole, and never changes. Locks are the kernel's and go with their process: a killed one
leaves at worst a part, with which the next one goes on.
"""

import contextlib
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from nereid_shared.errors import ModelInvalid, TemporaryError, Unavailable, UserError
from nereid_shared.storage.archives import is_archive, unpack
from nereid_shared.storage.blobs import Blobs
from nereid_shared.storage.checks import require_size, write_whole
from nereid_shared.storage.download import Arrived, Progress
from nereid_shared.storage.eviction import evict
from nereid_shared.storage.gathering import TREE, Gathering
from nereid_shared.storage.local import local_file
from nereid_shared.storage.locks import guarded, owned
from nereid_shared.storage.patience import Patience, Stop
from nereid_shared.storage.places import local_path, remote_name, shown
from nereid_shared.storage.sets import Sets
from nereid_shared.storage.wanted import Obtained, Wanted

logger = logging.getLogger(__name__)

_DISK_DELAY_S: Final = 60.0
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class _Record(Struct, frozen=True, kw_only=True):
    """What an `obtain` came to: for the next one that finds no network."""

    key: str
    name: str
    digest: str
    bytes: int
    files: dict[str, str]


class Cache:
    """A folder shared by the processes of a node.

    What `obtain` and `known` return is held: no process evicts it until this one ends, closes the cache, or calls
    `collect` without naming it (see there). Usable from several threads.

    Args:
        root: the folder, made on first use.
        max_bytes: what `collect` brings it down to.
        stall_timeout_s: a connection that brings nothing for so long is given up and resumed.
        backoff_s: first delay between tries.
    """

    def __init__(
        self, root: Path, *, max_bytes: int, stall_timeout_s: float = 30.0, backoff_s: float = 0.5
    ) -> None:  # fmt: skip
        self._root, self._max_bytes = root, max_bytes
        self._stall_timeout_s, self._backoff_s = stall_timeout_s, backoff_s
        self._blobs = Blobs(root)
        self._sets = Sets(root, self._blobs)

    def obtain(self, wanted: Wanted, *, progress: Progress | None = None, stop: Stop | None = None) -> Obtained:
        """Return where the artefact is on this node, downloaded if need be.

        One process at a time gathers an artefact; the others wait for it. A file whose digest is known is not asked
        for again; without one the server is asked whether it changed, and the earlier copy serves while the server
        is away. A cut download goes on at the next call, of whatever process. An archive (``.tar.gz``, ``.tgz``,
        ``.zip``) is unpacked.

        Args:
            wanted: what.
            progress: told the artefact's bytes that are there and its whole size, where the server says it.
            stop: asked all the while; True ends the call with `Stopped`.

        Raises:
            UserError: the URL or the digest is none.
            ModelInvalid: ``ModelMissing``, ``ModelForbidden``, ``ModelTooLarge``, ``DigestMismatch``, ``CardInvalid``,
                ``ArchiveInvalid``, ``SignatureMissing``, ``SignatureInvalid``.
            Unavailable: the server does not answer, and there is no earlier copy.
            TemporaryError: the disk has no room, or fails. Stopped: `stop` said so.
        """
        sha256 = _checked_sha256(wanted)
        here = local_path(wanted.url)
        patience = Patience(stall_s=self._stall_timeout_s, backoff_s=self._backoff_s, stop=stop)
        try:
            if here is not None:
                return self._in_place(here, wanted, sha256, patience)
            return self._obtain(wanted, sha256, patience, progress)
        except Unavailable as error:
            earlier = self.known(wanted)
            if earlier is None:
                raise
            logger.warning("server away, using the copy", extra={"url": shown(wanted.url), "problem": str(error)})
            return earlier
        except OSError as error:
            raise TemporaryError(
                f"{error.filename or self._root}: {error.strerror or error}", delay_s=_DISK_DELAY_S
            ) from error

    def known(self, wanted: Wanted) -> Obtained | None:
        """Return what an earlier `obtain` of the same left here, whole and right, without a look at the network."""
        with contextlib.suppress(OSError, msgspec.DecodeError, ModelInvalid):
            record = msgspec.json.decode(self._record(wanted).read_bytes(), type=_Record)
            require_size(record.bytes, wanted.max_bytes, shown(wanted.url))
            if self._sets.hold(record.key) and self._sets.is_whole(record.key, record.files):
                return self._obtained(record)
        return None

    def collect(self, keep: Collection[str]) -> int:
        """Remove what was not used for longest until the cache is within its bound; returns the bytes freed.

        What this process holds and `keep` does not name is let go first, but for what it came to hold since the last
        call: another thread may have it, and `keep` not yet. What another process holds stays, even beyond the bound.

        Args:
            keep: keys, or digests of artefacts.
        """

        def kept(key: str) -> bool:
            return key in keep or key.partition("-")[0] in keep

        self._sets.let_go(kept)
        return evict(self._root, max_bytes=self._max_bytes, kept=kept)

    def close(self) -> None:
        """Let go of all that this object holds."""
        self._sets.close()

    def _obtain(self, wanted: Wanted, sha256: str, patience: Patience, progress: Progress | None) -> Obtained:
        name = remote_name(wanted.url)
        with self._workshop(sha256 or hashlib.sha256(wanted.url.encode()).hexdigest(), patience) as work:
            gathering = Gathering(blobs=self._blobs, work=work, patience=patience)
            get = partial(
                gathering.get, wanted.url, name, sha256=sha256 or None, max_bytes=wanted.max_bytes, progress=progress
            )
            if is_archive(name):
                made = self.known(wanted)
                arrived = get(made=self._arrived(made, wanted.url))
                if made is not None and arrived.digest == made.digest:
                    return made
                gathering.verify(wanted.url, wanted.public_key, arrived.digest)
                return self._unpacked(gathering.tree / name, arrived, work=work, wanted=wanted, patience=patience)
            arrived = get()
            if wanted.companions:
                gathering.companions(wanted.url)
            gathering.verify(wanted.url, wanted.public_key, arrived.digest)
            return self._settle(gathering.tree, name, arrived, files=gathering.digests, wanted=wanted)

    @contextlib.contextmanager
    def _workshop(self, name: str, patience: Patience) -> Iterator[Path]:
        """Have a folder to gather in, alone; only parts outlast a failure."""
        with owned(self._root / "parts" / name, patience) as work:
            try:
                shutil.rmtree(work / TREE, ignore_errors=True)
                yield work
                shutil.rmtree(work)
            finally:
                shutil.rmtree(work / TREE, ignore_errors=True)

    def _in_place(self, path: Path, wanted: Wanted, sha256: str, patience: Patience) -> Obtained:
        file, digest = local_file(path, wanted, sha256=sha256, digest_of=self._blobs.digest_of)
        size = file.stat().st_size if digest else 0
        if not digest or not is_archive(file.name):
            return Obtained(path=path, digest=digest, bytes=size, key="")
        arrived = Arrived(digest=digest, bytes=size, validator=None)
        wanted = replace(wanted, sha256=arrived.digest)
        with self._workshop(arrived.digest, patience) as work:
            return self.known(wanted) or self._unpacked(file, arrived, work=work, wanted=wanted, patience=patience)

    def _unpacked(self, archive: Path, arrived: Arrived, *, work: Path, wanted: Wanted, patience: Patience) -> Obtained:
        tree = work / TREE / "unpacked"
        files = unpack(archive, into=tree, max_bytes=wanted.max_bytes, patience=patience)
        # Many pack a folder rather than what is in it.
        innermost = os.path.commonpath([PurePosixPath(file).parent for file in files])
        return self._settle(tree, innermost, arrived, files=files, wanted=wanted)

    def _settle(self, tree: Path, name: str, arrived: Arrived, *, files: Mapping[str, str], wanted: Wanted) -> Obtained:
        """Make a gathered folder the set of its key, held, and remember it as what was wanted."""
        key = f"{arrived.digest}-{_manifest(files)}"
        self._sets.settle(tree, key, files)
        record = _Record(key=key, name=name, digest=arrived.digest, bytes=arrived.bytes, files=dict(files))
        with guarded(self._root, alone=False):
            write_whole(self._record(wanted), msgspec.json.encode(record))
        return self._obtained(record)

    def _arrived(self, known: Obtained | None, url: str) -> Arrived | None:
        given = self._blobs.given(url)
        if known is None or given is None or given.digest != known.digest:
            return None
        return Arrived(digest=known.digest, bytes=known.bytes, validator=given.validator)

    def _obtained(self, record: _Record) -> Obtained:
        return Obtained(
            path=self._sets.path(record.key) / record.name, digest=record.digest, bytes=record.bytes, key=record.key
        )  # fmt: skip

    def _record(self, wanted: Wanted) -> Path:
        asked = msgspec.json.encode([wanted.url, wanted.sha256.lower(), wanted.companions, wanted.public_key])
        return self._root / "known" / f"{hashlib.sha256(asked).hexdigest()}.json"


def _checked_sha256(wanted: Wanted) -> str:
    sha256 = wanted.sha256.lower()
    if sha256 and not _SHA256.fullmatch(sha256):
        raise UserError("not a sha256", where=wanted.sha256, mend="Write 64 hex digits, as sha256sum says them")
    return sha256


def _manifest(digests: Mapping[str, str]) -> str:
    """Return what tells sets of one artefact apart: names and companions."""
    return hashlib.sha256(msgspec.json.encode(sorted(digests.items()))).hexdigest()[:16]
