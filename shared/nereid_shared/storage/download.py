# SPDX-License-Identifier: Apache-2.0
"""One file of a server on its way into a part file, which survives cuts, stalls and restarts.

The part grows in place, with ``{part}.json`` saying of what; a try goes on where the last one stopped, as long as the
server still has the same file. The sha256 is made of the bytes as they come; only what an earlier process left is read
again, once. The part never gets another name here: whoever asked for it does that.
"""

import contextlib
import hashlib
import http.client
import json
import logging
import os
import random
import re
import urllib.error
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from nereid_shared.backoff import doubled
from nereid_shared.errors import ModelInvalid, Unavailable
from nereid_shared.storage.checks import require_digest, require_room, require_size
from nereid_shared.storage.connection import opened
from nereid_shared.storage.patience import Patience
from nereid_shared.storage.places import is_s3, shown
from nereid_shared.storage.s3 import signed

logger = logging.getLogger(__name__)

Progress = Callable[[int, int | None], None]

_CHUNK_BYTES: Final = 512 * 1024
_ATTEMPTS: Final = 5
_BACKOFF_MAX_S: Final = 10.0
_REFUSED: Final = {401: "ModelForbidden", 403: "ModelForbidden", 404: "ModelMissing", 410: "ModelMissing"}
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """A whole file: its sha256, its size, and the server's validator (ETag or date) where it gave one."""

    digest: str
    bytes: int
    validator: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a file on disk is a copy of."""

    url: str
    validator: str | None

    def save(self, beside: Path) -> None:
        """Write it beside a file."""
        beside.with_name(beside.name + ".json").write_text(json.dumps(asdict(self)))

    @classmethod
    def of(cls, file: Path) -> "Origin | None":
        """Return what was saved beside a file."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            return cls(**json.loads(file.with_name(file.name + ".json").read_text()))
        return None


class _Cut(Exception):
    """A try that ended early; what came is on disk."""


class Download:
    """One file into one part.

    Args:
        url: ``http://``, ``https://`` or ``s3://``.
        part: where it grows; one process at a time.
        sha256: the digest in lower-case hex, or None where nobody knows it.
        max_bytes: larger files are refused before or while they come.
        progress: told the bytes that are there and the whole size, where the server says it.
    """

    def __init__(
        self, *, url: str, part: Path, sha256: str | None, max_bytes: int, patience: Patience,
        progress: Progress | None = None,
    ) -> None:  # fmt: skip
        self._url, self._part, self._sha256, self._max_bytes = url, part, sha256, max_bytes
        self._patience, self._progress = patience, progress
        self._digest, self._digested = hashlib.sha256(), 0
        self._resumed = self._doubted = False

    def run(self, *, unless: str | None = None, attempts: int = _ATTEMPTS) -> Arrived | None:
        """Return what came once it is whole and right, or None where the server's file is still `unless`.

        Args:
            unless: the validator of a copy that the caller has.
            attempts: tries in a row that may bring no more than those before.

        Raises:
            ModelInvalid: ``ModelMissing``, ``ModelForbidden``, ``ModelTooLarge``, ``DigestMismatch``.
            Unavailable: the server did not answer; what came is kept.
            TemporaryError: the disk has no room for it. Stopped: `patience` says so; what came is kept.
        """
        failures, most = 0, self._there()
        while True:
            try:
                return self._try_once(unless)
            except _Cut as cut:
                # More than ever before: a server that lies about the length would bring the same again and again.
                failures = 0 if self._there() > most else failures + 1
                most = max(most, self._there())
                if failures >= attempts:
                    raise Unavailable(f"{shown(self._url)}: {cut}") from cut
                logger.info("download cut, trying again", extra={"url": shown(self._url), "problem": str(cut)})
            ceiling = doubled(self._patience.backoff_s, failures, longest_s=_BACKOFF_MAX_S)
            self._patience.wait(random.uniform(ceiling / 2, ceiling))  # noqa: S311 - jitter

    def forget(self) -> None:
        """Remove the part."""
        self._part.unlink(missing_ok=True)
        self._part.with_name(self._part.name + ".json").unlink(missing_ok=True)

    def _try_once(self, unless: str | None) -> Arrived | None:
        if self._sha256 is not None and self._there() and self._digest_of_part() == self._sha256:
            return self._arrived()
        asked = self._conditions(unless)
        address = signed(self._url) if is_s3(self._url) else self._url
        try:
            with opened(address, asked, self._patience) as answer:
                known_whole = self._receive(answer, asked.get("If-Range"))
        except urllib.error.HTTPError as error:
            with error:
                self._refused(error)
            return None
        except (OSError, http.client.HTTPException) as error:
            raise _Cut(str(error) or type(error).__name__) from error
        return self._checked(known_whole=known_whole)

    def _conditions(self, unless: str | None) -> dict[str, str]:
        """Return the headers that ask for the rest of the part, or for nothing where the caller's copy is current."""
        there, origin = self._there(), Origin.of(self._part)
        if there and origin is not None:
            if origin.url == self._url and origin.validator is not None:
                return {"Range": f"bytes={there}-", "If-Range": origin.validator}
            # Without a validator only a digest can tell whether the rest belongs to what is there.
            if self._sha256 is not None:
                return {"Range": f"bytes={there}-"}
        if unless is not None:
            return {("If-None-Match" if unless.endswith('"') else "If-Modified-Since"): unless}
        return {}

    def _receive(self, answer: http.client.HTTPResponse, expected: str | None) -> bool:
        """Write the body; returns whether the server said how long it is."""
        there, whole = self._begins_at(answer, expected)
        if whole is not None:
            self._require_size(whole)
            require_room(whole - there, self._part.parent, shown(self._url))
        self._resume_digest(there)
        Origin(url=self._url, validator=_validator(answer)).save(self._part)
        with self._part.open("ab" if there else "wb") as stream:
            while chunk := answer.read1(_CHUNK_BYTES):
                there += len(chunk)
                self._require_size(there)
                stream.write(chunk)
                self._digest.update(chunk)
                self._digested = there
                if self._progress is not None:
                    self._progress(there, whole)
            stream.flush()
            os.fsync(stream.fileno())
        if whole is not None and there < whole:
            raise _Cut(f"the connection ended at {there} of {whole} bytes")
        return whole is not None

    def _begins_at(self, answer: http.client.HTTPResponse, expected: str | None) -> tuple[int, int | None]:
        """Return where the body begins in the file, and the file's size where the server says it."""
        length = answer.headers.get("Content-Length", "")
        if answer.status != http.HTTPStatus.PARTIAL_CONTENT:
            return 0, int(length) if length.isdecimal() else None
        there, said = self._there(), _CONTENT_RANGE.match(answer.headers.get("Content-Range", ""))
        # Not every server knows If-Range: one that sends the rest of another file tells by its own validator.
        changed = expected is not None and _validator(answer) not in {None, expected}
        if said is None or int(said[1]) != there or changed:
            self.forget()
            raise _Cut("the server sent something else than the rest of the part")
        if said[2] != "*":
            return there, int(said[2])
        return there, there + int(length) if length.isdecimal() else None

    def _refused(self, error: urllib.error.HTTPError) -> None:
        if error.code == http.HTTPStatus.NOT_MODIFIED:
            return
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            self.forget()
            raise _Cut("the part on disk does not fit the server's file") from error
        if error.code in _REFUSED:
            raise ModelInvalid(
                f"{shown(self._url)}: {error.code} {error.reason}", reason=_REFUSED[error.code]
            ) from error
        region = error.headers.get("x-amz-bucket-region")
        if region and error.code in {301, 400}:
            raise ModelInvalid(
                f"{shown(self._url)}: the bucket is in {region}; set AWS_REGION where this process runs",
                reason="ModelForbidden",
            ) from error
        raise _Cut(f"{error.code} {error.reason}") from error

    def _checked(self, *, known_whole: bool) -> Arrived:
        digest = self._digest.hexdigest()
        if self._sha256 is not None and digest != self._sha256:
            self.forget()
            if (self._resumed or not known_whole) and not self._doubted:
                # The beginning may be another file's, or the end may lack: one whole download tells.
                self._doubted, self._resumed = True, False
                raise _Cut("the parts do not make up the file that was wanted")
            require_digest(digest, self._sha256, shown(self._url))
        return self._arrived()

    def _arrived(self) -> Arrived:
        origin = Origin.of(self._part)
        validator = origin.validator if origin is not None and origin.url == self._url else None
        return Arrived(digest=self._digest.hexdigest(), bytes=self._there(), validator=validator)

    def _resume_digest(self, there: int) -> None:
        self._resumed = self._resumed or there > 0
        if there == 0:
            self._digest, self._digested = hashlib.sha256(), 0
        else:
            self._digest_of_part()

    def _digest_of_part(self) -> str:
        if self._digested != self._there():
            with self._part.open("rb") as stream:
                self._digest = hashlib.sha256()
                while chunk := stream.read(_CHUNK_BYTES):
                    self._patience.check()
                    self._digest.update(chunk)
                self._digested = stream.tell()
        return self._digest.hexdigest()

    def _require_size(self, size: int) -> None:
        try:
            require_size(size, self._max_bytes, shown(self._url))
        except ModelInvalid:
            self.forget()
            raise

    def _there(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0


def _validator(answer: http.client.HTTPResponse) -> str | None:
    """Return what If-Range accepts: a strong ETag, else the date (RFC 9110, section 13.1.5)."""
    etag = answer.headers.get("ETag")
    if etag is not None and not etag.startswith("W/"):
        return etag
    return answer.headers.get("Last-Modified")
