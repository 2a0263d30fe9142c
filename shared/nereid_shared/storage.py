# SPDX-License-Identifier: Apache-2.0
"""Model files from where their URL says: a path on this node, in place, or a download that survives cuts.

A download grows in ``{name}.part``, with ``{name}.part.json`` saying of what; it goes on where it stopped, also after
a restart, as long as the server still has the same file. It gets its name only when it is whole and its digest is
right. Blocking: call it from a thread. Two processes must not fetch into the same folder at once.
"""

import contextlib
import hashlib
import http.client
import json
import logging
import os
import random
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import unquote, urlsplit

from nereid_shared.backoff import doubled
from nereid_shared.errors import ModelInvalid, TemporaryError, Unavailable, UserError

logger = logging.getLogger(__name__)

Progress = Callable[[int, int | None], None]

_CHUNK_BYTES: Final = 256 * 1024
_ATTEMPTS: Final = 5
_BACKOFF_MAX_S: Final = 10.0
# What must stay free: a node whose disk is full can no longer write its outbox.
_SPARE_BYTES: Final = 64 * 1024 * 1024
_NO_SPACE_DELAY_S: Final = 60.0
_REFUSED: Final = {401: "ModelForbidden", 403: "ModelForbidden", 404: "ModelMissing", 410: "ModelMissing"}


def fetch(
    url: str,
    *,
    into: Path,
    sha256: str | None,
    max_bytes: int,
    stall_timeout_s: float = 30.0,
    backoff_s: float = 0.5,
    progress: Progress | None = None,
) -> Path:
    """Return the path of the file that `url` names, downloaded below `into` where it is not on this node.

    A file with the right digest is not downloaded again. Without a digest the server is asked whether it changed, and
    a file that was fetched earlier serves when the server cannot be reached.

    Args:
        url: a path, ``file://``, ``http://`` or ``https://``.
        into: folder for downloads, one per model: the file keeps the URL's last name.
        sha256: the digest in hex, or None where the user gave none.
        max_bytes: larger files are refused before or while they come.
        stall_timeout_s: a connection that brings nothing for so long is given up and resumed.
        backoff_s: first delay between tries; it doubles, with jitter. Tries that brought something do not count.
        progress: told the bytes that are there and the whole size, where the server says it.

    Raises:
        UserError: the URL is of another kind.
        ModelInvalid: ``ModelMissing``, ``ModelForbidden``, ``ModelTooLarge``, ``DigestMismatch``.
        Unavailable: the server did not answer, five times running; what came is kept.
        TemporaryError: the disk has no room for it.
    """
    parts = urlsplit(url)
    wanted = sha256.lower() if sha256 else None
    if parts.scheme in {"", "file"}:
        return _local(url, max_bytes=max_bytes, sha256=wanted)
    name = PurePosixPath(unquote(parts.path)).name
    if parts.scheme not in {"http", "https"} or not parts.hostname or name in {"", ".."}:
        raise UserError("not a URL of a file", where=url, mend="Write a path, file://, http:// or https://")
    into.mkdir(parents=True, exist_ok=True)
    download = _Download(
        url=url, file=into / name, sha256=wanted, max_bytes=max_bytes, stall_timeout_s=stall_timeout_s,
        progress=progress,
    )  # fmt: skip
    return download.run(backoff_s)


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _local(url: str, *, max_bytes: int, sha256: str | None) -> Path:
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.netloc not in {"", "localhost"}:
        raise UserError("a file of another host", where=url, mend="Write file:///path/on/this/node")
    path = Path(unquote(parts.path) if parts.scheme == "file" else url)
    if not path.is_file():
        raise ModelInvalid(f"{path}: there is no such file on this node", reason="ModelMissing")
    _require_size(path.stat().st_size, max_bytes, str(path))
    if sha256 is not None:
        _require_digest(file_sha256(path), sha256, str(path))
    return path


@dataclass(frozen=True, slots=True, kw_only=True)
class _Origin:
    """What a file on disk is a copy of: its URL, and the server's validator (ETag or date) where it gave one."""

    url: str
    validator: str | None

    def save(self, beside: Path) -> None:
        beside.with_name(beside.name + ".json").write_text(json.dumps(asdict(self)))

    @classmethod
    def of(cls, file: Path) -> "_Origin | None":
        with contextlib.suppress(OSError, ValueError, TypeError):
            return cls(**json.loads(file.with_name(file.name + ".json").read_text()))
        return None


class _Cut(Exception):
    """A try that ended early; what came is on disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Download:
    url: str
    file: Path
    sha256: str | None
    max_bytes: int
    stall_timeout_s: float
    progress: Progress | None

    @property
    def part(self) -> Path:
        return self.file.with_name(self.file.name + ".part")

    def run(self, backoff_s: float) -> Path:
        if self.sha256 is not None and self.file.is_file() and file_sha256(self.file) == self.sha256:
            return self.file
        failures = 0
        while True:
            before = self._part_bytes()
            try:
                return self._try_once()
            except _Cut as cut:
                failures = 0 if self._part_bytes() > before else failures + 1
                if failures >= _ATTEMPTS:
                    if self.sha256 is None and self._have_earlier_copy():
                        logger.warning("server away, using the copy", extra={"url": self.url, "problem": str(cut)})
                        return self.file
                    raise Unavailable(f"{self.url}: {cut}") from cut
                logger.info("download cut, trying again", extra={"url": self.url, "problem": str(cut)})
            ceiling = doubled(backoff_s, failures, longest_s=_BACKOFF_MAX_S)
            time.sleep(random.uniform(ceiling / 2, ceiling))  # noqa: S311 - jitter

    def _try_once(self) -> Path:
        request = urllib.request.Request(self.url, headers={"Accept-Encoding": "identity", **self._conditions()})  # noqa: S310 - http and https only, and the opener knows no other
        try:
            with _opener().open(request, timeout=self.stall_timeout_s) as response:
                self._receive(response)
        except urllib.error.HTTPError as error:
            with error:
                return self._refused(error)
        except (OSError, http.client.HTTPException) as error:
            raise _Cut(str(error) or type(error).__name__) from error
        return self._finish()

    def _conditions(self) -> dict[str, str]:
        """Return the headers that ask for the rest of the part, or for nothing where the copy is current."""
        there, origin = self._part_bytes(), _Origin.of(self.part)
        if there and origin is not None and origin.url == self.url:
            if origin.validator is not None:
                return {"Range": f"bytes={there}-", "If-Range": origin.validator}
            # Without a validator only a digest can tell whether the rest belongs to what is there.
            if self.sha256 is not None:
                return {"Range": f"bytes={there}-"}
        if self.sha256 is None and self._have_earlier_copy():
            validator = (_Origin.of(self.file) or _Origin(url="", validator=None)).validator
            if validator is not None:
                return {("If-None-Match" if validator.endswith('"') else "If-Modified-Since"): validator}
        return {}

    def _receive(self, response: http.client.HTTPResponse) -> None:
        there = self._part_bytes() if response.status == http.HTTPStatus.PARTIAL_CONTENT else 0
        if there and not response.headers.get("Content-Range", "").startswith(f"bytes {there}-"):
            self._forget_part()
            raise _Cut("the server sent another range than asked for")
        length = response.headers.get("Content-Length")
        whole = there + int(length) if length and length.isdecimal() else None
        self._require_room(whole, there)
        _Origin(url=self.url, validator=_validator(response)).save(self.part)
        with self.part.open("ab" if there else "wb") as stream:
            while chunk := response.read1(_CHUNK_BYTES):
                there += len(chunk)
                self._require_room_for(there)
                stream.write(chunk)
                if self.progress is not None:
                    self.progress(there, whole)
            stream.flush()
            os.fsync(stream.fileno())
        if whole is not None and there < whole:
            raise _Cut(f"the connection ended at {there} of {whole} bytes")

    def _require_room(self, whole: int | None, there: int) -> None:
        if whole is None:
            return
        self._require_room_for(whole)
        free = shutil.disk_usage(self.part.parent).free
        if whole - there + _SPARE_BYTES > free:
            raise TemporaryError(
                f"{self.url}: {whole - there} bytes to come, {free} free in {self.part.parent}",
                delay_s=_NO_SPACE_DELAY_S,
            )

    def _require_room_for(self, size: int) -> None:
        try:
            _require_size(size, self.max_bytes, self.url)
        except ModelInvalid:
            self._forget_part()
            raise

    def _refused(self, error: urllib.error.HTTPError) -> Path:
        if error.code == http.HTTPStatus.NOT_MODIFIED:
            return self.file
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            # All of it is there, or the file has shrunk: the digest, or a fresh start, tells.
            if self.sha256 is not None and file_sha256(self.part) == self.sha256:
                return self._finish()
            self._forget_part()
            raise _Cut("the part on disk does not fit the server's file") from error
        if error.code in _REFUSED:
            raise ModelInvalid(f"{self.url}: {error.code} {error.reason}", reason=_REFUSED[error.code]) from error
        raise _Cut(f"{error.code} {error.reason}") from error

    def _finish(self) -> Path:
        if self.sha256 is not None:
            digest = file_sha256(self.part)
            if digest != self.sha256:
                self._forget_part()
                _require_digest(digest, self.sha256, self.url)
        origin = _Origin.of(self.part)
        self.part.replace(self.file)
        if origin is not None:
            origin.save(self.file)
        self._forget_part()
        folder = os.open(self.file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return self.file

    def _have_earlier_copy(self) -> bool:
        origin = _Origin.of(self.file)
        return self.file.is_file() and origin is not None and origin.url == self.url

    def _part_bytes(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _forget_part(self) -> None:
        self.part.unlink(missing_ok=True)
        self.part.with_name(self.part.name + ".json").unlink(missing_ok=True)


def _opener() -> urllib.request.OpenerDirector:
    # Not the default one: it would follow a redirect to ftp, and open file: and data: URLs.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _validator(response: http.client.HTTPResponse) -> str | None:
    """Return what If-Range accepts: a strong ETag, else the date (RFC 9110, section 13.1.5)."""
    etag = response.headers.get("ETag")
    if etag is not None and not etag.startswith("W/"):
        return etag
    return response.headers.get("Last-Modified")


def _require_size(size: int, max_bytes: int, where: str) -> None:
    if size > max_bytes:
        raise ModelInvalid(f"{where}: larger than the limit of {max_bytes} bytes", reason="ModelTooLarge")


def _require_digest(digest: str, wanted: str, where: str) -> None:
    if digest != wanted:
        raise ModelInvalid(f"{where}: its sha256 is {digest}, not {wanted}", reason="DigestMismatch")
