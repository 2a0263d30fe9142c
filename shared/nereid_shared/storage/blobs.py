# SPDX-License-Identifier: Apache-2.0
"""The cache's files by their sha256, and which URL gave which of them."""

import contextlib
import hashlib
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

from nereid_shared.storage.checks import READ_ONLY, file_sha256, sync_folder, write_whole
from nereid_shared.storage.locks import guarded

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a URL gave when it was last asked: a file's digest, and the server's validator where there was one."""

    url: str
    digest: str
    validator: str | None


class Blobs:
    """The folders ``blobs/sha256`` and ``urls`` of a cache.

    A blob is never written again: its names elsewhere in the cache are hard links to it. One that is damaged on disk
    is removed when it is next asked for.
    """

    def __init__(self, root: Path) -> None:
        self._root, self._folder, self._urls = root, root / "blobs" / "sha256", root / "urls"
        # Digests that this process has seen to be right: each file is read once, not at each question.
        self._seen: dict[tuple[int, int, int, int], str] = {}

    def path(self, digest: str) -> Path:
        """Return where the blob of a digest stands, or would stand."""
        return self._folder / digest

    def has(self, digest: str) -> bool:
        """Return whether the blob is here and what its name says."""
        blob = self.path(digest)
        try:
            if self.digest_of(blob) == digest:
                return True
        except FileNotFoundError:
            return False
        logger.warning("a file of the cache is damaged", extra={"file": str(blob)})
        blob.unlink(missing_ok=True)
        return False

    def digest_of(self, file: Path) -> str:
        """Return the sha256 of a file, from memory where this process has read it and it is the same."""
        identity = _identity(file)
        if identity not in self._seen:
            self._seen[identity] = file_sha256(file)
        return self._seen[identity]

    def link(self, digest: str, to: Path) -> bool:
        """Give a blob another name, in place of what has it; returns whether the blob is here."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with guarded(self._root, alone=False):
            if not self.has(digest):
                return False
            to.unlink(missing_ok=True)
            to.hardlink_to(self.path(digest))
        return True

    def add(self, part: Path, digest: str, to: Path) -> None:
        """Make a whole part the blob of its digest, with another name where nothing is; the part is gone then."""
        self._folder.mkdir(parents=True, exist_ok=True)
        part.chmod(READ_ONLY)
        with guarded(self._root, alone=True):
            if self.has(digest):  # another URL's, or a killed process's
                part.unlink()
                to.hardlink_to(self.path(digest))
            else:
                self.path(digest).hardlink_to(part)
                part.replace(to)
        self._seen[_identity(to)] = digest
        sync_folder(self._folder)

    def given(self, url: str) -> Given | None:
        """Return what a URL gave when it was last asked."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            given = Given(**json.loads(self._record(url).read_text()))
            if given.url == url:
                return given
        return None

    def remember(self, given: Given) -> None:
        """Keep what a URL gave."""
        with guarded(self._root, alone=False):
            write_whole(self._record(given.url), json.dumps(asdict(given)).encode())

    def _record(self, url: str) -> Path:
        return self._urls / f"{hashlib.sha256(url.encode()).hexdigest()}.json"


def _identity(file: Path) -> tuple[int, int, int, int]:
    status = file.stat()
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
