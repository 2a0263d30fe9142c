# SPDX-License-Identifier: Apache-2.0
"""What a URL names: a path on this node, or a file of a server."""

from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import unquote, urlsplit

from nereid_shared.errors import ModelInvalid, UserError
from nereid_shared.storage.checks import file_sha256, require_digest, require_size

REMOTE_SCHEMES: Final = frozenset({"http", "https"})
_NAME_BYTES: Final = 200


def local_path(url: str) -> Path | None:
    """Return the path on this node that a URL names, or None where it names a file of a server.

    Raises:
        UserError: a ``file://`` URL of another host.
    """
    parts = urlsplit(url)
    if parts.scheme == "":
        return Path(url)
    if parts.scheme != "file":
        return None
    if parts.netloc not in {"", "localhost"}:
        raise UserError("a file of another host", where=url, mend="Write file:///path/on/this/node")
    return Path(unquote(parts.path))


def remote_name(url: str) -> str:
    """Return the name of the file that a server's URL names.

    Raises:
        UserError: it is no URL of a file that can be fetched.
    """
    parts = urlsplit(url)
    name = PurePosixPath(unquote(parts.path)).name
    usable = name not in {"", ".."} and name.isprintable() and len(name.encode()) <= _NAME_BYTES
    if parts.scheme not in REMOTE_SCHEMES or not parts.hostname or not usable:
        raise UserError("not a URL of a file", where=shown(url), mend="Write a path, file://, http:// or https://")
    return name


def shown(url: str) -> str:
    """Return a URL as logs and conditions may show it: without its query, which may be a signature."""
    return url.partition("?")[0]


def checked_file(path: Path, *, max_bytes: int, sha256: str | None) -> Path:
    """Return the path of a file on this node.

    Raises:
        ModelInvalid: ``ModelMissing``, ``ModelTooLarge``, ``DigestMismatch``.
    """
    if not path.is_file():
        raise ModelInvalid(f"{path}: there is no such file on this node", reason="ModelMissing")
    require_size(path.stat().st_size, max_bytes, str(path))
    if sha256 is not None:
        require_digest(file_sha256(path), sha256, str(path))
    return path
