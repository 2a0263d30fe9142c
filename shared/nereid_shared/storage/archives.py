# SPDX-License-Identifier: Apache-2.0
"""Archives from strangers, unpacked as plain files and folders and nothing else.

Refused whole: names that lead outside or that a file system may take for one another, links, devices, sparse and
encrypted entries, and whatever grows beyond the bounds. Modes, owners and times of the archive mean nothing here.
"""

import gzip
import hashlib
import io
import os
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Final

from nereid_shared.errors import ModelInvalid
from nereid_shared.storage.checks import READ_ONLY, require_room, require_size
from nereid_shared.storage.patience import Patience

MAX_ENTRIES: Final = 10_000
MAX_RATIO: Final = 100
"""Of unpacked to packed bytes: weights hardly shrink, and gzip reaches 1,000 on nothing but zeros."""
# Below, a ratio says nothing: a table of zeros among small files.
RATIO_FROM_BYTES: Final = 16 * 1024**2
_CHUNK_BYTES: Final = 256 * 1024
_PATH_BYTES: Final = 1024
_NAME_BYTES: Final = 255
_DEPTH: Final = 32
# A tar's long names and a zip's directory are read into memory at one go.
_MAX_HEADER_BYTES: Final = 64 * 1024
_MAX_DIRECTORY_BYTES: Final = 2 * 1024**2

_TAR: Final = (".tar.gz", ".tgz")
_ZIP: Final = (".zip",)


def is_archive(name: str) -> bool:
    """Return whether a file of this name is one to unpack."""
    return name.lower().endswith(_TAR + _ZIP)


def unpack(archive: Path, *, into: Path, max_bytes: int, patience: Patience, name: str = "") -> dict[str, str]:
    """Unpack an archive below `into`; returns the sha256 of each file by its path there.

    Whatever of a refused archive stands below `into` already is the caller's to remove.

    Args:
        archive: a ``.tar.gz`` or a ``.zip``.
        into: a folder of the caller's alone, made where it is not there.
        max_bytes: of all files together.
        patience: asked all the while.
        name: what the archive is called, where not as its file.

    Raises:
        ModelInvalid: ``ArchiveInvalid``, ``ModelTooLarge``.
        TemporaryError: the disk has no room. Stopped: `patience` says so.
    """
    name = name or archive.name
    into.mkdir(parents=True, exist_ok=True)
    tree = _Tree(into, where=name, packed_bytes=archive.stat().st_size, max_bytes=max_bytes, patience=patience)
    with _translated(name):
        (_unpack_zip if name.lower().endswith(_ZIP) else _unpack_tar)(archive, tree)
    if not tree.digests:
        raise _invalid(name, "there is no file in it")
    return tree.digests


def _unpack_tar(archive: Path, tree: "_Tree") -> None:
    with gzip.open(archive) as content:
        with tarfile.open(fileobj=content, mode="r:", tarinfo=_Entry) as entries:
            for entry in entries:
                if entry.isdir():
                    tree.add_folder(entry.name)
                elif entry.isreg() and not entry.issparse():
                    with entries.extractfile(entry) or io.BytesIO() as stream:
                        tree.add_file(entry.name, stream, size=entry.size)
                else:
                    raise _Refused(f"{entry.name} is a link, a device or sparse")
        # The checksum stands at the very end, behind tar's padding.
        if len(content.read(_MAX_HEADER_BYTES)) == _MAX_HEADER_BYTES:
            raise _Refused("something follows its end")


class _Entry(tarfile.TarInfo):
    """An entry whose headers are bounded: `tarfile` reads long names and attributes into memory, however long."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Entry":
        entry = super().frombuf(buf, encoding, errors)
        if not (entry.isreg() or entry.isdir()) and entry.size > _MAX_HEADER_BYTES:
            raise _Refused("a header is too long")
        return entry


def _unpack_zip(archive: Path, tree: "_Tree") -> None:
    with _BoundedFile(archive) as file, zipfile.ZipFile(file) as entries:
        for entry in entries.infolist():
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if entry.flag_bits & 1 or entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                raise _Refused(f"{entry.filename} is encrypted, or packed in an unusual way")
            if entry.is_dir():
                tree.add_folder(entry.orig_filename)
            elif kind in {0, stat.S_IFREG}:
                with entries.open(entry) as stream:
                    tree.add_file(entry.orig_filename, stream, size=entry.file_size)
            else:
                raise _Refused(f"{entry.filename} is a link or a device")


class _BoundedFile(io.FileIO):
    """A zip whose directory is bounded: `zipfile` reads it into memory, however long it says it is."""

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(os.fstat(self.fileno()).st_size - self.tell(), 0)
        if (left if size is None or size < 0 else min(size, left)) > _MAX_DIRECTORY_BYTES:
            raise _Refused("its directory is too long")
        return super().read(size) or b""

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence == io.SEEK_SET and offset < 0:
            raise _Refused("its directory points before its beginning")
        return super().seek(offset, whence)


class _Tree:
    """What an archive unpacks to, held to the bounds as it grows.

    Attributes:
        digests: the sha256 of each file.
    """

    def __init__(self, into: Path, *, where: str, packed_bytes: int, max_bytes: int, patience: Patience) -> None:
        self.digests: dict[str, str] = {}
        self._into, self._where, self._patience = into, where, patience
        self._packed_bytes, self._max_bytes, self._bytes = packed_bytes, max_bytes, 0
        # By their names as the least discerning file system has them.
        self._folders: dict[str, PurePosixPath] = {}
        self._files: set[str] = set()

    def add_folder(self, name: str) -> None:
        path = _checked(name)
        for folder in [*reversed(path.parents), path]:
            if folder.name:
                self._claim_folder(folder)

    def add_file(self, name: str, content: IO[bytes], *, size: int) -> None:
        path = _checked(name)
        self.add_folder(str(path.parent))
        folded = _folded(path)
        if not path.name:
            raise _Refused("a file in it has no name")
        if folded in self._files or folded in self._folders:
            raise _Refused(f"{name} stands in it twice")
        self._files.add(folded)
        self._count()
        require_size(self._bytes + size, self._max_bytes, f"{self._where}, unpacked")
        require_room(size, self._into, self._where)
        self.digests[str(path)] = self._write(self._into / path, content)

    def _write(self, file: Path, content: IO[bytes]) -> str:
        digest = hashlib.sha256()
        with file.open("xb") as stream:
            while chunk := content.read(_CHUNK_BYTES):
                self._patience.check()
                self._bytes += len(chunk)
                require_size(self._bytes, self._max_bytes, f"{self._where}, unpacked")
                if self._bytes > max(RATIO_FROM_BYTES, MAX_RATIO * self._packed_bytes):
                    raise _Refused(f"it grows to more than {MAX_RATIO} times its size")
                stream.write(chunk)
                digest.update(chunk)
            stream.flush()
            os.fsync(stream.fileno())
        file.chmod(READ_ONLY)
        return digest.hexdigest()

    def _claim_folder(self, path: PurePosixPath) -> None:
        folded = _folded(path)
        if folded in self._files or self._folders.get(folded, path) != path:
            raise _Refused(f"{path} stands in it twice")
        if folded not in self._folders:
            self._folders[folded] = path
            self._count()
            (self._into / path).mkdir()

    def _count(self) -> None:
        if len(self._folders) + len(self._files) > MAX_ENTRIES:
            raise _Refused(f"there are more than {MAX_ENTRIES} files and folders in it")


class _Refused(Exception):
    """An archive that is not to be unpacked, whatever else it holds."""


def _checked(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or not name.isprintable():
        raise _Refused(f"{name!r} is no path below a folder")
    too_long = len(name.encode()) > _PATH_BYTES or any(len(part.encode()) > _NAME_BYTES for part in path.parts)
    if too_long or len(path.parts) > _DEPTH:
        raise _Refused(f"{name!r} is too long or too deep")
    return path


def _folded(path: PurePosixPath) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", str(path)).casefold())


def _invalid(name: str, problem: str) -> ModelInvalid:
    return ModelInvalid(f"{name}: {problem}", reason="ArchiveInvalid")


@contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except _Refused as error:
        raise _invalid(name, str(error)) from error
    # Whatever the readers of both formats raise on garbage; other OSErrors are the disk's.
    except (
        tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, struct.error, EOFError, ValueError,
        LookupError, ArithmeticError, NotImplementedError, RecursionError,
    ) as error:  # fmt: skip
        raise _invalid(name, f"it cannot be unpacked: {error or type(error).__name__}") from error
