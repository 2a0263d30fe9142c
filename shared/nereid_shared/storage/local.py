# SPDX-License-Identifier: Apache-2.0
"""A model that stands on this node already: used where it is, once it is what was wanted."""

from collections.abc import Callable
from pathlib import Path

from nereid_shared.card import FILE_NAME, Card, model_path
from nereid_shared.errors import ModelInvalid
from nereid_shared.storage import signatures
from nereid_shared.storage.checks import require_digest, require_size
from nereid_shared.storage.wanted import Wanted


def local_file(path: Path, wanted: Wanted, *, sha256: str, digest_of: Callable[[Path], str]) -> tuple[Path, str]:
    """Return the file that a path means, and its sha256; of a folder without a single model itself and "".

    Args:
        path: a file, or a model's folder.
        wanted: what it must be.
        sha256: its digest in lower-case hex, "" where nobody gave one.
        digest_of: makes the sha256 of a file.

    Raises:
        ModelInvalid: ``ModelMissing``, ``ModelTooLarge``, ``DigestMismatch``, ``SignatureMissing``,
            ``SignatureInvalid``.
    """
    file = path
    if path.is_dir():
        try:
            file = model_path(path, Card.load(path) if (path / FILE_NAME).exists() else None)
        except ModelInvalid:
            if sha256 or wanted.public_key:
                raise
            return path, ""
    if not file.is_file():
        raise ModelInvalid(f"{path}: there is no such file on this node", reason="ModelMissing")
    require_size(file.stat().st_size, wanted.max_bytes, str(file))
    digest = digest_of(file)
    if sha256:
        require_digest(digest, sha256, str(file))
    if wanted.public_key:
        names = {file.name, *(_companions(file) if wanted.companions else ())}
        files = {name: digest_of(file.parent / name) for name in names}
        signatures.verify(
            _signature(file), public_key=wanted.public_key, artefact=digest, files=files, where=str(file)
        )  # fmt: skip
    return file, digest


def _companions(file: Path) -> list[str]:
    if not file.with_name(FILE_NAME).exists():
        return []
    goldens = [golden.input for golden in Card.load(file).golden]
    return [FILE_NAME, *(name for name in goldens if (file.parent / name).is_file())]


def _signature(file: Path) -> bytes:
    try:
        with file.with_name(signatures.FILE_NAME).open("rb") as stream:
            return stream.read(signatures.MAX_BYTES)
    except OSError as error:
        raise ModelInvalid(
            f"{file}: there is no {signatures.FILE_NAME} beside it", reason="SignatureMissing"
        ) from error
