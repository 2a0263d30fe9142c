# SPDX-License-Identifier: Apache-2.0
"""What a URL names: a path on this node, or a file of a server."""

from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import SplitResult, quote, unquote, urlsplit

from nereid_shared.errors import ModelInvalid, UserError
from nereid_shared.storage.checks import file_sha256, require_digest, require_size

_NAME_BYTES: Final = 200


def local_path(url: str) -> Path | None:
    """Return the path on this node that a URL names, or None where it names a file of a server.

    Raises:
        UserError: a ``file://`` URL of another host.
    """
    parts = _split(url)
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
    if is_s3(url):
        return _checked_name(PurePosixPath(s3_object(url)[1]).name, url)
    parts = _split(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UserError(
            "not a URL of a file", where=shown(url), mend="Write a path, file://, http://, https:// or s3://"
        )
    if parts.username is not None:
        raise UserError(
            "a password in a URL is shown to all who see the resource", where=parts.hostname,
            mend="Write a signed URL, or an s3:// one",
        )  # fmt: skip
    if not url.isascii() or not url.isprintable() or " " in url:
        raise UserError("not a URL", where=shown(url), mend="Write what is no ASCII, and blanks, as %XX")
    return _checked_name(PurePosixPath(unquote(parts.path)).name, url)


def beside(url: str, path: str) -> str:
    """Return the URL of a file below the folder of the one that a URL names."""
    if is_s3(url):
        return f"{url.rpartition('/')[0]}/{path}"
    parts = _split(url)
    folder = parts.path.rpartition("/")[0]
    return parts._replace(path=f"{folder}/{quote(path)}", query="", fragment="").geturl()


def is_s3(url: str) -> bool:
    """Return whether a URL names an object of an S3 bucket."""
    return url.startswith("s3://")


def s3_object(url: str) -> tuple[str, str]:
    """Return the bucket and the key that ``s3://bucket/key`` names; a key stands there as it is, with nothing as %XX.

    Raises:
        UserError: it names none.
    """
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not bucket or not key or key.endswith("/"):
        raise UserError("not an object of a bucket", where=url, mend="Write s3://bucket/key/of/the/file")
    return bucket, key


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


def _checked_name(name: str, url: str) -> str:
    if name in {"", ".."} or not name.isprintable() or len(name.encode()) > _NAME_BYTES:
        raise UserError("not a URL of a file", where=shown(url), mend="Write the whole URL, as https://host/path/file")
    return name


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises, too
    except ValueError as error:
        raise UserError(f"not a URL: {error}", where=shown(url), mend="Write https://host/path/file") from error
    return parts
