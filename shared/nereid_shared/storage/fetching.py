# SPDX-License-Identifier: Apache-2.0
"""One file into a folder of one's own: no cache, no other process."""

import logging
from pathlib import Path

from nereid_shared.errors import Unavailable
from nereid_shared.storage.checks import file_sha256, sync_folder
from nereid_shared.storage.download import Download, Origin, Progress
from nereid_shared.storage.patience import Patience, Stop
from nereid_shared.storage.places import checked_file, local_path, remote_name, shown

logger = logging.getLogger(__name__)


def fetch(
    url: str,
    *,
    into: Path,
    sha256: str | None,
    max_bytes: int,
    stall_timeout_s: float = 30.0,
    backoff_s: float = 0.5,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> Path:
    """Return the path of the file that `url` names, downloaded below `into` where it is not on this node.

    A file with the right digest is not downloaded again. Without a digest the server is asked whether it changed, and
    a file that was fetched earlier serves when the server cannot be reached. Two processes must not fetch into the
    same folder at once: what is shared goes through a `Cache`.

    Args:
        url: a path, ``file://``, ``http://``, ``https://`` or ``s3://bucket/key``.
        into: folder for downloads, one per model: the file keeps the URL's last name.
        sha256: the digest in hex, or None where the user gave none.
        max_bytes: larger files are refused before or while they come.
        stall_timeout_s: a connection that brings nothing for so long is given up and resumed.
        backoff_s: first delay between tries; it doubles, with jitter. Tries that brought something do not count.
        progress: told the bytes that are there and the whole size, where the server says it.
        stop: asked all the while; True ends the call with `Stopped`.

    Raises:
        UserError: the URL is of another kind.
        ModelInvalid: ``ModelMissing``, ``ModelForbidden``, ``ModelTooLarge``, ``DigestMismatch``.
        Unavailable: the server did not answer, five times running; what came is kept.
        TemporaryError: the disk has no room for it. Stopped: `stop` said so; what came is kept.
    """
    wanted = sha256.lower() if sha256 else None
    here = local_path(url)
    if here is not None:
        return checked_file(here, max_bytes=max_bytes, sha256=wanted)
    file = into / remote_name(url)
    into.mkdir(parents=True, exist_ok=True)
    if wanted is not None and file.is_file() and file_sha256(file) == wanted:
        return file
    earlier = Origin.of(file) if wanted is None and file.is_file() else None
    if earlier is not None and earlier.url != url:
        earlier = None
    part = file.with_name(file.name + ".part")
    patience = Patience(stall_s=stall_timeout_s, backoff_s=backoff_s, stop=stop)
    download = Download(
        url=url, part=part, sha256=wanted, max_bytes=max_bytes, patience=patience, progress=progress
    )  # fmt: skip
    try:
        arrived = download.run(unless=earlier.validator if earlier else None)
    except Unavailable as error:
        if earlier is None:
            raise
        logger.warning("server away, using the copy", extra={"url": shown(url), "problem": str(error)})
        return file
    if arrived is not None:
        part.replace(file)
        Origin(url=url, validator=arrived.validator).save(file)
        download.forget()
        sync_folder(into)
    return file
