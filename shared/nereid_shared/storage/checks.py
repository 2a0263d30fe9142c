# SPDX-License-Identifier: Apache-2.0
"""What every file is held to, wherever it comes from: its size, its digest, and the room that it leaves."""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from nereid_shared.errors import ModelInvalid, TemporaryError

# What must stay free: a node whose disk is full can no longer write its outbox.
SPARE_BYTES: Final = 64 * 1024 * 1024
UNFINISHED: Final = ".new-"
READ_ONLY: Final = 0o444
_NO_SPACE_DELAY_S: Final = 60.0


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def require_size(size: int, max_bytes: int, where: str) -> None:
    """Refuse what is larger than the limit.

    Raises:
        ModelInvalid: ``ModelTooLarge``.
    """
    if size > max_bytes:
        raise ModelInvalid(f"{where}: larger than the limit of {max_bytes} bytes", reason="ModelTooLarge")


def require_digest(digest: str, wanted: str, where: str) -> None:
    """Refuse what is not the file that was wanted.

    Raises:
        ModelInvalid: ``DigestMismatch``.
    """
    if digest != wanted:
        raise ModelInvalid(f"{where}: its sha256 is {digest}, not {wanted}", reason="DigestMismatch")


def require_room(to_come: int, folder: Path, where: str) -> None:
    """Refuse what would leave the disk of `folder` with less than `SPARE_BYTES`.

    Raises:
        TemporaryError: there is no room now.
    """
    free = shutil.disk_usage(folder).free
    if to_come + SPARE_BYTES > free:
        raise TemporaryError(f"{where}: {to_come} bytes to come, {free} free in {folder}", delay_s=_NO_SPACE_DELAY_S)


def sync_folder(folder: Path) -> None:
    """Write a folder's names through to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(file: Path, content: bytes) -> None:
    """Give a small file its content at once, made with its folder where it is not there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=UNFINISHED, delete=False) as fresh:
        fresh.write(content)
    Path(fresh.name).replace(file)
